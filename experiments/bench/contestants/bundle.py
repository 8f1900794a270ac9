"""Bundle that contestants translate with: one folder with configuration, weights and source sentences."""

import json
import pathlib

import numpy as np

from experiments.bench.contestants import weights
from tx.errors import UserError

Sentences = list[list[int]]
# Fields of config.model with the one value that can be handed to the peers, which besides have h x d_k = h x d_v =
# d_model; and the positions that can.
HELD = {
    "architecture": "encoder_decoder",
    "decoder_layers": 0,
    "norm": "post",
    "normalization": "layer",
    "residual": True,
    "feed_forward": "relu",
    "mixer": "attention",
    "similarity": "scaled",
    "num_kv_heads": 0,
    "tying": "three",
    "dtype": "float32",
}
POSITIONS = ("sinusoidal", "learned", "none")


def save(folder: pathlib.Path, config: dict, params: dict, sources: list[np.ndarray]) -> None:
    """Writes the folder's files.

    Args:
      config: a whole configuration as nested dicts.
      params: the model's parameters.
      sources: tokens of each sentence, end of sentence included.
    """
    (folder / "config.json").write_text(json.dumps(config))
    weights.save(weights.flat(params), folder / "weights.npz")
    (folder / "sources.json").write_text(json.dumps([[int(token) for token in source] for source in sources]))


def load(folder: str) -> tuple[dict, weights.Weights, Sentences]:
    """Returns (config, weights, sources)."""
    path = pathlib.Path(folder)
    config = json.loads((path / "config.json").read_text())
    return config, weights.load(config["model"], path / "weights.npz"), json.loads((path / "sources.json").read_text())


def refuse_inexpressible(model: dict, peer: str) -> None:
    """Raises UserError for a model that the peers' programs cannot hold; it says how to train one that they can."""
    heads, width = model["num_heads"], model["d_model"]
    if width % heads:
        raise UserError(f"{peer} holds models whose d_model is a multiple of h only; here h={heads}, d_model={width}")
    wanted = HELD | {"d_k": width // heads, "d_v": width // heads}
    if model["positions"] not in POSITIONS:
        wanted["positions"] = POSITIONS[0]
    found = ", ".join(f"model.{name}={model[name]}" for name in wanted if model[name] != wanted[name])
    if found:
        settings = " ".join(f"--set model.{name}={value}" for name, value in wanted.items() if model[name] != value)
        raise UserError(
            f"{peer} cannot hold {found} (h={heads}, d_model={width}); train a run that it can hold with {settings}"
        )


def longest_output(config: dict, sources: Sentences) -> int:
    """Returns how many tokens the output of the longest sentence may have, end of sentence included."""
    return max(map(len, sources)) - 1 + config["decode"]["extra_length"]

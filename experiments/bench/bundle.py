"""What contestants translate with and from: one folder with configuration, weights and source sentences."""

import json
import pathlib

import numpy as np

from experiments.bench import weights
from tx.errors import UserError

Sentences = list[list[int]]


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
    """Raises UserError for a model that programs with one width of head cannot hold."""
    if not model["num_heads"] * model["d_k"] == model["num_heads"] * model["d_v"] == model["d_model"]:
        raise UserError(
            f"{peer} holds models with h x d_k = h x d_v = d_model only; here "
            f"h={model['num_heads']}, d_k={model['d_k']}, d_v={model['d_v']}, d_model={model['d_model']}"
        )
    if model["norm"] != "post":
        raise UserError(f"{peer} is compared with model.norm=post only, not {model['norm']!r}")
    if model["dtype"] != "float32":
        raise UserError(f"{peer} is compared with model.dtype=float32 only, not {model['dtype']!r}")


def longest_output(config: dict, sources: Sentences) -> int:
    """Returns how many tokens the output of the longest sentence may have, end of sentence included."""
    return max(map(len, sources)) - 1 + config["decode"]["extra_length"]

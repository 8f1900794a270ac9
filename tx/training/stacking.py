"""Hyperparameters that are arguments of the compiled step: in these alone runs that train side by side may differ."""

from typing import Any

import flax
import numpy as np
from ml_collections import ConfigDict

from tx import config as config_lib
from tx.model.layers import DROPOUTS


@flax.struct.dataclass
class TracedHyperparameters:
    """Hyperparameters that shape nothing, which the training step takes as traced arguments.

    So configurations that differ in these alone share one compiled step, or train side by side in it. A dropout of 0
    is not among them: it is left out of the program.
    """

    seed: Any
    dropout: Any
    attention_dropout: Any
    relu_dropout: Any
    label_smoothing: Any
    lr_factor: Any
    warmup_steps: Any

    @classmethod
    def of(cls, config: ConfigDict) -> "TracedHyperparameters":
        """Returns those of a configuration, as NumPy scalars."""
        fields = config_lib.fields(config)
        return cls(
            **{
                name: np.asarray(fields[path], np.uint32 if name == "seed" else np.float32)
                for name, path in TRACED_FIELDS.items()
            }
        )


TRACED_FIELDS = {
    "seed": "train.seed",
    "dropout": "model.dropout",
    "attention_dropout": "model.attention_dropout",
    "relu_dropout": "model.relu_dropout",
    "label_smoothing": "loss.label_smoothing",
    "lr_factor": "optim.lr_factor",
    "warmup_steps": "optim.warmup_steps",
}


def compile_key(config: ConfigDict) -> dict[str, object]:
    """Returns the fields that a compiled step depends on; where they are equal, runs can train side by side.

    A dropout is replaced by whether there is one, the other `TracedHyperparameters` and the name are left out.
    """
    fields = config_lib.fields(config)
    del fields["name"]
    for name, path in TRACED_FIELDS.items():
        value = fields.pop(path)
        if name in DROPOUTS:
            fields[path] = value > 0
    return fields

"""What runs that train side by side, in one compiled step, may differ in: the numbers that are its arguments."""

from typing import Any

import flax
import numpy as np
from ml_collections import ConfigDict

from tx import config as config_lib


@flax.struct.dataclass
class Values:
    """The numbers of a configuration that shape nothing: a step takes them as arguments.

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
    def of(cls, config: ConfigDict) -> "Values":
        """Reads them off a configuration, as scalars of NumPy."""
        fields = config_lib.fields(config)
        return cls(
            **{
                name: np.asarray(fields[path], np.uint32 if name == "seed" else np.float32)
                for name, path in VALUE_FIELDS.items()
            }
        )


VALUE_FIELDS = {
    "seed": "train.seed",
    "dropout": "model.dropout",
    "attention_dropout": "model.attention_dropout",
    "relu_dropout": "model.relu_dropout",
    "label_smoothing": "loss.label_smoothing",
    "lr_factor": "optim.lr_factor",
    "warmup_steps": "optim.warmup_steps",
}


def program(config: ConfigDict) -> dict[str, object]:
    """Returns the fields that make runs different programs; where they are equal, runs can train side by side.

    A dropout is replaced by whether there is one, the other `Values` and the name are left out.
    """
    fields = config_lib.fields(config)
    del fields["name"]
    for name, path in VALUE_FIELDS.items():
        value = fields.pop(path)
        if "dropout" in name:
            fields[path] = value > 0
    return fields

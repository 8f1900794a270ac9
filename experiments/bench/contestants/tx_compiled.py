"""Our training step, or beam search, compiled for an accelerator that is not there."""

import functools
import hashlib
import re
import time

from ml_collections import ConfigDict

from experiments.bench.harness import targets
from tx import plugins
from tx.errors import UserError
from tx.runtime import backend

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Compiled:
    """Compiles for a target.

    Args:
      target: of `targets.TARGETS`.
      config: a whole configuration as nested dicts; of a training step its `parallel` says over how many devices.
      devices: how many there are.
    """

    def __init__(self, target: str, config: dict, devices: int = 1):
        targets.set_variables()
        backend.compile_for(targets.TARGETS[target].platform)
        plugins.load()
        self._devices, self._config = targets.devices(target, devices), ConfigDict(config)

    def train_step(self, members: int) -> dict:
        """Returns what a training step of so many runs side by side is compiled to, as `_compiled` does."""
        return self._compiled(self._lowered_step(members))

    def program(self) -> dict:
        """Returns {"digest": SHA-256 of the program of a run's training step, as the compiler is given it}."""
        return {"digest": hashlib.sha256(self._lowered_step(1).as_text().encode()).hexdigest()}

    def memory(self) -> dict:
        """Returns the memory of a run's training step on each device, by the compiler's own analysis.

        {"bytes", "refused": whether the compiler refuses it for its memory}; it may do so without saying bytes (None).
        """
        import jax

        try:
            found = self._lowered_step(1).compile().memory_analysis()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return {"bytes": used(str(error)), "refused": True}
        whole = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        return {"bytes": whole + found.temp_size_in_bytes + found.generated_code_size_in_bytes, "refused": False}

    def search(self, rows: int, length: int) -> dict:
        """Returns what beam search over so many sources of so many tokens is compiled to, as `_compiled` does."""
        import jax
        import numpy as np

        from tx.decoding.translator import blocks, jit_search
        from tx.model.transformer import init_params

        params = jax.eval_shape(lambda: init_params(self._config.model, 0))
        src = jax.ShapeDtypeStruct((rows, length), np.int32)
        room = blocks(length + self._config.decode.extra_length)
        return self._compiled(self._lowered(jit_search(self._config), params, src, length=room, halvings=0))

    @functools.cache  # noqa: B019 - as long as the process
    def _lowered_step(self, members):
        import jax
        import numpy as np

        from tx.data.packing import FIELDS
        from tx.runtime.trees import stack
        from tx.training.sharding import Layout
        from tx.training.stacking import TracedHyperparameters
        from tx.training.step import init_state, jit_train_step

        config, layout = self._config, Layout(self._config, self._devices)
        dispatch, rows = config.train.steps_per_dispatch, config.data.batch_rows
        lead = ((members,) if members > 1 else ()) + ((dispatch,) if dispatch > 1 else ())
        each = (len(layout.devices), rows // len(layout.devices)) if layout.mapped else (rows,)
        batch = dict.fromkeys(FIELDS, jax.ShapeDtypeStruct((*lead, *each, config.data.row_length), np.int32))
        state = jax.eval_shape(lambda: stack([init_state(config)] * members))
        hyperparameters = stack([TracedHyperparameters.of(config)] * members, np.stack)
        if layout.one:
            return self._lowered(jit_train_step(config, members), state, batch, hyperparameters)
        if lead:
            raise UserError("several runs, or steps a dispatch, need one device; set train.steps_per_dispatch to 1")
        return layout.compile(config).lower(state, batch, hyperparameters)  # it says itself what lies where

    def _lowered(self, jitted, *arguments, **static):
        """Returns a function of one device, lowered."""
        import jax
        import numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        there = NamedSharding(Mesh(np.array(self._devices[:1]), ("data",)), PartitionSpec())
        placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), arguments)
        return jitted.lower(*placed, **static)

    def _compiled(self, lowered):
        """Returns {"text": the program; "compile_s"; "arguments_mib", "temporaries_mib": memory on each device}."""
        began = time.perf_counter()
        compiled = lowered.compile()
        memory = compiled.memory_analysis()
        return {
            "text": compiled.as_text(),
            "compile_s": time.perf_counter() - began,
            "arguments_mib": memory.argument_size_in_bytes / 2**20,
            "temporaries_mib": memory.temp_size_in_bytes / 2**20,
        }


def used(message: str) -> float | None:
    """Returns the bytes that a compiler says a program would take which it refuses; None where it does not."""
    if match := re.search(r"Used ([\d.]+)([KMGT]?) of", message):
        return float(match[1]) * UNITS[match[2]]
    return None

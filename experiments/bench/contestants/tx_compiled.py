"""Our training step, or beam search, compiled for an accelerator that is not there."""

import time

from ml_collections import ConfigDict

from experiments.bench.harness import targets
from tx.runtime import backend


class Compiled:
    """Compiles for a target.

    Args:
      target: of `targets.TARGETS`.
      config: a whole configuration as nested dicts.
    """

    def __init__(self, target: str, config: dict):
        targets.set_variables()
        backend.compile_for(targets.TARGETS[target].platform)
        self._device, self._config = targets.device(target), ConfigDict(config)

    def train_step(self, members: int) -> dict:
        """Returns what a training step of so many runs side by side is compiled to, as `_compiled` does."""
        import jax
        import numpy as np

        from tx.data.packing import FIELDS
        from tx.runtime.trees import stack
        from tx.training.stacking import TracedHyperparameters
        from tx.training.step import init_state, jit_train_step

        config = self._config
        dispatch = config.train.steps_per_dispatch
        lead = ((members,) if members > 1 else ()) + ((dispatch,) if dispatch > 1 else ())
        rows = jax.ShapeDtypeStruct((*lead, config.data.batch_rows, config.data.row_length), np.int32)
        state = jax.eval_shape(lambda: stack([init_state(config)] * members))
        hyperparameters = stack([TracedHyperparameters.of(config)] * members, np.stack)
        return self._compiled(jit_train_step(config, members), state, dict.fromkeys(FIELDS, rows), hyperparameters)

    def search(self, rows: int, length: int) -> dict:
        """Returns what beam search over so many sources of so many tokens is compiled to, as `_compiled` does."""
        import jax
        import numpy as np

        from tx.decoding.translator import blocks, jit_search
        from tx.model.transformer import init_params

        params = jax.eval_shape(lambda: init_params(self._config.model, 0))
        src = jax.ShapeDtypeStruct((rows, length), np.int32)
        room = blocks(length + self._config.decode.extra_length)
        return self._compiled(jit_search(self._config), params, src, length=room, halvings=0)

    def _compiled(self, jitted, *arguments, **static):
        """Returns {"text": the program; "compile_s"; "arguments_mib", "temporaries_mib": memory that it takes}."""
        import jax
        import numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        there = NamedSharding(Mesh(np.array([self._device]), ("data",)), PartitionSpec())
        placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), arguments)
        lowered = jitted.lower(*placed, **static)
        began = time.perf_counter()
        compiled = lowered.compile()
        memory = compiled.memory_analysis()
        return {
            "text": compiled.as_text(),
            "compile_s": time.perf_counter() - began,
            "arguments_mib": memory.argument_size_in_bytes / 2**20,
            "temporaries_mib": memory.temp_size_in_bytes / 2**20,
        }

"""Our training as a contestant: tx's own batches and step, nothing beside them."""

import time

import numpy as np
from ml_collections import ConfigDict

from experiments.bench.harness import sentences
from experiments.bench.harness.machine import device_memory, peak_memory
from tx import plugins
from tx.data.loader import TrainBatches
from tx.runtime.backend import keep_freed_memory, one_step_at_a_time, plans_ahead


class Training:
    """Trains on packed batches, train.steps_per_dispatch updates in one call.

    Args:
      config: a whole configuration as nested dicts.
      folder: of the sentences.
    """

    def __init__(self, config: dict, folder: str):
        keep_freed_memory()
        one_step_at_a_time()
        plugins.load()
        from tx.training.step import init_state, make_train_step

        self._started = peak_memory()
        config = ConfigDict(config)
        self._each = config.train.steps_per_dispatch
        self._batches = TrainBatches(
            sentences.load(folder),
            seed=config.train.seed,
            row_length=config.data.row_length,
            batch_rows=config.data.batch_rows,
            ahead=plans_ahead(),
        )
        self._state, self._step = init_state(config), make_train_step(config)

    def run(self, target_tokens: int) -> dict:
        """Makes whole dispatches until at least so many target tokens have passed.

        Returns seconds, of them batching_s spent making batches; steps; target_tokens and source_tokens without
        padding; positions, both sides with padding; the last loss (nats).
        """
        from tx.runtime.trees import stack  # it brings JAX

        steps = target = source = positions = 0
        batching, began = 0.0, time.perf_counter()
        while target < target_tokens:
            start = time.perf_counter()
            batch = stack([next(self._batches) for _ in range(self._each)], np.stack)
            batching += time.perf_counter() - start
            self._state, metrics = self._step(self._state, batch)
            target += int(np.count_nonzero(batch["tgt"]))
            source += int(np.count_nonzero(batch["src"]))
            positions += batch["src"].size + batch["tgt"].size
            steps += self._each
        loss = float(np.ravel(metrics["loss"])[-1])  # waits for the last step
        return {
            "seconds": time.perf_counter() - began,
            "batching_s": batching,
            "steps": steps,
            "target_tokens": target,
            "source_tokens": source,
            "positions": positions,
            "loss": loss,
        }

    def close(self) -> None:
        """Ends the process that plans batches, if there is one."""
        self._batches.close()

    def memory(self) -> dict:
        """Returns peak_mib, the process's peak, and started_mib, what it was when only libraries were loaded.

        On a GPU the peak is the card's.
        """
        return {"peak_mib": device_memory() or peak_memory(), "started_mib": self._started}

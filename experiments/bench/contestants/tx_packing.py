"""Our packing of batches as a contestant: what the training loop draws for an accelerator, which is not there."""

import time

import numpy as np
from ml_collections import ConfigDict

from experiments.bench.harness import sentences
from tx.data.loader import TrainBatches
from tx.runtime.trees import stack


class Packing:
    """Draws the batches of a configuration as `tx.training.training_run.TrainingRun` does.

    Args:
      config: of the run.
      folder: of the sentences.
      ahead: whether another process plans the rows (`tx.data.prefetch`).
    """

    def __init__(self, config: dict, folder: str, ahead: bool):
        config = ConfigDict(config)
        self._each = config.train.steps_per_dispatch
        shape = {"row_length": config.data.row_length, "batch_rows": config.data.batch_rows}
        self._batches = TrainBatches(sentences.load(folder), seed=config.train.seed, **shape, ahead=ahead)

    def draw(self, dispatches: int) -> dict:
        """Draws the batches of so many dispatches; returns seconds, those of this process's CPU, and target tokens."""
        began, cpu, tokens = time.perf_counter(), time.process_time(), 0
        for _ in range(dispatches):
            drawn = stack([next(self._batches) for _ in range(self._each)], np.stack)
            tokens += int(np.count_nonzero(drawn["tgt"]))
        return {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
            "target_tokens": tokens,
        }

    def close(self) -> None:
        """Ends the process that plans ahead."""
        self._batches.close()

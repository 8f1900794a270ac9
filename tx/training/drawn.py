"""What the training loop draws for a call of the step: rows for this process's devices, and whose they all are."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tx.data.packing import Batch
from tx.runtime.trees import stack


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Batches of one dispatch, of a run or of several side by side.

    Attributes:
      batch: what the step takes: this process's rows, with axes for runs and updates where there are several.
      sentences: of each run, of each update, the sentences of its batch in the order of the rows, those of all
        processes.
      tokens: {"source", "target"}: of each run, how many tokens those sentences have, int64 (runs,).
    """

    batch: Batch
    sentences: list[list[np.ndarray]]
    tokens: dict[str, np.ndarray]


def side_by_side(runs: Sequence[Drawn]) -> Drawn:
    """Returns what some runs have drawn as what their group has, in one `stack`."""
    return Drawn(
        stack([run.batch for run in runs], np.stack),
        [update for run in runs for update in run.sentences],
        {side: np.concatenate([run.tokens[side] for run in runs]) for side in runs[0].tokens},
    )

"""Loss monitor: a loss or gradient that is not finite ends a run at once, a spike of the loss is logged."""

import collections
from collections.abc import Iterator, Sequence

import numpy as np

from tx.errors import Diverged
from tx.runtime.backend import dispatches_ahead
from tx.runtime.liveness import show_progress
from tx.training.step import layers
from tx.training.training_run import TrainingRun

ENOUGH = 30  # losses of earlier steps, below which nothing counts as a spike
SPIKE = 6.0  # standard deviations above their mean


class LossMonitor:
    """Monitor of a group's losses and gradients; an accelerator's are read some steps later, so that it need not wait.

    Args:
      members: of the group; the `recent` losses of their progress say what is usual.
      params: the model's, for the names of its layers.
    """

    def __init__(self, members: Sequence[TrainingRun], params: dict):
        self._members, self._layers = members, layers(params)
        self._lag = dispatches_ahead()
        self._waiting = collections.deque()

    def observe(
        self, step: int, metrics: dict, sentences: Sequence[Sequence[np.ndarray]]
    ) -> Iterator[tuple[int, int, Diverged | dict[str, float]]]:
        """Takes a dispatch; yields what was found in those that have come far enough, as `flush` does.

        Args:
          step: the number of its last update.
          metrics: what it gave, with axes for members and updates where there are several.
          sentences: of each member, of each update, those of its batch.
        """
        self._waiting.append((step, metrics, sentences))
        return self.flush(self._lag)

    def flush(self, lag: int = 0) -> Iterator[tuple[int, int, Diverged | dict[str, float]]]:
        """Yields (member, step, Diverged) and, for a spike, (member, step, {"spike": loss, "usual": mean before}).

        Args:
          lag: how many dispatches may wait for the next call.
        """
        while len(self._waiting) > lag:
            step, metrics, sentences = self._waiting.popleft()
            losses = np.reshape(metrics["loss"], (len(self._members), -1))
            norms = np.reshape(metrics["layer_grad_norms"], (*losses.shape, -1))
            show_progress()  # they are computed
            first = step - losses.shape[1] + 1
            for i, member in enumerate(self._members):
                for k, loss in enumerate(losses[i].tolist()):
                    if not (np.isfinite(loss) and np.isfinite(norms[i, k]).all()):
                        report = self._report(member, first + k, loss, norms[i, k], sentences[i][k])
                        yield i, first + k, Diverged(report)
                        break
                    if spike := _spike(member.progress.recent, loss):
                        yield i, first + k, spike
                    member.progress.recent.append(loss)

    def _report(self, member, step, loss, norms, sentences):
        split, decode = member.batches.split, member.data.vocabulary.decode
        return {
            "step": step,
            "loss": _number(loss),
            "gradient_norms": dict(zip(self._layers, map(_number, norms.tolist()), strict=True)),
            "sentences": [[decode(split.source(i)), decode(split.target(i))] for i in sentences.tolist()],
            "checkpoint": max(member.checkpoints.steps(), default=None),
        }


def _spike(recent, loss):
    if len(recent) < ENOUGH:
        return None
    usual, spread = float(np.mean(recent)), float(np.std(recent))
    return {"spike": loss, "usual": usual} if loss > usual + SPIKE * spread else None


def _number(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)  # JSON has no NaN

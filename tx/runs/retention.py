"""Retention of checkpoints: which of a run's stay on disk."""

from collections.abc import Sequence

from orbax.checkpoint.checkpoint_managers import preservation_policy


def regular_steps(steps: Sequence[int], every: int) -> list[int]:
    """Returns the checkpoints that a run has however often it was interrupted: each `every` steps, and the newest.

    Others were saved for a run that had to stop. The parameters that a run gives depend on none of them.

    Args:
      steps: of all that there are, in order.
      every: steps from one to the next.
    """
    return [step for step in steps if step % every == 0 or step == steps[-1]]


class NewestAndTheirBest:
    """Policy that keeps the newest checkpoints, and of each the best so far, which lies before it.

    Of every one of the newest, since training goes on from an earlier one where the newest is damaged.

    Args:
      keep: how many of the newest `regular_steps`; None for all.
      every: as there.
      best: {step: the best checkpoint's, as of that step}; its owner keeps it up to date.
    """

    def __init__(self, keep: int | None, every: int, best: dict[int, int]):
        self._keep, self._every, self._best = keep, every, best

    def should_preserve(self, checkpoints, *, context: preservation_policy.PreservationContext) -> list[bool]:
        """Returns which of all checkpoints to keep; orbax gives them, the oldest first."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        newest = steps if self._keep is None else regular_steps(steps, self._every)[-self._keep :]
        kept = {*newest, *(self._best.get(step) for step in newest)}
        return [step in kept for step in steps]

"""Retention of checkpoints: which of a run's stay on disk."""

from orbax.checkpoint.checkpoint_managers import preservation_policy


class NewestAndTheirBest:
    """Policy that keeps the newest checkpoints, and of each the best so far, which lies before it.

    Of every one of the newest, since training goes on from an earlier one where the newest is damaged.

    Args:
      keep: how many of the newest; None for all.
      best: {step: the best checkpoint's, as of that step}; its owner keeps it up to date.
    """

    def __init__(self, keep: int | None, best: dict[int, int]):
        self._keep, self._best = keep, best

    def should_preserve(self, checkpoints, *, context: preservation_policy.PreservationContext) -> list[bool]:
        """Returns which of all checkpoints to keep; orbax gives them, the oldest first."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        newest = steps if self._keep is None else steps[-self._keep :]
        kept = {*newest, *(self._best.get(step) for step in newest)}
        return [step in kept for step in steps]

"""Common start of runs that train side by side: a group goes on from a step that all its members have saved."""

from collections.abc import Sequence

from tx.runs.common_steps import split_by_steps
from tx.training.training_run import TrainingRun


def split_by_start(members: Sequence[TrainingRun]) -> list[list[TrainingRun]]:
    """Returns the members in groups, each of which has an intact checkpoint in common, or no member that has any.

    So none begins anew because of another, as where one's checkpoints were another run's and are set aside. The groups
    are to be trained one after the other; a line says so where there are several.
    """
    while True:
        groups = split_by_steps(members, _steps)
        newest = [(group, step) for group in groups if (step := newest_common(group)) is not None]
        if len(members) == 1 or all([m.checkpoints.verify(step) for group, step in newest for m in group]):
            break
    for group in groups[1:]:
        names = ", ".join(m.label for m in group)
        print(f"note: {groups[0][0].label} has no checkpoint in common with {names}: trained one after the other")
    return groups


def newest_common(members: Sequence[TrainingRun]) -> int | None:
    """Returns the newest step that all members have a checkpoint of, and whole dispatches lead to; None for none.

    They would not lead from another one to the last step either.
    """
    return max(set.intersection(*map(_steps, members)), default=None)


def _steps(m):
    return {step for step in m.checkpoints.steps() if step % m.config.train.steps_per_dispatch == 0}

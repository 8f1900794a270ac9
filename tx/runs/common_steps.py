"""Steps that several runs have saved: what can go on together, and what cannot."""

from collections.abc import Callable, Iterable
from typing import TypeVar

Run = TypeVar("Run")


def split_by_steps(
    runs: Iterable[Run], steps_of: Callable[[Run], set[int]], most: int | None = None
) -> list[list[Run]]:
    """Returns the runs in groups, each of which has a checkpoint in common, or no member that has any.

    A group goes on from one step, so none begins anew because of another.

    Args:
      runs: in the order in which they join the first group that they can.
      steps_of: the steps that a run has checkpoints of.
      most: the largest group; None for any size.
    """
    found: list[tuple[list[Run], set[int]]] = []
    for run in runs:
        steps = steps_of(run)
        for i, (group, common) in enumerate(found):
            if len(group) != most and (common & steps or not common | steps):
                found[i] = ([*group, run], common & steps)
                break
        else:
            found.append(([run], steps))
    return [group for group, _ in found]

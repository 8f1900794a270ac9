"""Groups of runs that can train side by side in one process."""

import collections
import operator
from collections.abc import Sequence

from launch import dispatch, resources
from launch.plan import PlannedRun
from tx.files import to_json
from tx.runs.common_steps import split_by_steps


def groups(runs: Sequence[PlannedRun], most: int | None = None) -> list[list[PlannedRun]]:
    """Returns what is to run, in one group what can train side by side in one program, the longest group first.

    Runs that were begun go together only where they have a checkpoint in common, since a group goes on from there:
    so none of them starts anew because of another.

    Args:
      runs: any; what is finished is left out.
      most: the largest group; None for any size, `dispatch.CHOSEN` for what suits an accelerator.
    """
    left = sum(not run.state.finished for run in runs)
    alike = collections.defaultdict(list)  # by compile key
    alone = [[run] for run in runs if run.trained_in and not run.state.finished]
    for run in (run for run in runs if not run.state.finished and not run.trained_in):
        alike[to_json(_compile_key(run, most))].append(run)
    steps_of = operator.attrgetter("checkpoints")
    made = alone + [
        group for same in alike.values() for group in split_by_steps(same, steps_of, _most(most, same[0], left))
    ]
    return sorted(made, key=lambda group: -sum(run.flops for run in group))


def _most(asked, run, left):
    if asked != dispatch.CHOSEN:
        return asked
    return dispatch.together(run.config, left, len(resources.gpus()))


def _compile_key(run, most):
    if most == 1:
        return run.label
    from tx.training.stacking import compile_key  # slow to import, and not needed to run one by one

    return compile_key(run.config)

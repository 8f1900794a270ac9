"""Groups of runs that can train side by side in one process."""

import collections
from collections.abc import Sequence

from launch.plan import PlannedRun
from tx.files import to_json


def groups(runs: Sequence[PlannedRun], most: int | None = None) -> list[list[PlannedRun]]:
    """Returns what is to run, in one group what can train side by side in one program, the longest group first.

    Runs that were begun go together only where they have a checkpoint in common, since a group goes on from there:
    so none of them starts anew because of another.

    Args:
      runs: any; what is finished is left out.
      most: the largest group; None for any size.
    """
    alike = collections.defaultdict(list)  # compile key -> [(runs, checkpoints in common)]
    alone = [[run] for run in runs if run.trained_in and not run.state.finished]
    for run in (run for run in runs if not run.state.finished and not run.trained_in):
        found, steps = alike[to_json(_compile_key(run, most))], run.checkpoints
        for i, (group, common) in enumerate(found):
            if len(group) != most and (common & steps or not common | steps):
                found[i] = ([*group, run], common & steps)
                break
        else:
            found.append(([run], steps))
    made = alone + [group for found in alike.values() for group, _ in found]
    return sorted(made, key=lambda group: -sum(run.flops for run in group))


def _compile_key(run, most):
    if most == 1:
        return run.label
    from tx.training.stacking import compile_key  # slow to import, and not needed to run one by one

    return compile_key(run.config)

"""Power of a plan: what its seeds can resolve at its scale, from the spread between those that are done."""

import pathlib
from collections.abc import Iterator, Sequence

from launch.plan import PlannedRun


def lines(runs: Sequence[PlannedRun], workdir: pathlib.Path) -> Iterator[str]:
    """Yields a line for each sweep of a plan that has results in the work folder (`experiments.report.power`)."""
    begun = dict.fromkeys(run.sweep for run in runs if run.state.finished)
    if not begun:
        return
    from experiments.report import power, reading  # scipy is slow to import, and without results there is no spread

    for found in reading.read([workdir / sweep for sweep in begun], abridged=True):
        seeds = len({run.seed for run in runs if run.sweep == found.name})
        if said := power.sentence(found, seeds):
            yield f"{found.name}: {said}"

"""Status of all runs in a work folder, whoever launched them."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.report import reading
from experiments.report.row_status import state_now
from tx.errors import UserError, printable
from tx.runs import state
from tx.runs.metrics_log import newest
from tx.runs.run_dir import RunDir
from tx.runs.state import RunState


@dataclasses.dataclass(frozen=True)
class Found:
    """Run of a sweep: one that was begun, or one that its sweep lacks.

    Attributes:
      name: SWEEP/VARIANT@SCALE.
      seed: from 1.
      state: of the run.
      step: the last one in its log; None where there is none.
    """

    name: str
    seed: int
    state: RunState
    step: int | None


def find(folder: pathlib.Path, left_out: list[UserError] | None = None) -> Iterator[Found]:
    """Yields the runs of every sweep in a work folder, in the order of its table.

    What was asked for and has no folder is pending; where no launch said what it asked for, that is every registered
    variant, in every seed that another variant has. UserError where there is no sweep; `left_out` as of `reading.read`.
    """
    for sweep in reading.read([folder], left_out=left_out, abridged=True):
        for row in sweep.all_rows:
            name = f"{sweep.sweep.name}/{row.variant.name}@{sweep.scale.label}"
            there = {run.seed: run for run in row.runs}
            for seed in sorted(there.keys() | set(sweep.seeds(row))):
                run = there.get(seed)
                step = newest(RunDir(run.path)).get("step") if run else None
                yield Found(name, seed, RunState("pending") if run is None else state_now(row, run), step)


def show(folder: pathlib.Path, console: Console) -> None:
    """Prints all runs of a work folder, and how many there are of each state."""
    left_out = []
    table, found = Table("run", "seed", "state", "step", "", box=None), list(find(folder, left_out))
    for run in found:
        step = "" if run.step is None else f"{run.step:,}"
        table.add_row(run.name, str(run.seed), run.state.name, step, Text(printable(run.state.reason)))
    console.print(table)
    counts = collections.Counter(run.state.name for run in found)
    console.print(", ".join(f"{counts[name]} {name}" for name in state.NAMES if counts[name]), markup=False)
    reading.refuse(left_out)

"""Stages of a launch: one, or with --tune two, the grid of every row and then fresh seeds of what each row chose."""

import argparse
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from experiments import points, registry, tuning
from experiments.report import reading, results
from experiments.report.symbols import show
from experiments.tuning import Asked
from launch import assignments, plan
from launch.plan import PlannedRun, selection
from launch.plan.selection import Row
from tx import components
from tx.errors import UserError
from tx.runs.run_dir import RunDir
from tx.runs.state import RunState


class Stage(NamedTuple):
    """Stage of a launch: runs that are made together, before any of the next.

    Attributes:
      title: for people; "" where there is but one.
      plan: returns the runs that are known by now, with their states.
      preview: returns them, and what stands for those that are not known yet.
      begun: is called before the first run starts.
      ended: is called when all are done or given up; returns what is to be said, in lines.
    """

    title: str
    plan: Callable[[], list[PlannedRun]]
    preview: Callable[[], list[PlannedRun]]
    begun: Callable[[], None] = lambda: None
    ended: Callable[[], list[str]] = list


def stages(args: argparse.Namespace) -> list[Stage]:
    """Returns the stages of the launch that parsed arguments ask for; raises UserError as `plan.make` and `Tuning`."""
    if not args.tune:
        make = functools.partial(plan.make, args)
        return [Stage("", make, make)]
    tuned = Tuning(args)
    return [
        Stage("grid", tuned.grid, tuned.grid, tuned.record, tuned.finish),
        Stage("fresh seeds", tuned.fresh, tuned.preview, tuned.record),
    ]


class Tuning:
    """Tuning of the rows of a command line. What they choose is read from the result files each time it is asked for.

    Raises UserError as `plan.make` and `tuning.check`, and where tuning.json is damaged or what may be a fresh seed's
    folder holds another configuration.

    Args:
      args: parsed arguments, with --tune.
      clashing: whether folders of fresh seeds may hold another configuration: for who makes way for the runs.
    """

    def __init__(self, args: argparse.Namespace, clashing: bool = False):
        self._args, grid = args, assignments.given(args).tune
        tuning.check(grid)
        self._seeds = assignments.seeds(args, first=tuning.SEED + 1)
        if tuning.SEED in self._seeds:
            raise UserError(f"--seeds={args.seeds}: with --tune, seed {tuning.SEED} is of the grid; give fresh ones")
        self._rows = []
        for row in selection.select(args):
            run = registry.parse(row.name)
            _refuse_unread(grid, run, assignments.given(args).settings | row.point)
            asked = Asked(run.variant.name, row.point, grid, self._seeds)
            self._rows.append(_Tuned(row, asked, args.workdir / f"{run.sweep.name}@{run.scale.label}"))
        for one in self._rows:
            tuning.read(one.folder)
        if not clashing:
            plan.refuse_clashes(self.begun())

    def begun(self) -> list[PlannedRun]:
        """Returns the fresh seeds of every point that has a folder, chosen or not."""
        begun = [one.at(point) for one in self._rows for point in one.asked.points if (one.folder / point).exists()]
        return self._runs(begun, self._seeds)

    def grid(self) -> list[PlannedRun]:
        """Returns the runs of every row at every point, with one seed."""
        return self._runs([point for one in self._rows for point in one.points], [tuning.SEED])

    def fresh(self) -> list[PlannedRun]:
        """Returns the fresh seeds of the points chosen by now."""
        chosen = [one.at(point) for one in self._rows if (point := one.choice.point)]
        return self._runs(chosen, self._seeds)

    def preview(self) -> list[PlannedRun]:
        """Returns those, and for each row whose grid is not done runs that stand for its fresh seeds, in no folder."""
        waiting = [one for one in self._rows if None in one.losses.values()]
        return [*self.fresh(), *(run for one in waiting for run in self._unchosen(one))]

    def record(self) -> None:
        """Writes what was asked for, and what was chosen by now, to each sweep's tuning.json."""
        for folder in dict.fromkeys(one.folder for one in self._rows):
            RunDir(folder).create()
            tuning.record(folder, [(one.asked, one.losses) for one in self._rows if one.folder == folder])

    def finish(self) -> list[str]:
        """Writes as `record`, and returns a line for each row: what it has chosen, or why nothing."""
        self.record()
        return [one.summary() for one in self._rows]

    def _runs(self, rows, seeds):
        return plan.runs_of(rows, seeds, self._args)

    def _unchosen(self, one):
        for run in self._runs(one.points[:1], self._seeds):  # it stands for the others too
            if run.name != run.registered:  # else the training that it takes its parameters of
                folder = RunDir(one.folder / one.unchosen / run.folder.path.name)
                name = f"{one.name}, chosen point"
                yield dataclasses.replace(run, name=name, folder=folder, state=RunState("pending"))


class _Tuned(NamedTuple):
    """Row that is tuned, and the folder of its sweep."""

    row: Row
    asked: Asked
    folder: pathlib.Path

    @property
    def name(self) -> str:
        run = registry.parse(self.row.name)
        return run._replace(variant=dataclasses.replace(run.variant, name=self.asked.row)).name

    @property
    def points(self) -> list[Row]:
        return list(map(self.at, self.asked.points))

    @property
    def unchosen(self) -> str:
        """A name that no point has."""
        return points.name(self.asked.variant, {**self.row.point, **dict.fromkeys(self.asked.grid, "CHOSEN")})

    def at(self, point: str) -> Row:
        return Row(self.row.name, {**self.row.point, **self.asked.points[point]})

    @property
    def losses(self) -> dict[str, float | None]:
        folders = {point: self.folder / point / f"seed{tuning.SEED}" for point in self.asked.points}
        return {point: results.loss_of(reading.read_run(path, tuning.SEED)) for point, path in folders.items()}

    @property
    def choice(self) -> tuning.Choice:
        return tuning.choose(self.asked, self.losses)

    def summary(self) -> str:
        losses, choice = self.losses, self.choice
        if choice.point is None:
            return f"tuned  {self.name}: no choice, {choice.why}"
        values = self.asked.points[choice.point]
        chosen = ", ".join(
            f"{field}={show(value)} of {', '.join(map(show, self.asked.grid[field]))}"
            for field, value in values.items()
        )
        edge = f"; AT THE EDGE of the grid of {', '.join(choice.edges)}: a better value may lie beyond"
        without = [point for point in self.asked.points if not math.isfinite(losses[point])]
        left_out = f"; without a finite dev loss, and so not chosen: {', '.join(without)}" if without else ""
        found = f"{chosen}, dev loss {losses[choice.point]:.4f}"
        return f"tuned  {self.name}: {found}{edge if choice.edges else ''}{left_out}"


def _refuse_unread(grid, run, given):
    """Raises UserError for a field that means nothing to what a row's own fields choose: all its points are one."""
    fields = selection.fields_of_components(run, given)
    for field in grid:
        if components.is_unread(field, fields) and (choosing := components.readers(field)[0]) not in grid:
            those = " or ".join(components.readers(field)[1])
            row = f"{run.variant.name} has {fields[choosing]}"
            raise UserError(f"--tune={field}: it means something to {choosing}={those}; {row}")

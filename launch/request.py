"""Request of a launch: what it asks for, remembered beside its runs."""

import argparse
import collections
from collections.abc import Mapping, Sequence

from experiments import launches, registry
from experiments.launches import AskedRow
from experiments.report import budget
from launch import assignments
from launch.plan import PlannedRun
from tx import plugins
from tx.runs import imports
from tx.runs.run_dir import RunDir


def remember(args: argparse.Namespace, runs: Sequence[PlannedRun]) -> None:
    """Writes what parsed arguments ask for into the launch.json of every sweep that runs are of.

    Raises UserError where one is damaged or cannot be written.
    """
    typed = {
        "selection": args.selector,
        "only": args.only or [],
        "set": args.settings,
        "grid": args.grid,
        "tune": args.tune,
        "seeds": args.seeds,
        "match": args.match or "",
        "imports": imports.remember(plugins.files()),
    }
    for sweep, rows in _rows(runs, assignments.given(args).settings).items():
        folder = args.workdir / sweep
        RunDir(folder).create()
        launches.record(folder, rows, typed)


def _rows(runs: Sequence[PlannedRun], settings: Mapping[str, object]) -> dict[str, list[AskedRow]]:
    """Returns {SWEEP@SCALE: its rows}, in the order of the runs."""
    alike = collections.defaultdict(list)
    for run in runs:
        alike[run.sweep, run.name].append(run)
    found = collections.defaultdict(list)
    for (sweep, name), those in alike.items():
        variant, row = registry.parse(those[0].registered).variant.name, variant_of(name)
        seeds = tuple(sorted({run.seed for run in those}))
        found[sweep].append(AskedRow(row, variant, those[0].point, settings, seeds))
    return found


def variant_of(name: str) -> str:
    """Returns the VARIANT of SWEEP/VARIANT@SCALE, registered or not."""
    return name.partition("/")[2].rpartition("@")[0]


def differences(runs: Sequence[PlannedRun]) -> str:
    """Returns a note on points of a grid that differ in size; "" where none do."""
    grids = collections.defaultdict(dict)
    for run in runs:
        if run.point:
            grids[variant_of(run.registered)].setdefault(run.name, (run.point, run.config))
    return budget.differences({variant: list(those.values()) for variant, those in grids.items()})

"""Sweeps that a session on a borrowed GPU is to run: how they are written, and the runs that they are."""

import argparse
import pathlib
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from experiments import tuning
from launch import command_line, plan
from launch.plan import PlannedRun
from launch.request import variant_of
from launch.text import with_text
from launch.tuning import Tuning
from tx.errors import UserError

FORM = "SWEEP@SCALE:SEEDS[:FIELD=VALUES]"


class Wanted(NamedTuple):
    """Sweep that is wanted: SWEEP@SCALE, its seeds, and FIELD=VALUES where each row is to be tuned; "" where not."""

    sweep: str
    seeds: int
    tune: str = ""

    @classmethod
    def parse(cls, text: str) -> "Wanted":
        """Reads SWEEP@SCALE:SEEDS[:FIELD=VALUES]."""
        sweep, _, rest = text.partition(":")
        seeds, colon, tune = rest.partition(":")
        if not (sweep and seeds.isdigit() and bool(colon) == bool(tune)):
            raise argparse.ArgumentTypeError(f"takes {FORM}, e.g. table3@multi30k:5; got {text!r}")
        return cls(sweep, int(seeds), tune)

    def __str__(self):
        return f"{self.sweep}, {self.tune}" if self.tune else self.sweep

    @property
    def arguments(self) -> list[str]:
        """Those of launch.local."""
        return [self.sweep, f"--seeds={self.seeds}", *([f"--tune={self.tune}"] if self.tune else [])]

    @property
    def stacked(self) -> int:
        """How many runs of a row train side by side: its seeds, or the points of its grid if these are more."""
        return max(self.seeds, self.tune.count(",") + 1)


def planned(wanted: Wanted, workdir: pathlib.Path, rest: Sequence[str]) -> list[PlannedRun]:
    """Returns the runs of a sweep, with their states as they are now; UserError as `launch.local` has it.

    Of a row whose grid is not done runs stand for the fresh seeds of what it will choose, in no folder.
    """
    args = _arguments(wanted, workdir, rest)
    if not args.tune:
        return plan.make(args)
    tuned = Tuning(args)
    return [*tuned.grid(), *tuned.preview()]


def possible(wanted: Wanted, workdir: pathlib.Path, rest: Sequence[str]) -> list[PlannedRun]:
    """Returns the runs that a sweep has or may come to have: of a tuned one fresh seeds at every point that is there.

    Those are stale, too, that are done on another text than lies here (`launch.text`). UserError as `planned`, but not
    where folders hold another configuration.
    """
    args = _arguments(wanted, workdir, rest)
    if not args.tune:
        return with_text(plan.make(args))
    tuned = Tuning(args, clashing=True)
    return with_text([*tuned.grid(), *tuned.begun()])


def _arguments(wanted, workdir, rest):
    args = command_line.parser_of().parse_args([*wanted.arguments, f"--workdir={workdir}", *rest])
    if args.tune and not wanted.tune:
        raise UserError(f"--tune is of one sweep: --sweep={FORM}")
    if args.grid and wanted.tune:  # --only means a row to be tuned by its own name, and so all points around it
        raise UserError(f"--grid is of no sweep that is tuned, as {wanted}; have a session of its own make it")
    return args


def programs(wanted: Wanted, runs: Iterable[PlannedRun], labels: Container[str]) -> dict[tuple, list[ConfigDict]]:
    """Returns {(row as --only takes it, whether of its grid): configurations that train side by side}.

    Args:
      runs: of the sweep.
      labels: of those that count.
    """
    found = {}
    for run in runs:
        if run.label in labels:
            row = variant_of(run.registered if wanted.tune else run.name)
            configs = found.setdefault((row, run.seed == tuning.SEED and bool(wanted.tune)), [])
            configs += [] if run.trained_in else [run.config]
    return found

"""Verifies a work folder, as after a copy from elsewhere: what is whole, what is damaged, and what is missing.

    python -m launch.verify DIR [--all]

Every run of every sweep in it: checksums of checkpoints, whose they are, results that lie where they belong and agree
with themselves, and what was asked for (launch.json) and is not there. Nothing is changed.

Exit status: 0 where all that is there is whole; 1 where something is damaged, or missing; 2 for what the caller has to
mend.
"""

import collections
import math
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.report import reading
from launch import compilation_cache, display
from launch.display import say
from tx import cli, plugins
from tx.errors import UserError, one_line_errors, printable
from tx.runs import imports, verification
from tx.runs.result import RunResult
from tx.runs.run_dir import RunDir
from tx.runs.verification import Verdict

SHOWN = ("damaged", "missing")  # without --all
ROUNDING = 1e-9  # relative, of a score that is computed again from its statistics


class Verified(NamedTuple):
    """Run of a sweep, and the verdict on its folder."""

    name: str
    seed: int
    verdict: Verdict


def verify(folder: pathlib.Path, left_out: list[UserError]) -> Iterator[Verified]:
    """Yields the verdict on every run in a work folder that was begun or asked for, in the order of its tables.

    Args:
      folder: a work folder, or one SWEEP@SCALE of it.
      left_out: gets the errors of sweeps that cannot be read.
    """
    for sweep in reading.read([folder], left_out=left_out):
        for row in sweep.all_rows:
            name, there = sweep.name_of(row), {run.seed: run for run in row.runs}
            for seed in sorted(there.keys() | set(sweep.seeds(row))):
                if run := there.get(seed):
                    yield Verified(name, seed, _of_run(RunDir(run.path), name, run.result))
                else:
                    yield Verified(name, seed, Verdict("missing"))


def _of_run(run, name, result):
    verdict = verification.verify(run, name)
    if result and verdict.name == "whole" and (found := _other_scores(result)):
        return Verdict("damaged", (found,))
    return verdict


def _other_scores(result: RunResult) -> str:
    """Returns which BLEU is not what its own statistics give, so that a digit was changed; "" for none."""
    from tx.evaluation.scores import bleu_from_stats  # slow to import

    for split, scores in result.tests.items():
        if scores.stats and not math.isclose(bleu_from_stats(scores.stats), scores.bleu, rel_tol=ROUNDING):
            return f"result.json: tests.{split}.bleu is not what its statistics give"
    return ""


def show(folder: pathlib.Path, console: Console, everything: bool = False) -> bool:
    """Prints what is not whole, or every run, and how many there are of each kind; returns whether all is whole."""
    left_out: list[UserError] = []
    found = list(verify(folder, left_out))
    table = Table("run", "seed", "", "", box=None)
    for run in found:
        if everything or run.verdict.name in SHOWN:
            reasons = Text(printable("; ".join(run.verdict.reasons)))
            table.add_row(run.name, str(run.seed), run.verdict.name, reasons)
    if table.row_count:
        console.print(table)
    growing = any(run.verdict.name == "running" for run in found)
    if damaged := compilation_cache.find_corrupt(folder / compilation_cache.FOLDER, growing):
        say(console, f"note: {len(damaged)} compiled programs are not as they were written: they are compiled again")
    counts = collections.Counter(run.verdict.name for run in found)
    say(console, ", ".join(f"{counts[name]} {name}" for name in verification.NAMES if counts[name]) or "no runs")
    if any(counts[name] for name in SHOWN):
        say(
            console,
            "what is damaged or missing: copy it again, or launch the sweep again, which makes what is missing, and "
            "what is damaged once its folder is deleted",
        )
    reading.refuse(left_out)
    return not any(counts[name] for name in SHOWN)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Verifies and prints; returns the exit status."""
    argv = plugins.take(list(sys.argv[1:] if argv is None else argv))
    parser = cli.Parser(prog="python -m launch.verify", description="Verifies every run of a work folder.")
    parser.add_argument("folder", type=cli.path, help="a work folder, or one SWEEP@SCALE folder of it")
    parser.add_argument("--all", action="store_true", help="list what is whole, too")
    parser.add_argument(plugins.OPTION, metavar="FILE", help=plugins.HELP)
    args = parser.parse_args(argv)
    imports.recall([args.folder])
    return 0 if show(args.folder, display.console(), args.all) else 1


if __name__ == "__main__":
    sys.exit(main())

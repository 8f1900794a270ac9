"""Committed rows made again by the command that their tables print."""

import os
import pathlib
import shlex
import statistics
import subprocess
import sys

import pytest
from fabricated import cells
from scipy.stats import t

from experiments.report import compare, costs_table
from experiments.report.reading import read

ROOT = pathlib.Path(__file__).parent.parent
AGAIN = "A row again: "


def printed(table, **words):
    """Returns the command in the notes of a table of costs, with such words in the place of its capitals."""
    (note,) = [note for note in table.notes if note.startswith(AGAIN)]
    command = note.removeprefix(AGAIN).partition(". ")[0]
    for word, value in words.items():
        assert word in command
        command = command.replace(word, str(value))
    return shlex.split(command)


@pytest.mark.slow
@pytest.mark.parametrize(("sweep", "name"), [("table3", "C/N=2"), ("feed_forward", "none")])
def test_a_row_again_by_its_printed_command(tmp_path, sweep, name):
    """On the same type of CPU, with the same libraries, to the last digit; on another within the noise of seeds."""
    folder = ROOT / "experiments" / "results" / f"{sweep}@smoke"
    (committed,) = read([folder])
    (row,) = [row for row in committed.rows if row.variant.name == name]
    was = row.results[0]
    words = {"ROW": name, "SEEDS": 1, "DIR": tmp_path, "THREADS": was.device.threads}
    python, *arguments = printed(costs_table.build(committed), **words)
    assert python == "python"
    env = {key: value for key, value in os.environ.items() if key not in ("PJRT_NPROC", "XLA_FLAGS")}
    ended = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    (made,) = read([tmp_path / f"{sweep}@smoke"])
    ((now,),) = [row.results for row in made.rows if row.variant.name == name]
    if (now.device.kind, now.versions) == (was.device.kind, was.versions):
        assert cells(compare.build(committed, made))[name]["same"] == "1 of 1"
    losses = [result.dev.nll for result in row.results]
    spread = statistics.stdev(losses) * (1 + 1 / len(losses)) ** 0.5  # of one more run of the same row
    assert abs(now.dev.nll - statistics.mean(losses)) <= t.ppf(0.995, len(losses) - 1) * spread

"""Runs of a page: state, step, scores and files of every run of every row, which the cells of its table lead to."""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping

from experiments.report.metrics import BLEU, PPL, Measure, is_diverged, number
from experiments.report.results import Results, Row, SeedRun
from experiments.report.row_status import state_now
from experiments.report.symbols import changes
from tx.runs.metrics_log import newest
from tx.runs.run_dir import RunDir

Link = Callable[[pathlib.Path], str]  # the address of a file, seen from the page
_FILES = r"(result|config|error)\.json|metrics\.jsonl|log\.txt|translations\..*\.txt"  # that a browser can show


@dataclasses.dataclass(frozen=True)
class ListedRun:
    """Line of a run.

    Attributes:
      seed: its number.
      state, reason: one of `tx.runs.state.NAMES`, and why.
      step: the last one it has logged, of how many, as text.
      ppl, bleu, minutes: as tables print them.
      files: {name: address}.
    """

    seed: int
    state: str
    reason: str
    step: str
    ppl: str = ""
    bleu: str = ""
    minutes: str = ""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ListedRow:
    """Row and its runs.

    Attributes:
      id: of its element in the page.
      label: its name.
      changes: what it changes of the base, on one line.
      runs: of every seed that it should have.
    """

    id: str
    label: str
    changes: str
    runs: tuple[ListedRun, ...]


def of(found: Results, link: Link) -> list[ListedRow]:
    """Returns every row of the table, then the points of tunings, each with the id that `id_of` its place gives."""
    return [
        ListedRow(id_of(place), row.label, changes(row.diff), tuple(_runs(found, row, link)))
        for place, row in enumerate(found.all_rows)
    ]


def id_of(place: int) -> str:
    """Returns the id of the element of a row of the table, by its place."""
    return f"row-{place}"


def _runs(found: Results, row: Row, link: Link) -> Iterator[ListedRun]:
    there = {run.seed: run for run in row.runs}
    for seed in sorted(there.keys() | set(found.seeds(row))):
        if seed in there:
            yield _run(row, there[seed], link)
        else:
            yield ListedRun(seed, "pending", "", "")


def _run(row: Row, run: SeedRun, link: Link) -> ListedRun:
    now, result = run.state if run.result else state_now(row, run), run.result
    if result and is_diverged(result):
        now = dataclasses.replace(now, reason="; ".join(filter(None, [now.reason, "diverged"])))
    if run.stale:
        now = dataclasses.replace(now, name="stale", reason="; ".join(run.stale))
    step = result.train.steps if result else newest(RunDir(run.path)).get("step")
    return ListedRun(
        run.seed,
        now.name,
        now.reason,
        "" if step is None else f"{step:,}",
        *([_cell(PPL, result), _cell(BLEU, result), f"{result.timing.total_s / 60:,.1f}"] if result else []),
        files={name: link(run.path / name) for name in sorted(_names(run.path)) if re.fullmatch(_FILES, name)},
    )


def _names(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _cell(measure: Measure, result) -> str:
    value = measure.of(result)
    return number(value, measure.form) if value is None or math.isfinite(value) else str(value)

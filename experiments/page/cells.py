"""Cells of a page's table: those of the report's main table, with what they are sorted by and bars of differences."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from experiments.page import run_list
from experiments.page.differences import Difference
from experiments.report import main_table
from experiments.report.main_table import FIELDS
from experiments.report.results import Results
from experiments.report.tables import Table, said_once

CHANGES = "changes"  # the column of what rows change of the base
RUNS = "runs"
WIDE = (RUNS, CHANGES)  # columns whose width the style sheet has
BAR = 90  # units that a bar's picture is wide
_NUMBER = re.compile(r"^\(?([+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Bar:
    """Bar of a difference: from zero, in the middle of BAR units; what reaches beyond the picture ends at its edge.

    Attributes:
      start, width: of the bar.
      low, high: of the interval; None where nothing is known of the noise.
      inside_noise: drawn hollow.
      text: what it says, for those who do not see it.
    """

    start: float
    width: float
    low: float | None
    high: float | None
    inside_noise: bool
    text: str


@dataclasses.dataclass(frozen=True)
class Cell:
    """Cell: its text, what it is sorted by (blank last in its column), its bar, a class to be drawn by, a remark."""

    text: str
    order: str
    bar: Bar | None = None
    kind: str = ""
    remark: str = ""


class Shown(NamedTuple):
    """Table as a page shows it.

    Attributes:
      table: the report's.
      columns: title and whether it is text, for each.
      rows: the cells.
      ids: of the element that each row's cells lead to, or "".
      once: lines on what is the same of every row.
      labels: of each row, by which switches call it; none where no switch means a row.
    """

    table: Table
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]
    ids: tuple[str, ...]
    once: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


def of(found: Results, known: Mapping[str, Mapping[str, Difference]]) -> Shown:
    """Returns the main table of a sweep.

    What became of the runs stands before the scores, where it is seen without scrolling, or above all if it is the same
    of every row; what rows change, in one column at the end, since the columns of all fields fill a screen.

    Args:
      found: the results.
      known: the differences from base (`differences.of`).
    """
    table, once = said_once(main_table.build(found))
    kept = [i for i, column in enumerate(table.columns) if column.drop < FIELDS]
    if table.columns[-1].title == RUNS:
        kept.insert(1 + len(found.axes), kept.pop())
    fields = [(i, column.title) for i, column in enumerate(table.columns) if column.drop >= FIELDS]
    whose = "ours" if found.beside_paper else ""
    heads = {f"Δ{head} {whose}".strip(): head for head in known}
    reach = {head: reach_of(one.ours for one in of_rows.values()) for head, of_rows in known.items()}

    def cell(row, i, text):
        column = table.columns[i]
        head = heads.get(column.title)
        difference = known[head].get(row.variant.name) if head else None
        drawn = bar(difference, reach[head]) if difference and difference.ours is not None else None
        return Cell(text, text if column.text else order(text), drawn)

    rows = []
    for row, texts in zip(found.shown, table.rows, strict=True):
        cells = [cell(row, i, texts[i]) for i in kept]
        if fields:
            changes = " ".join(f"{title}={texts[i]}" for i, title in fields if texts[i])
            cells.append(Cell(changes, changes))
        rows.append(tuple(cells))
    columns = [(table.columns[i].title, table.columns[i].text) for i in kept]
    if fields:
        columns.append((CHANGES, True))
    ids = tuple(run_list.id_of(place) for place in range(len(rows)))
    return Shown(table, tuple(columns), tuple(rows), ids, once, tuple(row.label for row in found.shown))


def plain(table: Table, row: Sequence[str]) -> tuple[Cell, ...]:
    """Returns the cells of a row of a table as they are."""
    return tuple(
        Cell(text, text if column.text else order(text)) for column, text in zip(table.columns, row, strict=True)
    )


def order(text: str) -> str:
    """Returns the number that a cell begins with; its text where that is none."""
    match = _NUMBER.match(text)
    return match[1].replace(",", "") if match else text


def reach_of(differences: Iterable[float | None]) -> float:
    """Returns the difference that the edge of a bar's picture stands for: nine of ten are within it."""
    sizes = sorted(abs(one) for one in differences if one is not None)
    return 1.3 * sizes[_tenth(sizes)] or 1.0 if sizes else 1.0


def _tenth(sizes: Sequence[float]) -> int:
    return max(0, math.ceil(0.9 * len(sizes)) - 1)


def bar(difference: Difference, reach: float) -> Bar:
    """Returns the bar of our difference where `reach` is at the edge."""

    def place(value):
        return round(BAR / 2 * (1 + max(-1.0, min(1.0, value / reach))), 1)

    ends = sorted((place(0.0), place(difference.ours)))
    interval, told = difference.interval, f"{difference.ours:+.3f}"
    if interval:
        told += f", interval {interval.text('.3f')}{', inside the noise' if difference.inside_noise else ''}"
    return Bar(
        ends[0],
        round(ends[1] - ends[0], 1),
        place(interval.low) if interval else None,
        place(interval.high) if interval else None,
        difference.inside_noise,
        told,
    )

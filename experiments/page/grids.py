"""Grids of a page: over one field a curve with a band, over two a heat map, and the table with any field across it."""

import math
from typing import NamedTuple

from experiments.page import charts
from experiments.page.cells import Shown, plain
from experiments.report import grid as grids
from experiments.report import grid_figure, grid_table
from experiments.report.grid import BETTER, SHOWN, Best, Grid
from experiments.report.metrics import number
from experiments.report.noise import SCORES
from experiments.report.results import Results, Row
from experiments.report.tables import Table

PREFIX = "grid "  # of the names of their pictures


class Pivoted(NamedTuple):
    """Tables of the grids of a sweep.

    Attributes:
      tables: {the field that stands across: the cells}; of grids of one field, or of different ones, one alone.
      notes: what holds of all: the best points and those inside their noise.
    """

    tables: dict[str, Shown]
    notes: tuple[str, ...]


def tables(found: Results) -> Pivoted | None:
    """Returns the tables of the grids that launches asked for; None where there are none."""
    made = grids.of(found)
    if not made:
        return None
    table = grid_table.build(found)
    axes = made[0].axes if len({tuple(axis.fields for axis in grid.axes) for grid in made}) == 1 else ()
    if len(axes) < 2:
        return Pivoted({"": _shown(table)}, table.notes)
    pivots = {axis.title: _shown(grid_table.build(found, axis.fields[0])) for axis in axes}
    first = [name for name, one in pivots.items() if one.table == table]  # what the table stands by, unasked
    return Pivoted({name: pivots[name] for name in dict.fromkeys([*first, *pivots])}, table.notes)


def _shown(table: Table) -> Shown:
    columns = tuple((column.title, column.text) for column in table.columns)
    return Shown(table, columns, tuple(plain(table, row) for row in table.rows), ("",) * len(table.rows))


def pictures(found: Results) -> dict[str, tuple[dict[str, object], list[dict[str, object]]]]:
    """Returns {name: (chart, values)}, one for each score of each grid of one axis or two."""
    made = {}
    for i, grid in enumerate(grid_figure.drawable(found)):
        for head in grid_figure.heads_of([grid]):
            name = f"{PREFIX}{i} {grid.variant}: {head}"
            made[name] = (_curve if len(grid.axes) == 1 else _heat)(name, grid, head)
    return made


def _curve(name, grid: Grid, head: str):
    (axis,), best, values = grid.axes, grid.best(head), []
    for x, place in zip(grid_figure.numbers_of(axis), axis.values, strict=True):
        if (point := _point(grid.points.get((place,)), head, best)) is None:
            continue
        sd, ends = point["sd"] or 0.0, _ends(best, head) if point["best"] else (None, None)
        point |= {"x": x, "at": grids.shown(place), "low": point["mean"] - sd, "high": point["mean"] + sd}
        values.append(point | dict(zip(("from", "to"), ends, strict=True)))
    numbers = grid_figure.numbers_of(axis) if grid_figure.is_numeric(axis) else ()
    return charts.grid_curve(name, head, axis.title, numbers, grid_figure.is_log(axis)), values


def _heat(name, grid: Grid, head: str):
    (down, across), best, values = grid.axes, grid.best(head), []
    for (one, other), row in grid.points.items():
        if (point := _point(row, head, best)) is not None:
            text = grids.marked(number(point["mean"], SHOWN[head].form), row, best).removesuffix(" best")
            place = {"down": grids.shown(one), "across": grids.shown(other)}
            values.append(point | place | {"text": text, "value": SCORES[head].mean(row)})
    orders = [[grids.shown(value) for value in axis.values] for axis in (down, across)]
    return charts.grid_heat(name, (down.title, across.title), orders, is_less_better=BETTER[head] < 0), values


def _point(row: Row | None, head: str, best: Best | None) -> dict[str, object] | None:
    """Returns what the pictures say of a point; None of one without a finite score."""
    mean = SHOWN[head].mean(row) if row else None
    if mean is None or not math.isfinite(mean):
        return None
    is_best = best is not None and best.row == row.variant.name
    is_close = best is not None and best.is_close(row.variant.name)
    told = {"row": row.label, "mean": mean, "sd": SHOWN[head].sd(row), "seeds": len(row.results)}
    return told | {"best": is_best, "close": is_close}


def _ends(best: Best, head: str) -> tuple[float | None, float | None]:
    """Returns the ends of the best point's interval; None where there are none: JSON has no infinity."""
    low, high = (grids.as_shown(end, head) for end in (best.low, best.high))
    return (None, None) if high is None or math.isinf(high) else (low, high)

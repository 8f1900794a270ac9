"""Table of grids: of one axis a line a point, of more with one axis in the columns; the best point, and its rivals."""

from collections.abc import Sequence

from experiments.report import differences_table, noise
from experiments.report import grid as grids
from experiments.report.captions import caption, seeds_note, texts_notes
from experiments.report.grid import SHOWN, Best, Grid, shown
from experiments.report.metrics import number
from experiments.report.noise import LEVEL, SCORES
from experiments.report.results import Results, Row
from experiments.report.row_status import Footnotes, state_of
from experiments.report.tables import Column, Table
from tx.errors import UserError

_HOW = ("Scale", "corpus", "steps", "seeds", "PPL on", "BLEU on")
_KEYS = {"PPL": "log_ppl", "BLEU": "bleu"}


def build(found: Results, pivot: str | None = None) -> Table:
    """Makes the table of the grids that launches asked for; it has no rows where there are none.

    Grids of the same two axes or more have one of them in the columns: that of `pivot`, a dotted field or its symbol,
    or else the one of the fewest values. Raises UserError where no grid has that field.
    """
    made, notes = grids.of(found), Footnotes()
    heads = [head for head in SHOWN if any(SCORES[head].values(row) for grid in made for row in grid.points.values())]
    best = {(i, head): grid.best(head) for i, grid in enumerate(made) for head in heads}
    axis = _column_axis(made, pivot)
    view = _lines(found, made, heads, best, notes) if axis is None else _pivoted(found, made, heads, best, axis, notes)
    columns, rows, groups = view
    return Table(
        title=f"{found.name}: grid{'s' if len(made) > 1 else ''}.",
        columns=columns,
        rows=rows,
        groups=groups,
        caption=caption(found, _HOW),
        notes=(
            *filter(None, (grids.told(grid, head) for grid in made for head in heads)),
            f"best: the best mean of its grid, which chance had a part in; its interval ({LEVEL:.0%}) is of that mean.",
            f"In parentheses: inside the noise of the best, whose difference has an interval ({LEVEL:.0%}, of all "
            "points of the grid together) that holds 0.",
            *_uneven(made, heads),
            *seeds_note(found),
            *texts_notes([result for grid in made for row in grid.points.values() for result in row.results]),
            *notes.lines,
        ),
        records=tuple(record for i in range(len(made)) for record in _records(found, i, made, heads, best)),
    )


def _uneven(made: Sequence[Grid], heads: Sequence[str]):
    """Yields a note for each grid whose points share no one spread."""
    for grid in made:
        spreads = {head: best.uneven for head in heads if (best := grid.best(head))}
        if told := differences_table.scattered(spreads, f"{grid.variant}: points"):
            yield told


def _column_axis(made: Sequence[Grid], pivot: str | None) -> int | None:
    """Returns which axis stands in the columns; None where every point has a line."""
    if not made:
        return None
    alike = len({tuple(axis.fields for axis in grid.axes) for grid in made}) == 1
    axes = made[0].axes
    if pivot is not None:
        names = [(*axis.fields, *axis.title.split(", ")) for axis in axes]
        at = next((i for i, known in enumerate(names) if pivot in known), None)
        if at is None or not alike:
            listed = dict.fromkeys(field for grid in made for axis in grid.axes for field in axis.fields)
            why = "is no axis of it" if alike else "needs grids of the same axes"
            raise UserError(f"--pivot={pivot}: {why}; the axes are {', '.join(listed)}")
        return at if len(axes) > 1 else None
    if not alike or len(axes) < 2:
        return None
    return min(range(len(axes)), key=lambda i: (len(axes[i].values), -i))


def _lines(found, made, heads, best, notes):
    """Returns (columns, rows, groups) with a line for each point."""
    titles = list(dict.fromkeys(axis.title for grid in made for axis in grid.axes))
    columns = [Column("row", text=True), *map(Column, titles)]
    for head in heads:
        delta = f"Δ{'log ' * (head == 'PPL')}{head}"
        columns += [Column(head), Column(delta, "from best", drop=1), Column(delta, f"{LEVEL:.0%}", drop=2)]
    rows, groups = [], []
    for i, grid in enumerate(made):
        for place, row in _in_order(grid):
            where = {axis.title: shown(value) for axis, value in zip(grid.axes, place, strict=True)}
            cells = [grid.variant, *(where.get(title, "") for title in titles)]
            for head in heads:
                cells += _scored(row, head, best[i, head])
            rows.append((*cells, state_of(row, found.seeds(row), notes)))
            groups.append(str(i))
    return (*columns, Column("runs", text=True)), tuple(rows), tuple(groups)


def _scored(row: Row, head: str, best: Best | None) -> list[str]:
    """Returns the cells of a score: itself, its difference from the best, and the interval of that."""
    interval = best.differences.get(row.variant.name) if best else None
    form = SCORES[head].form
    difference = noise.mark(number(interval.difference, f"+z{form}"), interval) if interval else ""
    text = SHOWN[head].cell(row)
    text = f"{text} best" if text and best and row.variant.name == best.row else text
    return [text, difference, interval.text(form) if interval else ""]


def _pivoted(found, made, heads, best, at, notes):
    """Returns (columns, rows, groups) with the axis number `at` in the columns, a block for each score."""
    axis, others = made[0].axes[at], [a for i, a in enumerate(made[0].axes) if i != at]
    values = sorted({value for grid in made for value in grid.axes[at].values}, key=_order)
    columns = [Column("row", text=True)] if len(made) > 1 else []
    columns += [Column(other.title, text=not columns and not i) for i, other in enumerate(others)]
    columns += [
        Column(head, f"{axis.title}={shown(value)}", drop=rank) for rank, head in enumerate(heads) for value in values
    ]
    rows, groups = [], []
    for i, grid in enumerate(made):
        for rest in dict.fromkeys(_without(place, at) for place, _ in _in_order(grid, last=at)):
            cells = [grid.variant] if len(made) > 1 else []
            cells += map(shown, rest)
            for head in heads:
                points = (grid.points.get((*rest[:at], value, *rest[at:])) for value in values)
                cells += [_pivot_cell(found, row, head, best[i, head], notes) for row in points]
            rows.append(tuple(cells))
            groups.append(f"{i} {rest[0] if len(rest) > 1 else ''}")
    return tuple(columns), tuple(rows), tuple(groups)


def _pivot_cell(found, row, head, best, notes):
    if row is None:
        return ""
    text = grids.marked(SHOWN[head].cell(row), row, best)
    return text or state_of(row, found.seeds(row), notes)


def _in_order(grid: Grid, last: int | None = None):
    """Returns (place, row) pairs along the axes in their order, or with one of them changing fastest."""
    axes = list(range(len(grid.axes)))
    if last is not None:
        axes = [i for i in axes if i != last] + [last]
    rank = [{value: n for n, value in enumerate(axis.values)} for axis in grid.axes]
    return sorted(grid.points.items(), key=lambda pair: [rank[i][pair[0][i]] for i in axes])


def _without(place, at):
    return (*place[:at], *place[at + 1 :])


def _order(place):
    return [(isinstance(value, str), value) for value in place]


def _records(found: Results, number_of: int, made: Sequence[Grid], heads, best):
    """Yields a line of CSV for each point of a grid."""
    grid = made[number_of]
    fields = dict.fromkeys(field for one in made for axis in one.axes for field in axis.fields)
    for _, row in _in_order(grid):
        record = {"name": found.name_of(row), "row": row.variant.name, "variant": grid.variant}
        record |= {field: row.asked.point.get(field) for field in fields}
        record["seeds_done"] = len(row.results)
        for head in heads:
            one, key = best[number_of, head], head.lower()
            interval = one.differences.get(row.variant.name) if one else None
            of_best = one is not None and one.row == row.variant.name
            record |= {key: SHOWN[head].mean(row), f"{key}_sd": SHOWN[head].sd(row), f"{key}_is_best": of_best}
            for end in ("difference", "low", "high"):
                record[f"{_KEYS[head]}_{end}_from_best"] = getattr(interval, end) if interval else None
            record[f"{key}_inside_noise_of_best"] = one.is_close(row.variant.name) if interval else None
        yield record

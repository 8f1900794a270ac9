"""Table of tuned rows: each at the value that its own grid chose, over fresh seeds, beside the paper's numbers."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from experiments import registry, tuning
from experiments.report import differences_table, flags, noise
from experiments.report.captions import caption, settings_notes, standing_notes
from experiments.report.metrics import BLEU, EXACT, PPL, Measure, has_no_dev_loss, number
from experiments.report.results import Results, Row, SeedRun, loss_of
from experiments.report.row_status import Footnotes, state_of
from experiments.report.symbols import in_order, show, symbol
from experiments.report.tables import Column, Table
from experiments.tuning import Asked, Choice

_MEASURES = {"PPL": PPL, "BLEU": BLEU, "exact %": EXACT}
_AT_EDGE = "At the edge of its grid: a better value may lie beyond."
_SENSITIVITY = ".3f"


class Tuned(NamedTuple):
    """Row that was tuned.

    Attributes:
      asked: the grid and the fresh seeds.
      choice: what the grid says by now.
      points: the run of each point of the grid; None for one that was not begun.
      fresh: the row over its fresh seeds, at the value chosen.
      untuned: the row as it is without tuning; without runs where there are none.
    """

    asked: Asked
    choice: Choice
    points: tuple[SeedRun | None, ...]
    fresh: Row
    untuned: Row

    @property
    def sensitivity(self) -> float | None:
        """Sensitivity to the fields tuned, in nats (`tuning.sensitivity`).

        None where a point is not done, or failed otherwise than by diverging: nothing tells what its loss would be.
        """
        guessing = {math.log(run.result.vocab_size) for run in self.points if run and run.result}
        known = all(
            run and (not has_no_dev_loss(run.result) if run.result else run.state.diverged) for run in self.points
        )
        return tuning.sensitivity(map(loss_of, self.points), max(guessing)) if known and guessing else None


def read(found: Results) -> list[Tuned]:
    """Returns the tuned rows of a sweep, those that `only` leaves out too, in the order of its table."""
    order = [row.variant.name for row in found.rows]
    made = [_tuned(found, asked) for asked in found.tunings]
    return sorted(made, key=lambda one: order.index(one.asked.row) if one.asked.row in order else len(order))


def _tuned(found, asked):
    choice = tuning.choose(asked, found.losses(asked))
    tried = {row.variant.name: {run.seed: run for run in row.runs} for row in found.points}
    runs = tried.get(choice.point, {})
    untuned = next(
        (row for row in found.rows if row.variant.name == asked.row), Row(registry.Variant(asked.row), {}, ())
    )
    seeds = tuple(runs[seed] for seed in sorted(runs) if seed in asked.seeds)
    fresh = dataclasses.replace(untuned, runs=seeds, asked=None)  # what a launch asked of the plain row is not of these
    return Tuned(asked, choice, tuple(tried.get(point, {}).get(tuning.SEED) for point in asked.points), fresh, untuned)


def of_rows(found: Results, rows: Iterable[Row]) -> Results:
    """Returns results of other rows in the place of a sweep's own, such as those that were tuned, over fresh seeds."""
    return dataclasses.replace(found, rows=tuple(rows), tunings=(), points=())


def build(found: Results) -> Table:
    """Makes the table of the rows that were tuned; rows without a choice stay, and say why."""
    every, notes = read(found), Footnotes()
    tuned = [one for one in every if found.means(one.asked.row)]
    fields = in_order({field for one in tuned for field in one.asked.grid})
    shown = {name: one for name, one in _MEASURES.items() if any(one.values(each.fresh) for each in tuned)}
    if "BLEU" in shown:
        shown.pop("exact %", None)
    by_seeds, beside = of_rows(found, [one.fresh for one in every]), _beside_base(found, every)
    keys = dict.fromkeys(one.asked.key[1] for one in tuned)
    known = {key: differences_table.intervals(beside[key]) for key in keys if key in beside}
    cells, records = [], []
    for one in tuned:
        state = _state(one, by_seeds, notes)
        chosen = one.asked.points[one.choice.point] if one.choice.point else {}
        marks = {field: notes.mark(_AT_EDGE) for field in one.choice.edges}
        cells.append(
            (
                one.asked.row,
                *(number(_paper(one, head), _MEASURES[head].form) for head in ("PPL", "BLEU")),
                *(f"{show(chosen[field])}{marks.get(field, '')}" if field in chosen else "" for field in fields),
                *(cell for head, measure in shown.items() for cell in _scored(head, measure, one, beside, known)),
                number(one.sensitivity, _SENSITIVITY),
                state,
            )
        )
        records.append(_record(found, one, state))
    return Table(
        title=f"{found.name}, each row tuned: {found.sweep.doc}.",
        columns=_columns(fields, shown),
        rows=tuple(cells),
        groups=tuple(one.fresh.group for one in tuned),
        caption=caption(by_seeds),
        notes=(
            *_how(found, tuned),
            *standing_notes(by_seeds),
            *settings_notes(_points(found, tuned)),
            *dict.fromkeys(note for key, one in known.items() for note in differences_table.notes(beside[key], one)),
            *notes.lines,
        ),
        records=tuple(records),
    )


def _columns(fields, shown):
    columns = [Column("row", text=True), Column("PPL", "paper", drop=3), Column("BLEU", "paper", drop=3)]
    columns += [Column(symbol(field), "chosen") for field in fields]
    for head in shown:
        columns += [Column(head, "tuned"), Column(f"Δ{head}", "tuned", drop=1), Column(head, "untuned", drop=2)]
    return (*columns, Column("sensitivity", "nats", drop=1), Column("runs", text=True))


def _beside_base(found: Results, tuned: Sequence[Tuned]) -> dict[tuple[str, ...], Results]:
    """Returns {fields tuned: the rows over their fresh seeds, base first}, of those in which base is tuned too."""
    alike: dict[tuple[str, ...], list[Row]] = {}
    for one in tuned:
        alike.setdefault(one.asked.key[1], []).append(one.fresh)
    base = found.rows[0].variant.name
    return {fields: of_rows(found, rows) for fields, rows in alike.items() if rows[0].variant.name == base}


def _points(found: Results, tuned: Sequence[Tuned]) -> list[Row]:
    """Returns the rows of the points of some tunings."""
    asked = {point for one in tuned for point in one.asked.points}
    return [row for row in found.points if row.variant.name in asked]


def _scored(head: str, measure: Measure, one: Tuned, beside: Mapping[tuple[str, ...], Results], known) -> list[str]:
    """Returns the cells of a score: tuned, its difference from the base tuned as well, untuned.

    A difference inside the noise (`differences_table.intervals`, by fields tuned) is in parentheses.
    """
    fields = one.asked.key[1]
    base = beside[fields].rows[0] if fields in beside else None
    value, of_base = measure.mean(one.fresh), measure.mean(base) if base else None
    blank = one.fresh is base or value is None or of_base is None
    difference = "" if blank else number(value - of_base, f"+z{measure.form}")
    interval = known.get(fields, {}).get(head, {}).get(one.fresh.variant.name)
    return [measure.cell(one.fresh), noise.mark(difference, interval), measure.cell(one.untuned)]


def _paper(one, head):
    return getattr(one.fresh.variant.paper, head.lower(), None)


def _state(one, by_seeds, notes):
    if one.choice.point is None:
        return f"no choice: {one.choice.why}"
    failed = [run.state.reason for run in one.points if run.state.name == "failed"]
    told = f"; {len(failed)} of the {len(one.points)} points failed{notes.marks(failed)}" if failed else ""
    if without := sum(run.result is not None and not math.isfinite(run.result.dev.nll) for run in one.points):
        told += f"; {without} of the {len(one.points)} points without a finite dev loss"
    return state_of(one.fresh, list(one.asked.seeds), notes, flags.of(one.fresh, by_seeds)) + told


def _how(found: Results, tuned: Sequence[Tuned]) -> list[str]:
    """Returns notes on how the rows were tuned, what it cost, and what sensitivity is."""
    rows_of = {}
    for one in tuned:
        grid = "; ".join(f"{field}: {', '.join(map(show, one.asked.grid[field]))}" for field in sorted(one.asked.grid))
        rows_of.setdefault(grid, []).append(one.asked.row)
    told = [f"Grid of {grid} ({', '.join(rows)})." for grid, rows in rows_of.items()]
    return [
        "Each row is run at every value of its grid with seed 1, and then, at the one of the lowest dev loss, with "
        "fresh seeds, which its numbers are of: they had no part in the choice.",
        *told,
        _cost(found, tuned),
        "Sensitivity: the mean over the grid of min(dev loss, log V), less the least of them, in nats a subword; log V "
        "is the loss of guessing (Wortsman et al., 2023).",
    ]


def _cost(found: Results, tuned: Sequence[Tuned]) -> str:
    """Returns what the tunings took; a plain grid may have the same points, whose other seeds are its own."""
    used = {run.path for one in tuned for run in (*one.points, *one.fresh.runs) if run}
    plain = {row.variant.name for row in found.rows}
    runs = [(row.variant.name in plain, run) for row in _points(found, tuned) for run in row.runs if run.result]
    taken = [run for is_plain, run in runs if run.path in used or not is_plain]
    counted = {run.path for row in found.shown for run in row.runs}
    shared = sum(run.path in counted for run in taken)
    hours = sum(run.result.device_hours for run in taken)
    where = f"{shared} of the runs in the table of costs too" if shared else "not in the table of costs"
    failed = len({r.path for one in tuned for r in (*one.points, *one.fresh.runs) if r and r.state.name == "failed"})
    lost = f" {failed} more failed, whose hours nobody wrote down." if failed else ""
    return f"Grid and fresh seeds took {len(taken)} runs and {hours:,.2f} device hours, {where}.{lost}"


def _record(found, one, state):
    """Returns one line of CSV."""
    paper = one.fresh.variant.paper or registry.PaperRow()
    chosen = one.asked.points[one.choice.point] if one.choice.point else {}
    losses = found.losses(one.asked)
    record = {
        "name": found.name_of(one.fresh),
        "row": one.asked.row,
        "runs": state,
        "fields": " ".join(one.asked.key[1]),
        "chosen": " ".join(f"{field}={show(value)}" for field, value in chosen.items()),
        "at_edge": " ".join(one.choice.edges),
        "seeds_done": len(one.fresh.results),
        "seeds_expected": len(one.asked.seeds),
        "ppl_paper": paper.ppl,
        "bleu_paper": paper.bleu,
        "sensitivity": one.sensitivity,
    }
    for name, measure in {"ppl": PPL, "bleu": BLEU, "exact_percent": EXACT}.items():
        record |= {name: measure.mean(one.fresh), f"{name}_sd": measure.sd(one.fresh)}
        record |= {f"{name}_untuned": measure.mean(one.untuned), f"{name}_untuned_sd": measure.sd(one.untuned)}
    record["grid_dev_nll"] = " ".join(f"{point}:{'' if loss is None else loss}" for point, loss in losses.items())
    files = [f"{one.choice.point}/seed{run.seed}/result.json" for run in one.fresh.runs if run.result]
    return {**record, "files": " ".join(files)}

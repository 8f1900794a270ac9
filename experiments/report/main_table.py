"""Table of results: the paper's numbers, ours over the seeds, differences from base, each row's state."""

from collections.abc import Mapping
from typing import NamedTuple

from experiments import registry
from experiments.report import agreement_table, claims_table, differences_table, flags, noise, own_metrics, power
from experiments.report.captions import caption, standing_notes
from experiments.report.metrics import BLEU, EXACT, NAMED, NOTES, PPL, Measure, exact_note, number
from experiments.report.noise import Interval
from experiments.report.results import KINDS, Results, Row
from experiments.report.row_status import Footnotes, state_of
from experiments.report.symbols import in_order, show, symbol
from experiments.report.tables import Column, Table

FIELDS = 90  # `Column.drop` of the fields that rows change: a narrow terminal leaves them out first
_SCORES = {"PPL": PPL, "BLEU": BLEU}
# For CSV only.
_OTHERS = {
    kind: Measure(lambda r, kind=kind: getattr(r.scores, kind) if r.translated else None, "", "")
    for kind in KINDS
    if kind != "bleu"
}


def build(found: Results) -> Table:
    """Makes the table of a sweep from whatever runs there are; rows without results stay, and say why."""
    notes = Footnotes()
    base = found.rows[0]
    others = {*_told(found.sweep.base), *(field for row in found.shown for field in row.diff)}
    changed = [*found.axes, *in_order(others.difference(found.axes))]
    shown, known = _shown(found), differences_table.intervals(found)
    cells, records = [], []
    for row in found.shown:
        filled = base.now if row is base else {**base.now, **(row.now or row.diff)} if found.axes else row.diff
        settings = {field: filled.get(field) for field in changed}
        params = {result.params: f"{result.params / 1e6:.2f}" for result in row.results}
        state = state_of(row, found.seeds(row), notes, flags.of(row, found))
        cells.append(
            (
                row.asked.variant if row.asked else row.variant.name,  # the columns say what the point is
                *("" if value is None else show(value) for value in settings.values()),
                *(cell for head in shown.scores for cell in _scored(head, row, base, shown.paper, known)),
                *_sizes(row, ", ".join(params.values()), shown.paper, notes.mark(row.variant.note)),
                *([EXACT.cell(row)] if shown.exact else []),
                *(measure.cell(row) for measure in shown.measures.values()),
                state,
            )
        )
        records.append(_record(found, row, settings, params, state, known))
    return Table(
        title=f"{found.name}: {found.sweep.doc}.",
        columns=_columns(changed, found.axes, shown),
        rows=tuple(cells),
        groups=tuple(row.group for row in found.shown),
        caption=caption(found),
        notes=(
            *standing_notes(found),
            *differences_table.notes(found, known),
            *_judgements(found),
            *([exact_note(found.done)] if shown.exact else []),
            *(note for name, note in NOTES.items() if name in shown.measures),
            *own_metrics.notes(found.shown),
            *notes.lines,
        ),
        records=tuple(records),
    )


def _judgements(found):
    """Yields how a table's claims came out, what its seeds resolve, and how it agrees with the paper, a line each."""
    if judged := claims_table.judged(found):
        yield f"{claims_table.tally(judged)} (See the table of claims.)"
    yield from filter(None, (power.sentence(found), agreement_table.line(found)))


def _told(base):
    """Returns the fields of a sweep's base that its rows are to be read with, not those that say what is measured."""
    return [field for field in base if not field.startswith("probe.")]


class _Shown(NamedTuple):
    """Columns that a table has.

    Attributes:
      paper: the paper's numbers, where any row stands in a paper.
      scores: keys of _SCORES; a score that no run of all has is left out.
      exact: sentences that are right to the letter, where there are any.
      measures: those of the sweep that any run has, then the metrics of runs, by title.
    """

    paper: bool
    scores: tuple[str, ...]
    exact: bool
    measures: Mapping[str, Measure]


def _shown(found):
    def some(measure):
        return any(measure.values(row) for row in found.shown)

    return _Shown(
        paper=found.beside_paper,
        scores=tuple(head for head, measure in _SCORES.items() if some(measure) or not found.done),
        exact=any(value > 0 for row in found.shown for value in EXACT.values(row)),
        measures=own_metrics.of_sweep(found)
        | {name: NAMED[name] for name in found.sweep.measures if some(NAMED[name])},
    )


def _columns(changed, axes, shown):
    """Returns the columns; where there is no room for all, what the row's name says too goes first."""
    columns = [Column("row", text=True)]
    columns += [Column(symbol(field), drop=0 if field in axes else FIELDS) for field in changed]  # axes name the points
    whose = ("paper", "ours") if shown.paper else ("",)
    for rank, head in zip((10, 50), shown.scores, strict=False):
        columns += [Column(head, one) for one in whose]
        columns += [Column(f"Δ{head}", one, drop=rank + (one == "paper")) for one in whose]
    columns += [Column("params 10^6", one, drop=70) for one in whose]
    columns += [Column("exact %", whose[-1], drop=40)] if shown.exact else []
    columns += [Column(name, drop=20 + i) for i, name in enumerate(shown.measures)]
    return (*columns, Column("runs", text=True))


def _scored(head: str, row: Row, base: Row, with_paper: bool, known: Mapping[str, Mapping[str, Interval]]) -> list[str]:
    """Returns the cells of a score: the paper's and ours, then the differences of both from base, ours marked."""
    measure, key = _SCORES[head], head.lower()
    cells, differences = [measure.cell(row)], [(measure.mean(row), measure.mean(base))]
    if with_paper:
        cells.insert(0, number(_paper(row, key), measure.form))
        differences.insert(0, (_paper(row, key), _paper(base, key)))
    for value, of_base in differences:
        blank = row is base or value is None or of_base is None
        cells.append("" if blank else number(value - of_base, f"+z{measure.form}"))
    return [*cells[:-1], noise.mark(cells[-1], known[head].get(row.variant.name))]


def _sizes(row, ours, with_paper, mark):
    """Returns the paper's parameters and ours; the row's footnote belongs to the first."""
    return [number(_paper(row, "params"), "g") + mark, ours] if with_paper else [ours + mark]


def _paper(row, key):
    return getattr(row.variant.paper, key, None)


def _record(found, row, settings, params, state, known):
    """Returns one line of CSV."""
    paper = row.variant.paper or registry.PaperRow()
    record = {
        "name": found.name_of(row),
        "row": row.variant.name,
        "runs": state,
        "seeds_done": len(row.results),
        "seeds_expected": max(1, len(found.seeds(row))),
        **settings,
        "ppl_paper": paper.ppl,
        "bleu_paper": paper.bleu,
        "params_paper_millions": paper.params,
        "params": " ".join(map(str, params)),
    }
    shown = {name: NAMED[name] for name in found.sweep.measures}
    shown |= {own_metrics.column(name): measure for name, measure in own_metrics.of_sweep(found).items()}
    for name, measure in {"ppl": PPL, "bleu": BLEU, "exact_percent": EXACT, **_OTHERS, **shown}.items():
        record |= {name: measure.mean(row), f"{name}_sd": measure.sd(row)}
    for head, of_rows in known.items():
        record |= differences_table.columns(head, of_rows.get(row.variant.name))
    files = [f"{row.variant.name}/seed{run.seed}/result.json" for run in row.runs if run.result]
    return {**record, "files": " ".join(files)}

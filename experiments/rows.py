"""A table of results: the paper's numbers, ours over the seeds, differences from base, each row's state."""

from collections import Counter

import tx.config
from experiments import registry
from experiments.captions import caption, standing_notes
from experiments.measures import BLEU, EXACT, PPL, Measure, number
from experiments.results import Results, Row, test_of
from experiments.symbols import in_order, show, symbol
from experiments.tables import Column, Table

# For CSV only.
_OTHERS = {
    key: Measure(lambda r, key=key: test_of(r)[key], "", "")
    for key in ("bleu_tokenized", "bleu_compound", "bleu_lower", "chrf")
}


def build(found: Results) -> Table:
    """Makes the table of a sweep from whatever runs there are; rows without results stay, and say why."""
    notes = _Notes()
    base = found.rows[0]
    changed = in_order({*found.sweep.base, *(field for row in found.rows for field in row.diff)})
    base_fields = tx.config.fields(registry.base_config(found.sweep, found.scale))
    exact = any(value > 0 for row in found.rows for value in EXACT.values(row))
    cells, records = [], []
    for row in found.rows:
        settings = {field: (base_fields if row is base else row.diff).get(field) for field in changed}
        paper = row.variant.paper or registry.PaperRow()
        params = {result["params"]: f"{result['params'] / 1e6:.2f}" for result in row.results}
        state = _state(row, found.seeds(row), notes)
        cells.append(
            (
                row.variant.name,
                *("" if value is None else show(value) for value in settings.values()),
                *_beside(PPL, "ppl", row, base),
                *_beside(BLEU, "bleu", row, base),
                number(paper.params, "g") + notes.mark(row.variant.note),
                ", ".join(params.values()),
                *([EXACT.cell(row)] if exact else []),
                state,
            )
        )
        records.append(_record(found, row, settings, params, state))
    return Table(
        title=f"{found.name}: {found.sweep.doc}.",
        columns=_columns(changed, exact),
        rows=tuple(cells),
        groups=tuple(row.group for row in found.rows),
        caption=caption(found),
        notes=(*standing_notes(found), *notes.lines),
        records=tuple(records),
    )


def _columns(changed, exact):
    columns = [Column("row", text=True), *(Column(symbol(field), drop=4) for field in changed)]
    for head in ("PPL", "BLEU"):
        columns += [Column(head, "paper"), Column(head, "ours")]
        columns += [Column(f"Δ{head}", "paper", drop=2), Column(f"Δ{head}", "ours", drop=2)]
    columns += [Column("params 10^6", "paper", drop=3), Column("params 10^6", "ours", drop=3)]
    columns += [Column("exact %", "ours", drop=1)] if exact else []
    return (*columns, Column("runs", text=True))


def _beside(measure: Measure, key: str, row: Row, base: Row) -> list[str]:
    """The four cells of a measure: the paper's, ours, and both differences from base."""
    paper, ours = _paper(row, key), measure.mean(row)
    cells = [number(paper, measure.form), measure.cell(row)]
    for value, of_base in ((paper, _paper(base, key)), (ours, measure.mean(base))):
        blank = row is base or value is None or of_base is None
        cells.append("" if blank else number(value - of_base, f"+z{measure.form}"))
    return cells


def _paper(row, key):
    return getattr(row.variant.paper, key, None)


class _Notes:
    """Footnotes, each said once."""

    def __init__(self):
        self._texts: list[str] = []

    def mark(self, text: str) -> str:
        """Adds a note and returns its mark, " [1]"; nothing for no text."""
        if not text:
            return ""
        if text not in self._texts:
            self._texts.append(text)
        return f" [{self._texts.index(text) + 1}]"

    def marks(self, texts) -> str:
        return "".join(dict.fromkeys(map(self.mark, texts)))

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(f"[{number}] {text}" for number, text in enumerate(self._texts, 1))


def _state(row: Row, seeds: list[int], notes: _Notes) -> str:
    """What became of a row: "done", "failed [1]", "2 of 3 done, 1 missing", "3 done, stale [2]"."""
    expected = max(1, len(seeds))
    counts = Counter(run.state for run in row.runs)
    counts["missing"] = expected - len(row.runs)
    parts = []
    for state in ("done", "failed", "unfinished", "missing"):
        if counts[state] == expected:
            part = f"{expected} done" if state == "done" and expected > 1 else state
        elif state == "done":
            part = f"{counts[state]} of {expected} done" if expected not in counts.values() else ""
        else:
            part = f"{counts[state]} {state}" if counts[state] else ""
        if part and state == "failed":
            part += notes.marks(run.error for run in row.runs)
        parts.append(part)
    stale = [run for run in row.runs if run.stale]
    if stale:
        count = "" if len(stale) == counts["done"] else f"{len(stale)} "
        parts.append(f"{count}stale{notes.marks('Stale: ' + '; '.join(run.stale) + '.' for run in stale)}")
    return ", ".join(filter(None, parts))


def _record(found, row, settings, params, state):
    """One line of CSV; differences are left to its reader."""
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
    for name, measure in {"ppl": PPL, "bleu": BLEU, "exact_percent": EXACT, **_OTHERS}.items():
        record |= {name: measure.mean(row), f"{name}_sd": measure.sd(row)}
    files = [f"{row.variant.name}/seed{run.seed}/result.json" for run in row.runs if run.state == "done"]
    return {**record, "files": " ".join(files)}

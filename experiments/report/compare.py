"""`python -m experiments compare`: two sweeps side by side, row by row."""

import math
import pathlib
from collections.abc import Iterable, Sequence

import rich.console
import rich.text

import tx.config
from experiments.report import differences_table, flags, noise, own_metrics, reading, regression, tables
from experiments.report.captions import caption, seeds_note, texts_notes
from experiments.report.metrics import BLEU, EXACT, NAMED, NLL, PPL, Measure, number
from experiments.report.results import KINDS, NOT_COMPARED, Results, Row, SeedRun
from experiments.report.row_status import Footnotes, state_of
from experiments.report.tables import Column, Table
from tx.errors import UserError

_SCORES = {"PPL": PPL, "BLEU": BLEU, "exact %": EXACT}
_SIDES = ("A", "B")


def compare(
    a: pathlib.Path,
    b: pathlib.Path,
    console: rich.console.Console,
    only: Sequence[str] = (),
    fail_on: str | None = None,
) -> list[str]:
    """Prints a table for every sweep that both folders hold; the one in each, where they hold one and none is in both.

    Args:
      a, b: a workdir or SWEEP@SCALE folder each.
      console: where to print.
      only: globs of the rows to show (`reading.read`).
      fail_on: "regression" to look for rows of B that are worse than those of A.

    Returns what was found of that, in sentences, which are printed too. Raises UserError where there is nothing to put
    side by side, or a folder cannot be read (`reading.read`), or no row could be tested for what is looked for,
    or the two sides of a row are of different texts or vocabularies.
    """
    found, tested, left_out, apart = [], 0, [], []
    for pair in _pairs(*({one.name: one for one in reading.read([folder], only, left_out)} for folder in (a, b))):
        tables.print_table(build(*pair), console)
        if not fail_on:
            continue
        rows = _by_row(*pair)
        others = [name for name, sides in rows.items() if all(sides) and not noise.of_one_text(NLL, *sides)]
        if others:
            apart.append(f"{' and '.join(dict.fromkeys(one.name for one in pair))}: {', '.join(others)}")
        else:
            worse = regression.regressions(rows)
            tested += worse.tested
            found += [f"{pair[1].name}: {line}" for line in worse.lines]
    if apart:
        raise UserError(f"{apart[0]}: A and B of different texts or vocabularies, so that no regression can be told")
    if fail_on and not tested:
        raise UserError("no row could be tested for regressions: give A and B rows in common, of two seeds or more")
    for line in found:
        console.print(rich.text.Text(f"Regression: {line}"))
    reading.refuse(left_out)
    return found


def _pairs(a, b):
    if both := [(a[name], b[name]) for name in a if name in b]:
        return both
    if len(a) == len(b) == 1:
        return [(*a.values(), *b.values())]
    raise UserError(
        f"no sweep is in both: A has {', '.join(a)}, B has {', '.join(b)}; give a SWEEP@SCALE folder of each"
    )


def build(a: Results, b: Results) -> Table:
    """Makes the table of all rows of A, then those that B alone has; a row without results stays, and says why."""
    pairs = _by_row(a, b)
    shown = {name: measure for name, measure in {**_SCORES, **_measures(a, b)}.items() if _some(measure, a, b)}
    shown |= own_metrics.measures([*a.done, *b.done])
    notes, tests = Footnotes(), regression.intervals(pairs)
    return Table(
        title=f"{a.name} (A) beside {b.name} (B).",
        columns=_columns(shown),
        rows=tuple(_cells(name, pair, (a, b), shown, tests, notes) for name, pair in pairs.items()),
        groups=tuple(next(filter(None, pair)).group for pair in pairs.values()),
        caption=_caption(a, b),
        notes=(
            *(f"{side}: {', '.join(map(str, found.folders))}." for side, found in zip(_SIDES, (a, b), strict=True)),
            "Δ is B less A; what follows it is its standard error, where both have several seeds. Same: how many of "
            "the seeds that both have gave the same numbers, to the last digit.",
            *regression.notes(tests, pairs),
            *dict.fromkeys((*seeds_note(a), *seeds_note(b))),
            *own_metrics.notes([*a.shown, *b.shown]),
            *texts_notes([*a.done, *b.done]),
            *_configurations(a, b, pairs),
            *notes.lines,
        ),
        records=tuple(_record(name, pair, shown, tests) for name, pair in pairs.items()),
    )


def _by_row(a, b):
    ours, theirs = ({row.variant.name: row for row in found.shown} for found in (a, b))
    return {name: (ours.get(name), theirs.get(name)) for name in {**ours, **theirs}}


def _measures(a, b):
    return {name: NAMED[name] for name in a.sweep.measures if name in b.sweep.measures}


def _some(measure, *sides):
    return any(value != 0 for found in sides for row in found.shown for value in measure.values(row))


def _columns(shown):
    columns = [Column("row", text=True)]
    for rank, name in enumerate(shown):
        columns += [Column(name, side, drop=rank) for side in _SIDES] + [Column(f"Δ{name}", drop=rank)]
    return (*columns, Column("same"), *(Column("runs", side, text=True) for side in _SIDES))


def _cells(name, pair, sides, shown, tests, notes):
    scores = []
    for title, measure in shown.items():
        scores += [measure.cell(row) if row else "" for row in pair]
        scores.append(noise.mark(_difference(measure, *pair), tests.get(title, {}).get(name)))
    same = _same(*pair)
    states = (
        state_of(row, found.seeds(row), notes, flags.of(row, found)) if row else ""
        for row, found in zip(pair, sides, strict=True)
    )
    label = next(filter(None, pair)).label
    return (label, *scores, f"{sum(same)} of {len(same)}" if same else "", *states)


def _difference(measure: Measure, a: Row | None, b: Row | None) -> str:
    difference, error = _delta(measure, a, b)
    text = number(difference, f"+z{measure.form}")
    return text if error is None else f"{text} ± {number(error, measure.sd_form)}"


def _delta(measure: Measure, a: Row | None, b: Row | None) -> tuple[float | None, float | None]:
    """Returns B's mean less A's and its standard error, from each side's own deviation (Welch); None where unknown."""
    if not (a and b and measure.values(a) and measure.values(b)):
        return None, None
    sides = [(measure.sd(row), len(measure.values(row))) for row in (a, b)]
    errors = [sd / math.sqrt(count) for sd, count in sides if sd is not None]
    error = math.hypot(*errors) if len(errors) == 2 else None  # squares of huge numbers overflow
    return measure.mean(b) - measure.mean(a), error


def _same(a: Row | None, b: Row | None) -> list[bool]:
    """Returns for each seed that is done on both sides whether it gave the same numbers."""
    if not (a and b):
        return []
    done = [{run.seed: run for run in row.runs if run.result} for row in (a, b)]
    return [_numbers(done[0][seed]) == _numbers(done[1][seed]) for seed in done[0] if seed in done[1]]


def _numbers(run: SeedRun) -> list[object]:
    scores = run.result.scores
    return [run.result.dev.nll, *(getattr(scores, kind) for kind in (*KINDS, "exact_match")), scores.stats]


def _caption(a: Results, b: Results) -> tuple[tuple[str, str], ...]:
    """Returns what both captions say once, what they say otherwise twice."""
    ours, theirs = dict(caption(a)), dict(caption(b))
    pairs = []
    for what in {**ours, **theirs}:
        one, other = ours.get(what, "none"), theirs.get(what, "none")
        pairs.append((what, one if one == other else f"A {one}, B {other}"))
    return tuple(pairs)


def _configurations(a, b, pairs) -> Iterable[str]:
    """Yields a sentence for each difference between configurations of one name, and the rows that it holds for."""
    if a.scale != b.scale or a.sweep.name != b.sweep.name:
        return
    rows: dict[str, list[str]] = {}
    shared = {name: pair for name, pair in pairs.items() if all(row and row.results for row in pair)}
    for name, pair in shared.items():
        one, other = (row.results[0].config for row in pair)
        wording = "{field} is {stored} in A, {current} in B"
        for difference in tx.config.describe_differences(one, other, wording, apart=NOT_COMPARED):
            rows.setdefault(difference, []).append(name)
    for difference, names in rows.items():
        yield f"{'In every row' if len(names) == len(shared) else ', '.join(names)}: {difference}."


def _record(name, pair, shown, tests):
    record = {"row": name}
    for title, measure in shown.items():
        for side, row in zip(_SIDES, pair, strict=True):
            record |= {f"{title} {side}": measure.mean(row) if row else None}
        difference, error = _delta(measure, *pair)
        record |= {f"{title} difference": difference, f"{title} standard error": error}
    for title, of_rows in tests.items():
        record |= differences_table.columns(title, of_rows.get(name))
    return record

"""Table of a sweep in eight columns or fewer, with a caption of one line: what a page shows of it."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from experiments.report import differences_table, flags, main_table, tables
from experiments.report.captions import DIFFERENT
from experiments.report.noise import SCORES
from experiments.report.results import Results
from experiments.report.row_status import Footnotes, state_of
from experiments.report.symbols import symbol
from experiments.report.tables import Table

# Columns that stay, by title, where the paper has numbers and where it has none; eight at most.
_WITH_PAPER = ("row", "PPL paper", "PPL ours", "ΔPPL paper", "ΔPPL ours", "BLEU paper", "BLEU ours", "runs")
_WITHOUT = ("row", "PPL", "ΔPPL", "BLEU", "ΔBLEU", "exact %", "params 10^6", "runs")
_NOTES = (  # by how they begin: what differences and ± are, and where nothing tells their noise
    *("PPL is", "±", DIFFERENT, differences_table.NOTE, differences_table.UNKNOWN, differences_table.APART),
    *(differences_table.SINGLE, differences_table.ONE_SEED),
)
_CAPTION = ("Scale", "corpus", "steps", "seeds")


def build(found: Results) -> Table:
    """Makes the table; its notes are those that its cells refer to, and what differences and ± are."""
    full = main_table.build(found)
    titles = [column.title for column in full.columns]
    wanted = _WITH_PAPER if "PPL paper" in titles else _WITHOUT
    wanted = (wanted[0], *map(symbol, found.axes), *wanted[1:])  # which name the points of a grid
    kept = [titles.index(title) for title in wanted if title in titles]
    cells = tuple(tuple(row[i] for i in kept) for row in full.rows)
    heads = [head for head in SCORES if any(titles[i].partition(" ")[0] == f"Δ{head}" for i in kept)]
    whole, own = differences_table.uneven(found), differences_table.uneven(found, heads)
    notes = [own if note == whole else note for note in full.notes]
    begin = (*_NOTES, *filter(None, [own]))
    notes = tuple(note for note in tables.referred(notes, cells) if note.startswith(("[", *begin)))
    if titles[kept[-1]] == "runs" and (known := _flags(found)) is not None:  # then a line says it of all
        kept, cells = kept[:-1], tuple(row[:-1] for row in cells)
        notes = (*tables.referred(notes, cells), *_flagged(known, len(found.shown)))
    return dataclasses.replace(
        full,
        columns=tuple(full.columns[i] for i in kept),
        rows=cells,
        caption=tuple(pair for pair in full.caption if pair[0] in _CAPTION),
        notes=notes,
    )


def _flags(found):
    """Returns {flag: names of rows} of a sweep whose rows are done; None where a line a flag would not tell all."""
    if found.axes or not all(re.fullmatch(r"(\d+ )?done", _state(row, found)) for row in found.shown):
        return None
    known: dict[str, list[str]] = {}
    for row in found.shown:
        for flag, _ in flags.of(row, found):
            known.setdefault(flag, []).append(row.variant.name)
    return known if known.keys() <= flags.OF_ROWS.keys() else None


def _state(row, found):
    return state_of(row, found.seeds(row), Footnotes())


def _flagged(known: Mapping[str, Sequence[str]], rows: int) -> Iterator[str]:
    """Yields "Over-fitted (big, E): what that means." for each flag that some of so many rows have."""
    for flag, names in known.items():
        which = "every row" if len(names) == rows else ", ".join(names)
        yield f"{flag.capitalize()} ({which}): {flags.OF_ROWS[flag]}"

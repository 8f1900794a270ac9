"""Claims of a page: every expectation of a sweep with its verdict and what that is judged by, as cells to filter."""

import collections
from typing import NamedTuple

from experiments.page import run_list
from experiments.page.cells import Cell, Shown, bar, order, reach_of
from experiments.page.differences import Difference
from experiments.report import claims_table
from experiments.report.noise import LEVEL
from experiments.report.results import Results
from experiments.report.verdicts import WORDS

_ROW, _SAID, _INTERVAL = "row", "is said to be", f"interval {LEVEL:.0%}"
_TITLES = ("claim", "verdict", _ROW, "in", "difference", _INTERVAL, "margin", "p equal", "seeds needed")


class Judged(NamedTuple):
    """Claims of a sweep as a page shows them.

    Attributes:
      shown: the cells.
      counts: {verdict: how many}, of `verdicts.WORDS`.
      tally: the same in words.
    """

    shown: Shown
    counts: dict[str, int]
    tally: str


def of(found: Results) -> Judged | None:
    """Returns the claims about a sweep; None where no claim's rows both have results."""
    verdicts, table = claims_table.judged(found), claims_table.build(found)
    if not verdicts:
        return None
    titles = [column.title for column in table.columns]
    at = {title: titles.index(title) for title in (*_TITLES, _SAID)}
    ids = {row.variant.name: run_list.id_of(place) for place, row in enumerate(found.all_rows)}
    known = collections.defaultdict(list)
    for one in verdicts:
        known[one.claim.measure].append(one.interval.difference if one.interval else None)
    reach = {measure: reach_of(differences) for measure, differences in known.items()}

    def cell(one, texts, title):
        text = f"{texts[at[_ROW]]} {texts[at[_SAID]]}" if title == _ROW else texts[at[title]]
        drawn = None
        if title == "difference" and one.interval:
            drawn = bar(Difference(one.interval.difference, None, one.interval), reach[one.claim.measure])
        kind = one.word if title == "verdict" else ""
        remark = one.claim.source if title == "claim" else ""
        return Cell(text, text if table.columns[at[title]].text else order(text), drawn, kind, remark)

    rows = []
    for one, texts in zip(verdicts, table.rows, strict=True):
        seeds = ", ".join(map(str, one.used)) if any(one.used) else ""
        cells = [cell(one, texts, title) for title in _TITLES]
        rows.append((*cells[:-1], Cell(seeds, seeds), cells[-1]))
    columns = [(title, table.columns[at[title]].text) for title in _TITLES]
    columns.insert(-1, ("seeds", False))
    counts = collections.Counter(one.word for one in verdicts)
    shown = Shown(table, tuple(columns), tuple(rows), tuple(ids.get(one.claim.row, "") for one in verdicts))
    return Judged(shown, {word: counts[word] for word in WORDS if counts[word]}, claims_table.tally(verdicts))

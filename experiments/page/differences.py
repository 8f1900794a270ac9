"""Differences of rows from base, ours and the paper's, as a page draws them: bars in the table, and a forest plot."""

import math
from typing import NamedTuple

from experiments.report import differences_table
from experiments.report.agreement import papers
from experiments.report.metrics import Measure
from experiments.report.noise import SCORES, Interval
from experiments.report.results import Results


class Difference(NamedTuple):
    """Difference of a row from base in one score, in nats a subword of log-perplexity or in BLEU.

    Attributes:
      ours, paper: the differences of the means; None where either has none.
      interval: that ours lies in (`differences_table.intervals`); None where nothing is known of the noise.
    """

    ours: float | None
    paper: float | None
    interval: Interval | None

    @property
    def inside_noise(self) -> bool:
        """Whether the noise could make ours."""
        return self.interval is not None and not self.interval.sign


def of(found: Results) -> dict[str, dict[str, Difference]]:
    """Returns {"PPL", "BLEU": {row: its difference}} of every row shown but base that has one, ours or the paper's."""
    known = differences_table.intervals(found)
    return {head: _of_score(found, head, measure, known[head]) for head, measure in SCORES.items()}


def _of_score(found: Results, head: str, measure: Measure, known: dict[str, Interval]) -> dict[str, Difference]:
    base, key = found.rows[0], head.lower()
    made = {}
    for row in found.shown:
        if row is base:
            continue
        ours = _minus(measure.mean(row), measure.mean(base))
        theirs = _minus(papers(row, key), papers(base, key))
        one = Difference(ours, theirs, known.get(row.variant.name))
        if (one.ours, one.paper) != (None, None):
            made[row.variant.name] = one
    return made


def _minus(a, b):
    known = a is not None and b is not None and math.isfinite(a) and math.isfinite(b)
    return a - b if known else None

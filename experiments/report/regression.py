"""Regressions between two sweeps: rows of B that are worse than those of A by more than the noise."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from experiments.report import bootstrap, noise, own_metrics
from experiments.report.metrics import BLEU, has_no_dev_loss, is_diverged, number
from experiments.report.noise import LEVEL, SCORES, Interval
from experiments.report.results import Row

Pairs = Mapping[str, tuple[Row | None, Row | None]]  # {row: (of A, of B)}
_WORSE = {"PPL": 1, "BLEU": -1}  # the sign of a difference that is
_WORSE_THAN = {"lower": 1, "higher": -1}  # of a metric, by what is better


class Regressions(NamedTuple):
    """Regressions of B.

    Attributes:
      lines: a sentence each.
      tested: how many rows' scores could be judged.
    """

    lines: list[str]
    tested: int


def intervals(pairs: Pairs) -> dict[str, dict[str, Interval]]:
    """Returns {"PPL", "BLEU", metric: {row: interval of B less A}}, PPL's of log-perplexity in nats a subword.

    Over the seeds, by each side's own spread, at LEVEL for all rows of a score together (Welch, Bonferroni); of BLEU,
    where a side has one seed, by the paired bootstrap over sentences.
    """
    both = {name: pair for name, pair in pairs.items() if all(row and row.results for row in pair)}
    found = {}
    for head, measure in _measures(both).items():
        alike = {name: pair for name, pair in both.items() if noise.of_one_text(measure, *pair)}
        values = {name: [noise.finite(row, measure) for row in pair] for name, pair in alike.items()}
        tested = {name: pair for name, pair in values.items() if min(map(len, pair)) > 1}
        made = {name: noise.welch(*pair, comparisons=len(tested)) for name, pair in tested.items()}
        found[head] = {name: interval for name, interval in made.items() if interval}
    for name in _one_seeds(both):
        if resampled := bootstrap.bleu_interval(*both[name]):
            found["BLEU"][name] = resampled.interval
    return found


def _measures(pairs):
    return SCORES | own_metrics.measures(_results(pairs))


def _results(pairs):
    return [result for pair in pairs.values() for row in pair if row for result in row.results]


def _one_seeds(pairs: Pairs) -> list[str]:
    """Returns the rows whose BLEU is of one seed on a side."""
    counts = {name: [len(BLEU.values(row)) for row in pair if row] for name, pair in pairs.items()}
    return [name for name, count in counts.items() if len(count) == 2 and min(count) == 1]


def notes(found: Mapping[str, Mapping[str, Interval]], pairs: Pairs) -> Iterable[str]:
    """Yields what a difference in parentheses is, for a table that has them."""
    if any(found.values()):
        what = " or ".join(("log PPL", *(name for name in found if name != "PPL")))
        yield (
            f"(Δ): inside the noise: the {LEVEL:.0%} interval of B less A, of {what}, holds zero; over the "
            "seeds (Welch), for all rows together (Bonferroni)."
        )
    if any(name in found["BLEU"] for name in _one_seeds(pairs)):
        yield (
            "ΔBLEU of one seed: by a paired bootstrap over sentences, a row at a time, which leaves out how much seeds "
            "differ."
        )


def regressions(pairs: Pairs) -> Regressions:
    """Returns the rows of B that are worse beyond the noise, or failed where A's did not.

    Worse in log-perplexity, in BLEU, or in a metric of which it is said what is better.
    """
    known = own_metrics.known(_results(pairs))
    worse = _WORSE | {name: sign for name, one in known.items() if (sign := _WORSE_THAN.get(one.better))}
    found = {head: of_rows for head, of_rows in intervals(pairs).items() if head in worse}
    measures, lines = _measures(pairs), []
    for head, of_rows in found.items():
        for name, one in of_rows.items():
            if one.sign == worse[head]:
                form = measures[head].form
                what = "log PPL" if head == "PPL" else head
                lines.append(f"{name}: {what} {number(one.difference, f'+z{form}')} {one.text(form)}")
    broken = {name: _broken(*pair) for name, pair in pairs.items()}
    lines += [f"{name}: {how}" for name, how in broken.items() if how]
    return Regressions(lines, sum(map(len, found.values())) + sum(map(bool, broken.values())))


def _broken(a: Row | None, b: Row | None) -> str:
    """Returns how runs of B broke where all of A's came to a good end; "" where none did."""
    if not (a and b and a.results) or _breaks(a):
        return ""
    return f"{_breaks(b)} of {len(b.runs)} failed, diverged or without a finite dev loss" if _breaks(b) else ""


def _breaks(row):
    failed = sum(run.state.name == "failed" for run in row.runs)
    return failed + sum(is_diverged(result) or has_no_dev_loss(result) for result in row.results)

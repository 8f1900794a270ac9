"""Tests of differences between rows against the spread between seeds: Dunnett's, Welch's, equivalence, Bartlett's."""

import functools
import math
import os
import statistics
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.report.dunnett import critical_value
from experiments.report.metrics import BLEU, NAMED, NLL, PPL, Measure, is_diverged
from experiments.report.results import Results, Row

SEED = 1  # of the bootstrap
LEVEL = 0.95  # of all rows' intervals together
SCORES = {"PPL": NLL, "BLEU": BLEU}  # what tables show, and what is tested: perplexity by its logarithm


class Interval(NamedTuple):
    """Interval of a row's mean less another's: the ends between which the true difference lies.

    Attributes:
      difference, low, high: in units of the measure.
    """

    difference: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """+1 or -1 where the interval leaves out zero, 0 where the noise could make the difference."""
        return int(self.low > 0) - int(self.high < 0)

    def text(self, form: str) -> str:
        """Returns the ends as tables print them: "[-0.3, +1.2]"."""
        return f"[{self.low:+z{form}}, {self.high:+z{form}}]"


class Comparison(NamedTuple):
    """Comparison of rows with one other.

    Attributes:
      intervals: {row: of its mean less the other's}, simultaneous at LEVEL.
      spread: the standard deviation between seeds, pooled over the rows; None where nothing is known of it. Of the
        same trainings, without what a seed adds to all rows.
      uneven: the least and the greatest of a row, where no one spread is that of all rows (`uneven`); None elsewhere.
      sources: as how many independent rows the spread is of; None where of all.
    """

    intervals: dict[str, Interval]
    spread: float | None
    uneven: tuple[float, float] | None = None
    sources: float | None = None


def finite(row: Row, measure: Measure) -> list[float]:
    """Returns the numbers of a row's seeds that are finite: of others Dunnett's test would answer p = 1."""
    return [value for value in measure.values(row) if math.isfinite(value)]


def comparable(row: Row, measure: Measure) -> list[float]:
    """Returns the same to be compared with other rows': none of a row where a run diverged.

    How far that went is chance, and no sample of a normal distribution: in a spread that all rows share, no row would
    differ from any. That it may diverge is what such a row shows. After few steps every row is worse than chance:
    nothing is compared then.
    """
    return [] if any(map(is_diverged, row.results)) else finite(row, measure)


def of_one_text(measure: Measure, *rows: Row) -> bool:
    """Returns whether the numbers of rows are of one text; of a number per subword, of the same subwords too."""
    return len(set().union(*(_texts(row, measure) for row in rows))) < 2


def of_same_trainings(*rows: Row) -> bool:
    """Returns whether each row has one result of each of the same trainings, as where rows differ in decoding alone."""
    return len(rows) > 1 and len(made := {_trainings(row) for row in rows}) == 1 and made != {()}


def _trainings(row):
    if _trainings not in row.measured:
        made = ((run.path, run.result.trained_in or "") for run in row.runs if run.result)
        row.measured[_trainings] = tuple(os.path.normpath(path / trainer) for path, trainer in made)
    return row.measured[_trainings]


def paired(measure: Measure, *rows: Row) -> bool:
    """Returns whether rows are of the same trainings and each of them has a number that can be compared."""
    return of_same_trainings(*rows) and all(len(comparable(row, measure)) == len(row.results) for row in rows)


def _texts(row, measure):
    if (key := (_texts, measure)) not in row.measured:
        # What sweeps name besides chooses sentences by their length or counts queries: both in subwords.
        per_subword = measure in (NLL, PPL, *NAMED.values())
        data = [result.data for result in row.results]
        row.measured[key] = {(one.fingerprint, one.vocabulary_fingerprint if per_subword else None) for one in data}
    return row.measured[key]


def intervals(found: Results, measure: Measure) -> dict[str, Interval]:
    """Returns {row's name: the interval of its difference from base}, simultaneous at LEVEL for all rows of a table.

    A row without a finite value, with a run that diverged or of another text, and every row where base has fewer than
    two or nothing varies, has none.
    """
    base, *others = found.rows
    return compare_rows(base, others, measure).intervals


def compare_rows(base: Row, others: Sequence[Row], measure: Measure) -> Comparison:
    """Compares rows with one other by the numbers of their seeds that are `comparable`, and of one text with its."""
    return compare_named(base, {row.variant.name: row for row in others}, measure)


def compare_named(control: Row, others: Mapping[str, Row], measure: Measure) -> Comparison:
    """Returns the same of rows by any names."""
    alike = {name: row for name, row in others.items() if of_one_text(measure, control, row)}
    known = {name: values for name, row in alike.items() if (values := comparable(row, measure))}
    seed_by_seed = paired(measure, control, *(alike[name] for name in known))
    return compare(comparable(control, measure), known, seed_by_seed)


def compare(control: Sequence[float], others: Mapping[str, Sequence[float]], seed_by_seed: bool = False) -> Comparison:
    """Compares the seeds' numbers of rows with those of one other, as `scipy.stats.dunnett` does (Dunnett 1955).

    Rows without a number are left out; without two of the other, or where nothing varies, all are. The test takes the
    spread of all rows for one, so that a row of a single seed is judged by the spread of the others: its interval is
    wide, as it has to be. Where spreads differ from row to row, that is told (`uneven`): of few seeds, tests that go by
    each row's own tell next to nothing.

    Seed by seed, number i of every row is of one training, and they are compared so (`_compare_blocks`).
    """
    tested = {name: tuple(values) for name, values in others.items() if values}
    if seed_by_seed:
        return _compare_blocks(tuple(control), tested)
    samples = [control, *tested.values()]
    known = pooled(samples) if len(control) > 1 else None
    if not tested or not known:
        return Comparison({}, known)
    freedom = sum(len(one) - 1 for one in samples)
    return Comparison(_intervals(control, tested, known, freedom), known, uneven(samples))


def _compare_blocks(control, tested):
    """Returns `compare` of a randomised block design, whose blocks are the seeds.

    What a seed adds to all rows is no noise of their differences. Rows of the same numbers, as perplexities of two
    widths of a beam, are one row. Rows that are alike are so in what is left, too, which tells less than as many others
    would: the degrees of freedom are corrected as Huynh and Feldt do (1976).
    """
    distinct = [values for values in dict.fromkeys(tested.values()) if values != control]
    if len(control) < 2 or not tested:
        return Comparison({}, None)
    left = _without_blocks([control, *distinct])
    freedom, sources = (len(control) - 1) * len(distinct), _independent(left)
    known = pooled(left, freedom) if distinct else None
    by_values = {control: Interval(0.0, 0.0, 0.0)}
    if known:
        each = {values: values for values in distinct}
        by_values |= _intervals(control, each, known, (len(control) - 1) * sources)
    found = {name: by_values[values] for name, values in tested.items() if values in by_values}
    return Comparison(found, known, uneven(left), sources)


def _intervals(control, tested, spread, freedom):
    """Returns {key: interval of a sample's mean less the control's}, simultaneous, those that are finite."""
    critical, found = critical_value(len(control), tuple(map(len, tested.values())), freedom, LEVEL), {}
    for key, values in tested.items():
        difference = _mean(values) - _mean(control)
        half = critical * spread * math.sqrt(1 / len(values) + 1 / len(control))
        if math.isfinite(difference) and math.isfinite(half):
            found[key] = Interval(difference, difference - half, difference + half)
    return found


def _without_blocks(samples):
    """Returns samples of one size less the mean of each place over all of them."""
    means = list(map(_mean, zip(*samples, strict=True)))
    return [[value - mean for value, mean in zip(sample, means, strict=True)] for sample in samples]


def _independent(samples):
    """Returns as how many independent rows samples count that are without blocks: 1 to one less than there are.

    Of each row without its mean, the sums of products over the rows between seeds have eigenvalues that are as one
    where rows are independent; few seeds have few, for which the estimate allows.
    """
    import numpy as np

    seeds, rows = len(samples[0]), len(samples) - 1
    left = np.array(samples) - np.mean(samples, axis=1, keepdims=True)
    squares = left.T @ left
    if not squares.any() or not np.isfinite(squares).all():
        return float(rows)
    found = np.trace(squares) ** 2 / (squares**2).sum()
    room = seeds - 1 - found
    return float(min(rows, max(1.0, (seeds * found - 2) / room))) if room > 1e-9 else float(rows if seeds > 2 else 1)


def uneven(samples: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Returns the least and the greatest standard deviation of samples that share none; None where they may.

    By Bartlett's test (1937) at LEVEL, of those of two or more numbers that vary, which it takes for normal.
    """
    varying = [sample for sample in samples if _varies(sample)]
    if len(varying) < 2:
        return None
    from scipy.stats import bartlett  # slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of huge numbers, of which p is none
        if not bartlett(*varying).pvalue < 1 - LEVEL:
            return None
    spreads = sorted(map(statistics.stdev, varying))
    return spreads[0], spreads[-1]


def pooled(samples: Sequence[Sequence[float]], freedom: float | None = None) -> float | None:
    """Returns the standard deviation that samples of two or more have in common; None of none, or if it is no number.

    Each counts by its size less one, so that the more seeds a row has, the more it says; freedom is their sum unless
    it is given.
    """
    if not samples:
        return None
    varying = ((sample, _mean(sample)) for sample in samples if _varies(sample))  # by more than a mean is rounded
    apart = (value - mean for sample, mean in varying for value in sample)
    squares = math.hypot(*apart)  # of huge ones, overflow
    freedom = sum(len(sample) - 1 for sample in samples) if freedom is None else freedom
    return squares / math.sqrt(freedom) if freedom and math.isfinite(squares) else None


def _mean(sample):
    return sum(sample) / len(sample)


def of_pair(one: Sequence[float], other: Sequence[float], seed_by_seed: bool) -> Interval | None:
    """Returns the interval of the mean of `other` less that of `one` from the spread of these two alone.

    Seed by seed it is that of a paired t-test, else Welch's. None where a side has fewer than two numbers or neither
    varies.
    """
    if not seed_by_seed or not _testable(one, other):
        return welch(one, other)
    from scipy.special import stdtrit  # slow to import

    differences = [b - a for a, b in zip(one, other, strict=True)]
    mean, error = _mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
    half = float(stdtrit(len(differences) - 1, (1 + LEVEL) / 2)) * error
    return Interval(mean, mean - half, mean + half)


def welch(one: Sequence[float], other: Sequence[float], comparisons: int = 1) -> Interval | None:
    """Returns the interval of the mean of `other` less that of `one`, from each side's own spread (Welch 1947).

    It holds at LEVEL for all of so many comparisons together (Bonferroni). None where a side has fewer than two numbers
    or neither varies.
    """
    if not _testable(one, other):
        return None
    ends = _welch(tuple(other), tuple(one), "two-sided").confidence_interval(1 - (1 - LEVEL) / comparisons)
    return Interval(_mean(other) - _mean(one), float(ends.low), float(ends.high))


def equivalence(
    one: Sequence[float], other: Sequence[float], margin: float, side: int = 0, seed_by_seed: bool = False
) -> float | None:
    """Returns p of two one-sided tests that two means differ by less than a margin (Schuirmann 1987).

    By Welch's t, or seed by seed by that of the differences.

    Below 1 - LEVEL they are equivalent. With a side it is p of one of the tests: -1, that the mean of `other` is not
    above that of `one` by the margin; +1, not below. None where a side has fewer than two numbers, neither varies or
    there is no margin.
    """
    if margin <= 0 or not _testable(one, other):
        return None
    sides = {-1: (margin, "greater"), 1: (-margin, "less")}
    sides, test = [sides[side]] if side else sides.values(), _p_paired if seed_by_seed else _p_welch
    return max(test(tuple(value + shift for value in one), tuple(other), side) for shift, side in sides)


def _testable(*samples):
    """Whether each has two numbers or more, and one of them varies."""
    return min(map(len, samples)) > 1 and any(map(_varies, samples))


def _varies(sample):
    """Whether the numbers of a sample differ by more than rounding does."""
    return len(sample) > 1 and max(sample) - min(sample) > 1e-9 * max(map(abs, sample))


@functools.lru_cache(maxsize=1 << 15)  # a table and the note under another ask for the same
def _p_welch(one, other, alternative):
    """Returns p of Welch's test, from means and spreads: of samples scipy looks at the axes for 2 ms."""
    from scipy.stats import ttest_ind_from_stats  # slow to import

    sides = [number for side in (one, other) for number in (_mean(side), statistics.stdev(side), len(side))]
    return float(ttest_ind_from_stats(*sides, equal_var=False, alternative=alternative).pvalue)


def _p_paired(one, other, alternative):
    """Returns p of a t-test of the differences of `one` from `other`; 0 or 1 where all are the same."""
    from scipy.special import stdtr  # slow to import

    apart = [(a - b) * (1 if alternative == "greater" else -1) for a, b in zip(one, other, strict=True)]
    if not _varies(apart):
        return float(_mean(apart) <= 0)
    return float(stdtr(len(apart) - 1, -_mean(apart) * math.sqrt(len(apart)) / statistics.stdev(apart)))


def _welch(one, other, alternative):
    from scipy.stats import ttest_ind  # slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of precision, where only one side varies
        return ttest_ind(one, other, equal_var=False, alternative=alternative)


def mark(text: str, interval: Interval | None) -> str:
    """Returns a difference as tables show it: in parentheses where it is inside the noise; as it is where unknown."""
    return f"({text})" if text and interval is not None and not interval.sign else text

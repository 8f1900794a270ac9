"""Tests of differences between rows against the spread between seeds: Dunnett's, Welch's, equivalence, Bartlett's."""

import collections
import functools
import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from experiments.report.metrics import BLEU, NAMED, NLL, PPL, Measure, is_diverged
from experiments.report.results import Results, Row

SEED = 1  # of the sampling by which scipy integrates, and of the bootstrap
POINTS = 5000  # of that sampling: the ends of intervals come out to a thousandth of their length
SAMPLED = 100  # rows up to which it is sampled: 100 take 2 s, 250 4 s, 500 10 s, and 1,000 over a minute
NODES = 257  # on each axis of the integral that takes its place
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
      spread: the standard deviation between seeds, pooled over the rows; None where nothing is known of it.
      uneven: the least and the greatest of a row, where no one spread is that of all rows (`uneven`); None elsewhere.
    """

    intervals: dict[str, Interval]
    spread: float | None
    uneven: tuple[float, float] | None = None


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
    alike = [row for row in others if of_one_text(measure, base, row)]
    return compare(comparable(base, measure), {row.variant.name: comparable(row, measure) for row in alike})


def compare(control: Sequence[float], others: Mapping[str, Sequence[float]]) -> Comparison:
    """Compares the seeds' numbers of rows with those of one other, as `scipy.stats.dunnett` does (Dunnett 1955).

    Rows without a number are left out; without two of the other, or where nothing varies, all are. The test takes the
    spread of all rows for one, so that a row of a single seed is judged by the spread of the others: its interval is
    wide, as it has to be. Where spreads differ from row to row, that is told (`uneven`): of few seeds, tests that go by
    each row's own tell next to nothing.
    """
    tested = {name: tuple(values) for name, values in others.items() if values}
    known = pooled([control, *tested.values()]) if len(control) > 1 else None
    if not tested or not known:
        return Comparison({}, known)
    critical, found = _critical_value(len(control), tuple(map(len, tested.values()))), {}
    for name, values in tested.items():
        difference = _mean(values) - _mean(control)
        half = critical * known * math.sqrt(1 / len(values) + 1 / len(control))
        if math.isfinite(difference) and math.isfinite(half):
            found[name] = Interval(difference, difference - half, difference + half)
    return Comparison(found, known, uneven([control, *tested.values()]))


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


@functools.lru_cache(maxsize=128)  # it depends on the sizes alone, which most tables of a report share
def _critical_value(control: int, others: tuple[int, ...]) -> float:
    """Returns how many standard errors an interval reaches, for samples of these sizes, to hold with all others.

    Of the distribution that `scipy.stats.dunnett` integrates; that samples anew for every row's p, and took 7 s for the
    44 of a sweep where this takes 0.1 s.
    """
    from scipy.optimize import brentq
    from scipy.stats import t  # slow to import

    freedom, tail = control + sum(others) - len(others) - 1, (1 - LEVEL) / 2
    if len(others) == 1:
        return float(t.ppf(1 - tail, freedom))
    between = (t.ppf(1 - tail, freedom), t.ppf(1 - tail / len(others), freedom))  # one comparison; Bonferroni
    all_within = (_sampled if len(others) <= SAMPLED else _integrated)(control, others, freedom)
    return float(brentq(lambda reach: all_within(reach) - LEVEL, between[0] - 0.05, between[1] + 0.05, xtol=1e-3))


def _sampled(control: int, others: tuple[int, ...], freedom: int) -> Callable[[float], float]:
    """Returns how probable it is that no interval of so many standard errors misses, as scipy samples it."""
    import numpy as np
    from scipy.stats import multivariate_t  # slow to import

    root = np.sqrt([size / (size + control) for size in others])
    correlation = np.outer(root, root)
    np.fill_diagonal(correlation, 1.0)
    cdf = functools.partial(multivariate_t.cdf, shape=correlation, df=freedom)

    def all_within(reach):
        ends = np.full(len(others), reach)
        rng = np.random.default_rng(SEED)  # it samples: the same points each time
        return cdf(ends, lower_limit=-ends, maxpts=POINTS, random_state=rng)

    return all_within


def _integrated(control: int, others: tuple[int, ...], freedom: int) -> Callable[[float], float]:
    """Returns the same as the integral over two dimensions that it is (Dunnett 1955, equation 5).

    What the rows have in common is the mean of the other one and the spread; given these they are independent, and rows
    of one size alike. So it takes as long for ten thousand rows as for two, where sampling factors a matrix of them.
    """
    import numpy as np
    from scipy.special import ndtr  # slow to import

    counts = collections.Counter(others)
    shared = np.sqrt([size / (size + control) for size in counts])[:, None, None]  # of a row's deviation, the other's
    own = np.sqrt(1 - shared**2)
    normal = np.linspace(-9, 9, NODES)
    width = math.sqrt(40 / freedom)  # beyond it, the density is below e^-40 of its height
    spread = np.linspace(-width - 40 / freedom, width, NODES)[:, None]  # the logarithm of estimated over true
    density = np.exp(freedom * (spread - np.expm1(2 * spread) / 2) - normal**2 / 2)
    density /= density.sum()  # the trapezoidal rule: at both ends it vanishes

    def all_within(reach):
        ends = (reach * np.exp(spread) + sign * shared * normal for sign in (1, -1))
        within = np.clip(sum(ndtr(end / own) for end in ends) - 1, 0, 1)
        rows = np.array([*counts.values()])[:, None, None]
        return float((density * np.prod(within**rows, axis=0)).sum())

    return all_within


def pooled(samples: Sequence[Sequence[float]]) -> float | None:
    """Returns the standard deviation that samples of two or more have in common; None of none, or if it is no number.

    Each counts by its size less one, so that the more seeds a row has, the more it says.
    """
    if not samples:
        return None
    varying = ((sample, _mean(sample)) for sample in samples if _varies(sample))  # by more than a mean is rounded
    apart = (value - mean for sample, mean in varying for value in sample)
    squares = math.hypot(*apart)  # of huge ones, overflow
    freedom = sum(len(sample) - 1 for sample in samples)
    return squares / math.sqrt(freedom) if freedom and math.isfinite(squares) else None


def _mean(sample):
    return sum(sample) / len(sample)


def welch(one: Sequence[float], other: Sequence[float], comparisons: int = 1) -> Interval | None:
    """Returns the interval of the mean of `other` less that of `one`, from each side's own spread (Welch 1947).

    It holds at LEVEL for all of so many comparisons together (Bonferroni). None where a side has fewer than two numbers
    or neither varies.
    """
    if not _testable(one, other):
        return None
    ends = _welch(tuple(other), tuple(one), "two-sided").confidence_interval(1 - (1 - LEVEL) / comparisons)
    return Interval(_mean(other) - _mean(one), float(ends.low), float(ends.high))


def equivalence(one: Sequence[float], other: Sequence[float], margin: float, side: int = 0) -> float | None:
    """Returns p of two one-sided tests that two means differ by less than a margin (Schuirmann 1987; Welch's t).

    Below 1 - LEVEL they are equivalent. With a side it is p of one of the tests: -1, that the mean of `other` is not
    above that of `one` by the margin; +1, not below. None where a side has fewer than two numbers, neither varies or
    there is no margin.
    """
    if margin <= 0 or not _testable(one, other):
        return None
    sides = {-1: (margin, "greater"), 1: (-margin, "less")}
    sides = [sides[side]] if side else sides.values()
    return max(_p_welch(tuple(value + shift for value in one), tuple(other), side) for shift, side in sides)


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


def _welch(one, other, alternative):
    from scipy.stats import ttest_ind  # slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of precision, where only one side varies
        return ttest_ind(one, other, equal_var=False, alternative=alternative)


def mark(text: str, interval: Interval | None) -> str:
    """Returns a difference as tables show it: in parentheses where it is inside the noise; as it is where unknown."""
    return f"({text})" if text and interval is not None and not interval.sign else text

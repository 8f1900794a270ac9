"""Intervals of the rows' differences from base that the spread between seeds leaves open: Dunnett's test."""

import math
import warnings
from typing import NamedTuple

from experiments.report.metrics import Measure
from experiments.report.results import Results

SEED = 1  # of the sampling by which scipy integrates
LEVEL = 0.95  # of all rows' intervals together


class Interval(NamedTuple):
    """Interval of a row's mean less the base's: the ends between which the true difference lies, for all rows at once.

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


def intervals(found: Results, measure: Measure) -> dict[str, Interval]:
    """Returns {row's name: its interval}, simultaneous at LEVEL (Dunnett 1955; `scipy.stats.dunnett`).

    A row with fewer than two finite values, and every row where base has fewer or nothing varies, has none.
    """
    values = {row.variant.name: [x for x in measure.values(row) if math.isfinite(x)] for row in found.rows}
    base, *others = values
    tested = [name for name in others if len(values[name]) > 1]
    samples = [values[name] for name in (base, *tested)]
    if not tested or len(values[base]) < 2 or all(len(set(sample)) == 1 for sample in samples):
        return {}
    from scipy.stats import dunnett  # slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an interval's accuracy, which SEED makes the same every time
        test = dunnett(*samples[1:], control=samples[0], rng=SEED)
        ends = test.confidence_interval(LEVEL)
    means = [sum(sample) / len(sample) for sample in samples]
    return {
        name: Interval(mean - means[0], float(low), float(high))
        for name, mean, low, high in zip(tested, means[1:], ends.low, ends.high, strict=True)
    }

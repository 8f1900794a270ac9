"""A number of a run, over the seeds of a row: mean, standard deviation, and how they are printed."""

import dataclasses
import math
import statistics
from collections.abc import Callable

from experiments.results import Row, test_of


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number of a run.

    Attributes:
      of: reads it from the contents of result.json; None where that has none.
      form: how it is printed, and its differences; sd_form: how its standard deviation is.
    """

    of: Callable[[dict], float | None]
    form: str
    sd_form: str

    def values(self, row: Row) -> list[float]:
        return [float(value) for value in map(self.of, row.results) if value is not None]

    def mean(self, row: Row) -> float | None:
        values = self.values(row)
        return _of(statistics.fmean, values) if values else None

    def sd(self, row: Row) -> float | None:
        values = self.values(row)
        return _of(statistics.stdev, values) if len(values) > 1 else None

    def cell(self, row: Row) -> str:
        """Mean and standard deviation; the number alone of one seed; blank of none."""
        sd = self.sd(row)
        return number(self.mean(row), self.form) + ("" if sd is None else f" ± {number(sd, self.sd_form)}")


def _of(statistic, values):
    """The statistic, infinite or no number where a run diverged."""
    if not all(map(math.isfinite, values)):
        return sum(values)
    try:
        return statistic(values)
    except OverflowError:
        return math.inf


def number(value: float | None, form: str) -> str:
    """Returns the number as printed; blank where there is none."""
    if value is None:
        return ""
    return format(value, form) if abs(value) < 1e5 else f"{value:.1e}"  # a run that diverged


PPL = Measure(lambda r: r["dev"]["ppl"], ".2f", ".2f")
BLEU = Measure(lambda r: test_of(r)["bleu"], ".1f", ".2f")
EXACT = Measure(lambda r: 100 * test_of(r)["exact_match"], ".1f", ".1f")

"""Agreement with the paper in one score: order, directions and size of differences, and how sure each of them is.

Resampled over seeds, the rows stay and what their means are varies; over rows, the means stay. Rows of a resample may
come twice, which tau-b leaves out as it does ties.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.claims import MARGINS, direction
from experiments.report import bootstrap, noise
from experiments.report.metrics import BLEU, NLL, Measure
from experiments.report.noise import LEVEL, SEED
from experiments.report.results import Row

SAMPLES = 4000
FEW = 5  # rows: resampled, fewer say nothing


class Agreement(NamedTuple):
    """Agreement of some rows with the paper in one score.

    Attributes:
      tau: Kendall's tau-b; None where either side has no order.
      same: the rows that differ from base in the paper's direction.
      told: those of which the paper tells a direction, and we have results.
      signs: the rows whose sign of three, with a margin for none, is the paper's; of all that are compared with base.
      compared: those.
      slope: of our differences from base on the paper's; None where there are fewer than two.
      tau_seeds, tau_rows, slope_seeds, slope_rows: intervals at LEVEL; None where nothing is resampled.
    """

    tau: float | None
    same: int
    told: int
    signs: int
    compared: int
    slope: float | None
    tau_seeds: tuple[float, float] | None = None
    tau_rows: tuple[float, float] | None = None
    slope_seeds: tuple[float, float] | None = None
    slope_rows: tuple[float, float] | None = None


def of_base_s_text(rows: Sequence[Row], measure: Measure) -> list[Row]:
    """Returns the rows of the text of the first, base; where that has no results all, but none of several texts."""
    if rows and rows[0].results:
        return [row for row in rows if noise.of_one_text(measure, rows[0], row)]
    return list(rows) if noise.of_one_text(measure, *rows) else []


def agree(rows: Sequence[Row], key: str, measure: Measure) -> Agreement:
    """Compares rows, the base first, with the paper's numbers called `key` ("ppl", "bleu")."""
    alike = of_base_s_text(rows, measure if key == "bleu" else NLL)
    known = [row for row in alike if _mean(row, measure) is not None and papers(row, key) is not None]
    ours, theirs = [_mean(row, measure) for row in known], [papers(row, key) for row in known]
    same, signs, slope = [], [], None
    with_base = bool(known) and known[0] is rows[0]
    if with_base:
        for row, mean in zip(known[1:], ours[1:], strict=True):
            sign, difference = direction(row.variant.paper, rows[0].variant.paper, key), mean - ours[0]
            same += [sign * difference > 0] if sign else []
            signs.append(sign == _sign(difference, MARGINS[key]))
        slope = fitted(differences(theirs), differences(ours))
    found = Agreement(kendall(ours, theirs), sum(same), len(same), sum(signs), len(signs), slope)
    return found._replace(**_intervals(known, measure, np.array(theirs), with_base))


def papers(row: Row, key: str) -> float | None:
    """Returns the paper's number of a row as it is compared: the logarithm of its perplexity, or its BLEU."""
    value = getattr(row.variant.paper, key, None)
    return math.log(value) if value and key == "ppl" else value


def _sign(difference, margin):
    difference = round(difference, 6)  # in floating point, 26.0 - 25.8 is less than 0.2
    return 0 if abs(difference) < margin else int(math.copysign(1, difference))


def _mean(row, measure):
    """Returns the mean over the seeds; a run whose perplexity is no number is worse than any other."""
    mean = measure.mean(row)
    return math.inf if mean is not None and math.isnan(mean) else mean


def differences(values: Sequence[float]) -> list[float]:
    """Returns what the others are less the first."""
    return [value - values[0] for value in values[1:]]


def kendall(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Returns Kendall's tau-b, which allows for ties; None for fewer than two pairs, or where a side is all equal."""
    if min(len(set(ours)), len(set(theirs))) < 2:
        return None
    from scipy.stats import kendalltau  # slow to import

    return float(kendalltau(ours, theirs).statistic)


def fitted(theirs: Sequence[float], ours: Sequence[float]) -> float | None:
    """Returns the slope of the line that fits our differences over the paper's best; None where none can be told."""
    if len(set(theirs)) < 2 or not np.isfinite(ours).all():
        return None
    from scipy.stats import linregress

    return float(linregress(theirs, ours).slope)


@np.errstate(over="ignore", invalid="ignore")  # of rows that came near diverging; such draws are left out
def _intervals(known, measure, theirs, with_base) -> dict[str, tuple[float, float] | None]:
    """Returns {field of Agreement: interval}, those that can be told."""
    values = [noise.finite(row, measure) for row in known]
    if len(known) < 2 or not all(values):
        return {}
    rng, found = np.random.default_rng(SEED), {}
    means = np.array([sum(own) / len(own) for own in values])
    if all(len(own) > 1 for own in values):
        seeds = [np.broadcast_to(own, (SAMPLES, len(own))) for own in values]
        drawn = np.stack([bootstrap.draws_over_seeds(own, rng) for own in seeds], axis=1)
        found["tau_seeds"] = _ends(taus(drawn, np.broadcast_to(theirs, drawn.shape)))
        if with_base:
            found["slope_seeds"] = _ends(_slopes(theirs[1:] - theirs[0], drawn[:, 1:] - drawn[:, :1]))
    if len(known) >= FEW:
        rows = rng.integers(len(known), size=(SAMPLES, len(known)))
        found["tau_rows"] = _ends(taus(means[rows], theirs[rows]))
        if with_base:
            rows = rng.integers(1, len(known), size=(SAMPLES, len(known) - 1))
            found["slope_rows"] = _ends(_slopes((theirs - theirs[0])[rows], (means - means[0])[rows]))
    return found


def _ends(draws):
    draws = draws[np.isfinite(draws)]
    return tuple(map(float, np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))) if len(draws) else None


def taus(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns `kendall` of each line of two arrays (samples, rows): a thousand calls of scipy's take a second."""
    upper = np.triu_indices(one.shape[1], 1)
    signs = [np.sign(values[:, upper[0]] - values[:, upper[1]]) for values in (one, other)]
    with np.errstate(invalid="ignore"):
        return (signs[0] * signs[1]).sum(axis=1) / np.sqrt(np.abs(signs[0]).sum(axis=1) * np.abs(signs[1]).sum(axis=1))


def _slopes(theirs, ours):
    """Returns `fitted` of each line."""
    theirs = theirs - theirs.mean(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (theirs * ours).sum(axis=-1) / (theirs**2).sum(axis=-1)


def of_paper(rows: Sequence[Row]) -> float | None:
    """Returns tau-b of the paper's two columns with each other, perplexity the lower the better.

    It is over the rows that ours is over: those of base's text that have results.
    """
    compared = (row for row in of_base_s_text(rows, BLEU) if row.results)
    printed = [(papers(row, "ppl"), papers(row, "bleu")) for row in compared]
    both = [pair for pair in printed if None not in pair]
    return kendall([-ppl for ppl, _ in both], [bleu for _, bleu in both])


def under_noise(rows: Sequence[Row], key: str, measure: Measure) -> tuple[float, float, float] | None:
    """Returns what tau-b the paper's numbers have with themselves under our noise: median, and interval at LEVEL.

    A perfect copy of the paper, made with as many seeds as ours have and as much spread between them, would score that.
    None where we know of no spread.
    """
    alike = of_base_s_text(rows, measure)
    known = [row for row in alike if papers(row, key) is not None and noise.finite(row, measure)]
    values = [noise.finite(row, measure) for row in known]
    spread = noise.pooled([own for own in (noise.comparable(row, measure) for row in known) if len(own) > 1])
    if not spread or len(known) < 2:
        return None
    theirs = np.array([papers(row, key) for row in known])
    errors = spread / np.sqrt([len(own) for own in values])
    drawn = theirs + np.random.default_rng(SEED).normal(size=(SAMPLES, len(known))) * errors
    draws = taus(drawn, np.broadcast_to(theirs, drawn.shape))
    ends = _ends(draws)
    return (float(np.nanmedian(draws)), *ends) if ends else None

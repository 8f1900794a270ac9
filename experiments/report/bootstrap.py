"""Bootstrap of BLEU over test sentences and seeds, from the statistics of each sentence that results hold."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.report.metrics import BLEU
from experiments.report.noise import LEVEL, SEED, Interval, of_one_text, of_same_trainings
from experiments.report.results import Results, Row

SAMPLES = 4000  # ends of intervals come out to a tenth of a BLEU
_AT_ONCE = 1000  # drawn, so that memory is that of so many


class Resampled(NamedTuple):
    """Interval of a difference in BLEU by resampling.

    Attributes:
      interval: percentiles of the resamples at LEVEL, for this row alone.
      over_seeds: whether seeds were resampled too; else the interval leaves out how much they differ.
    """

    interval: Interval
    over_seeds: bool


def corpus_bleu(sums: np.ndarray) -> np.ndarray:
    """Returns the BLEU (0 to 100) of corpora whose statistics have these sums, as `bleu_from_stats` one at a time.

    Args:
      sums: (..., 10): lengths of hypotheses and references, matching n-grams and n-grams for n = 1..4.
    """
    matches, grams = sums[..., 2:6], sums[..., 6:10]
    smoothed = 0.5 ** np.cumsum(matches == 0, axis=-1)  # sacreBLEU's smoothing "exp"
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(matches > 0, matches, smoothed) / grams
        brevity = np.minimum(0.0, 1 - sums[..., 1] / sums[..., 0])
        scores = 100 * np.exp(brevity + np.log(precisions).mean(axis=-1))
    return np.where(matches.any(axis=-1) & grams.all(axis=-1), scores, 0.0)


def bleu_intervals(found: Results) -> dict[str, Resampled]:
    """Returns {row's name: its difference from base in BLEU, resampled}.

    Sentences are the same for all rows, so that a resample has the same for each (paired bootstrap, Koehn 2004); seeds
    are drawn for each row by itself, and where rows are of the same trained models for both at once. Rows without
    statistics of the sentences of base have none.
    """
    return found.once(_against_base)


def _against_base(found):
    return _against(found.rows[0], found.rows[1:])


def bleu_interval(one: Row, other: Row) -> Resampled | None:
    """Returns the same of two rows: the second less the first; None where they have not the same sentences."""
    return bleu_intervals_of_each(one, [other]).get(other.variant.name)


def bleu_intervals_of_each(one: Row, others: Sequence[Row]) -> dict[str, Resampled]:
    """Returns {row's name: its difference from one row, resampled}, each as if there were no other."""
    return _against(one, others, anew=True)


def _against(one, others, anew=False):
    """Resamples row after row, so that memory is that of one; `anew` with the same random numbers for each."""
    base = _statistics(one)
    if base is None:
        return {}
    rng = np.random.default_rng(SEED)
    sentences = base.shape[1]
    counts = np.concatenate([_counts(rng, sentences) for _ in range(SAMPLES // _AT_ONCE)])
    by_seed, mean = _resampled(counts, base), corpus_bleu(base.sum(axis=1)).mean()
    of_base = draws_over_seeds(by_seed, rng)
    found, state = {}, rng.bit_generator.state
    for row in others:
        stats = _statistics(row)
        if stats is None or not (_same_text(stats, base) and of_one_text(BLEU, one, row)):
            continue
        if anew:
            rng.bit_generator.state = state
        drawn = _resampled(counts, stats)
        paired = of_same_trainings(one, row)
        draws = draws_over_seeds(drawn - by_seed, rng) if paired else draws_over_seeds(drawn, rng) - of_base
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        interval = Interval(float(corpus_bleu(stats.sum(axis=1)).mean() - mean), float(low), float(high))
        found[row.variant.name] = Resampled(interval, min(len(stats), len(base)) > 1)
    return found


def _counts(rng, sentences):
    """Returns how often each sentence was drawn, (samples, sentences); numpy's multinomial takes four times as long."""
    drawn = rng.integers(sentences, size=(_AT_ONCE, sentences)) + sentences * np.arange(_AT_ONCE)[:, None]
    counted = np.bincount(drawn.ravel(), minlength=_AT_ONCE * sentences)
    return counted.reshape(_AT_ONCE, sentences).astype(np.float32)


def _resampled(counts, stats):
    """Returns the BLEU of (resamples of the sentences, seeds)."""
    sums = counts @ stats.astype(np.float32).transpose(1, 0, 2).reshape(counts.shape[1], -1)  # whole, far below 2^24
    return corpus_bleu(sums.reshape(len(counts), len(stats), -1).astype(float))


def _statistics(row):
    """Returns the (seeds, sentences, 10) statistics of a row; None where a run has none, or other sentences."""
    runs = [result.scores.stats for result in row.results if result.translated]
    if not runs or not all(runs) or len({len(stats) for stats in runs}) > 1 or len(runs) < len(row.results):
        return None
    stats = np.array(runs, float)
    return stats if all(_same_text(stats[:1], stats[i : i + 1]) for i in range(1, len(stats))) else None


def _same_text(one, other):
    return one.shape[1:] == other.shape[1:] and np.array_equal(one[0, :, 1], other[0, :, 1])


def draws_over_seeds(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the mean over resampled seeds of each line of (resamples, seeds)."""
    seeds = scores.shape[1]
    means = scores.mean(axis=1, keepdims=True)
    if seeds == 1:
        return means[:, 0]
    # Few seeds spread less about their own mean than about the true one, by the root of (n - 1) / n.
    apart = (scores - means) * math.sqrt(seeds / (seeds - 1))
    drawn = np.take_along_axis(apart, rng.integers(seeds, size=scores.shape), axis=1)
    return means[:, 0] + drawn.mean(axis=1)

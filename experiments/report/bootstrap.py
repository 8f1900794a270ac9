"""Bootstrap of BLEU over test sentences and seeds, from the statistics of each sentence that results hold."""

import math
from typing import NamedTuple

import numpy as np

from experiments.report.noise import LEVEL, SEED, Interval
from experiments.report.results import Results, Row

SAMPLES = 1000


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
    are drawn for each row by itself. Rows without statistics of the sentences of base have none.
    """
    return _against_first(list(found.rows))


def bleu_interval(one: Row, other: Row) -> Resampled | None:
    """Returns the same of two rows: the second less the first; None where they have not the same sentences."""
    return next(iter(_against_first([one, other]).values()), None)


def _against_first(rows):
    known = {}
    for row in rows:
        stats = _statistics(row)
        if stats is not None and (not known or _same_text(stats, next(iter(known.values())))):
            known[row.variant.name, row is rows[0]] = stats
    base = known.pop((rows[0].variant.name, True), None)
    if base is None:
        return {}
    rng = np.random.default_rng(SEED)
    sentences = base.shape[1]
    counts = rng.multinomial(sentences, np.full(sentences, 1 / sentences), size=SAMPLES).astype(np.float32)
    runs = np.concatenate([base, *known.values()]).astype(np.float32)  # whole numbers, far below 2^24
    sums = counts @ runs.transpose(1, 0, 2).reshape(sentences, -1)
    scores = corpus_bleu(sums.reshape(SAMPLES, len(runs), -1).astype(float))
    of_base, scores = _draws(scores[:, : len(base)], rng), scores[:, len(base) :]
    found = {}
    for (name, _), stats in known.items():
        draws, scores = _draws(scores[:, : len(stats)], rng) - of_base, scores[:, len(stats) :]
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        difference = corpus_bleu(stats.sum(axis=1)).mean() - corpus_bleu(base.sum(axis=1)).mean()
        interval = Interval(float(difference), float(low), float(high))
        found[name] = Resampled(interval, min(len(stats), len(base)) > 1)
    return found


def _statistics(row):
    """Returns the (seeds, sentences, 10) statistics of a row; None where a run has none, or other sentences."""
    runs = [result.scores.stats for result in row.results if result.translated]
    if not runs or not all(runs) or len({len(stats) for stats in runs}) > 1 or len(runs) < len(row.results):
        return None
    stats = np.array(runs, float)
    return stats if all(_same_text(stats[:1], stats[i : i + 1]) for i in range(1, len(stats))) else None


def _same_text(one, other):
    return one.shape[1:] == other.shape[1:] and np.array_equal(one[0, :, 1], other[0, :, 1])


def _draws(scores, rng):
    """Returns the mean over resampled seeds of each line of (resamples of the sentences, seeds)."""
    seeds = scores.shape[1]
    means = scores.mean(axis=1, keepdims=True)
    if seeds == 1:
        return means[:, 0]
    # Few seeds spread less about their own mean than about the true one, by the root of (n - 1) / n.
    apart = (scores - means) * math.sqrt(seeds / (seeds - 1))
    drawn = np.take_along_axis(apart, rng.integers(seeds, size=scores.shape), axis=1)
    return means[:, 0] + drawn.mean(axis=1)

"""Measures of runs over the seeds of a row: mean, standard deviation, and how they are printed."""

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Sequence

from experiments import registry
from experiments.registry import Sweep
from experiments.report.results import Row
from tx.data.synthetic import recall
from tx.errors import nearest
from tx.evaluation.scores import bleu_from_stats
from tx.runs.result import RunResult, Scores


@dataclasses.dataclass(frozen=True)
class Measure:
    """Measure: a number of a run.

    Attributes:
      of: reads it from a result; None where that has none.
      form: how it is printed, and its differences; sd_form: how its standard deviation is.
    """

    of: Callable[[RunResult], float | None]
    form: str
    sd_form: str

    def values(self, row: Row) -> list[float]:
        """Returns the number of each of a row's runs that has one."""
        if self not in row.measured:
            row.measured[self] = [float(value) for value in map(self.of, row.results) if value is not None]
        return row.measured[self]

    def _known(self, row, statistic, least):
        """Returns a statistic of a row's numbers, computed once; None of fewer than `least`."""
        if (key := (self, statistic)) not in row.measured:
            values = self.values(row)
            row.measured[key] = _of(statistic, values) if len(values) >= least else None
        return row.measured[key]

    def mean(self, row: Row) -> float | None:
        """Returns the mean over the seeds; None of no run."""
        return self._known(row, statistics.fmean, 1)

    def sd(self, row: Row) -> float | None:
        """Returns the standard deviation over the seeds (n - 1); None of fewer than two."""
        return self._known(row, statistics.stdev, 2)

    def cell(self, row: Row) -> str:
        """Returns mean and standard deviation as text; the number alone of one seed; blank of none."""
        sd = self.sd(row)
        return number(self.mean(row), self.form) + ("" if sd is None else f" ± {number(sd, self.sd_form)}")


def _of(statistic, values):
    """Returns the statistic, infinite or no number where a run diverged."""
    if not all(map(math.isfinite, values)):
        return sum(values)
    try:
        return statistic(values)
    except OverflowError:
        return math.inf


def number(value: float | None, form: str) -> str:
    """Returns the number as printed, a huge one by its exponent unless commas part it; blank where there is none."""
    if value is None:
        return ""
    return format(value, form) if abs(value) < 1e5 or "," in form else f"{value:.1e}"  # a run that diverged


def exp(log: float) -> float:
    """Returns e to the power of a number; infinity where that is beyond a float: a run that diverged far."""
    try:
        return math.exp(log)
    except OverflowError:
        return math.inf


PPL = Measure(lambda r: r.dev.ppl, ".2f", ".2f")
NLL = Measure(lambda r: r.dev.nll, ".4f", ".4f")  # log-perplexity, in nats a subword
BLEU = Measure(lambda r: r.scores.bleu if r.translated else None, ".1f", ".2f")
EXACT = Measure(lambda r: 100 * r.scores.exact_match, ".1f", ".1f")


def exact_note(results: Sequence[RunResult]) -> str:
    """Returns what "exact %" is of, in a table of some results."""
    what = "translated" if any(result.translated for result in results) else "whose last token is foretold"
    return f"exact %: of the test sentences, those {what} to the letter."


DIVERGED = "Diverged: dev perplexity is above the number of subwords, where guessing any of them would put it."


NO_DEV_LOSS = (
    "Dev loss not finite: the training loss is finite to its end, so that the training has not diverged. Something of "
    "the dev text is beyond what the model can compute."
)


def is_diverged(result: RunResult) -> bool:
    """Returns whether a run that came to its end does worse than chance."""
    return not (PPL.of(result) <= result.vocab_size or has_no_dev_loss(result))  # not a number counts too


def has_no_dev_loss(result: RunResult) -> bool:
    """Returns whether the dev loss of a run is not finite although that of its training is."""
    final = result.train.final_loss
    return final is not None and math.isfinite(final) and not math.isfinite(result.dev.nll)


def _of_heads(key):
    """Returns the mean over the heads of self-attention, in encoder and decoder."""

    def of(result):
        values = [getattr(one, key) for one in result.attention or () if one.kind == "self"]
        return statistics.fmean(values) if values else None

    return of


def says_lengths(result: RunResult) -> bool:
    """Returns whether a result says how long its test sentences are, and the longest that was trained on."""
    return None not in (result.train.longest, result.scores.lengths, result.scores.matches)


def by_length(chosen: Callable[[int, int], bool], of_sentences: Callable) -> Callable[[RunResult], float | None]:
    """Returns a reader of results: what `of_sentences` (`bleu_of`, `exact_of`) makes of some of the test sentences.

    None where there are none such, or the result does not say how long they are.

    Args:
      chosen: of the length of a sentence and the most that was trained on, both in subwords.
      of_sentences: of the scores of a split and the indices of sentences.
    """

    @functools.lru_cache(maxsize=16)  # the runs of a sweep have the same sentences
    def select(lengths, longest):
        return [i for i, length in enumerate(lengths) if chosen(length, longest)]

    def of(result):
        if not says_lengths(result):
            return None
        some = select(result.scores.lengths, result.train.longest)
        return of_sentences(result.scores, some) if some else None

    return of


def _of_translations(of):
    """Returns the reader of a number that is none where nothing was translated."""
    return lambda result: of(result) if result.translated else None


def _within(length, longest):
    return length <= longest


def _beyond(length, longest):
    return length > longest


def _recalled(distance):
    """Returns the share of the test sentences of corpus `recall` with that distance whose value was remembered."""

    def of(result):
        scores = result.scores
        if result.config["data"]["corpus"] != "recall" or None in (scores.lengths, scores.matches):
            return None
        chosen = [i for i, length in enumerate(scores.lengths) if length == recall.target_tokens(distance)]
        return exact_of(scores, chosen) if chosen else None

    return of


def exact_of(scores: Scores, chosen: Sequence[int]) -> float:
    """Returns the per cent of the chosen test sentences, by index, that are translated exactly."""
    return 100 * statistics.fmean(scores.matches[i] for i in chosen)


def bleu_of(scores: Scores, chosen: Sequence[int]) -> float:
    """Returns the sacreBLEU of the chosen test sentences, by index."""
    return bleu_from_stats([scores.stats[i] for i in chosen])


# What a sweep may show besides (`Sweep.measures`).
NAMED = {
    "entropy": Measure(_of_heads("entropy"), ".2f", ".2f"),
    "distance": Measure(_of_heads("distance"), ".2f", ".2f"),
    "logit variance": Measure(_of_heads("variance"), ".2f", ".2f"),
    "BLEU within": Measure(_of_translations(by_length(_within, bleu_of)), ".1f", ".2f"),
    "BLEU beyond": Measure(_of_translations(by_length(_beyond, bleu_of)), ".1f", ".2f"),
    "exact % within": Measure(by_length(_within, exact_of), ".1f", ".1f"),
    "exact % beyond": Measure(by_length(_beyond, exact_of), ".1f", ".1f"),
    **{f"{distance} back": Measure(_recalled(distance), ".0f", ".0f") for distance in recall.DISTANCES},
}


def _refuse_unknown(sweep: Sweep) -> None:
    for name in sweep.measures:
        if name not in NAMED:
            raise ValueError(f"sweep {sweep.name!r}: no measure {name!r}; the nearest is {nearest(name, NAMED)!r}")


registry.check_with(_refuse_unknown)
NOTES = {
    "entropy": "entropy: of the weights of self-attention, in nats, mean over heads and queries.",
    "distance": "distance: tokens between query and key under the weights of self-attention, likewise.",
    "logit variance": "logit variance: of a query's logits over the keys that it sees, likewise.",
    "BLEU beyond": "beyond: test sentences longer than the longest that was trained on; within: the others.",
    f"{recall.DISTANCES[0]} back": "N back: per cent of the sentences whose last word, a value named N positions "
    f"before it is asked for, was right; by chance {100 / len(recall.VALUES):g}. What comes before it was given.",
}

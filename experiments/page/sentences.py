"""Sentences that a row translates best and worst, by the BLEU of each, beside source and reference."""

import dataclasses
from collections.abc import Sequence

from ml_collections import ConfigDict

import tx.config
from experiments.report.results import Results, Row
from tx.errors import UserError, printable
from tx.evaluation.scores import sentence_bleu
from tx.files import read_text
from tx.runs.result import RunResult
from tx.runs.run_dir import RunDir

EACH = 3  # of the best, and of the worst
LONGEST = 300  # characters that are shown of a sentence
Pairs = Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Sentence:
    """Sentence of the test set and its translation.

    Attributes:
      number: from 1, the line in the files.
      bleu: of the sentence, 0 to 100.
      ours: the translation; source, reference: "" where the text is not here.
    """

    number: int
    bleu: float
    ours: str
    source: str = ""
    reference: str = ""


@dataclasses.dataclass(frozen=True)
class Examples:
    """Examples of a row: those of its first seed that has translations."""

    row: str
    seed: int
    best: tuple[Sentence, ...]
    worst: tuple[Sentence, ...]


def of(found: Results) -> list[Examples]:
    """Returns the examples of every row that has translations beside its results."""
    texts: dict[str, Pairs] = {}
    return [examples for row in found.shown if (examples := _of_row(row, texts))]


def _of_row(row: Row, texts: dict[str, Pairs]) -> Examples | None:
    for run in row.runs:
        result = run.result
        if not result or not result.translated or not result.scores.stats:
            continue
        try:
            lines = read_text(RunDir(run.path).translations(result.split)).removesuffix("\n").split("\n")
        except (OSError, ValueError):
            continue
        if len(lines) == len(result.scores.stats):
            return _examples(row, run.seed, result, lines, _pairs(result, texts))
    return None


def _examples(row, seed, result: RunResult, lines: Sequence[str], pairs: Pairs) -> Examples:
    scores = [sentence_bleu(stats) for stats in result.scores.stats]
    order = sorted(range(len(lines)), key=lambda i: (scores[i], i))

    def sentence(i):
        source, reference = pairs[i] if len(pairs) == len(lines) else ("", "")
        return Sentence(i + 1, scores[i], *(printable(text[:LONGEST]) for text in (lines[i], source, reference)))

    worst = order[:EACH]
    best = [i for i in order[::-1][:EACH] if i not in worst]
    return Examples(row.label, seed, tuple(map(sentence, best)), tuple(map(sentence, worst)))


def _pairs(result: RunResult, texts: dict[str, Pairs]) -> Pairs:
    """Returns the sentences that were translated; () where the text is not here, or is another by now."""
    from tx.data import corpora  # slow to import

    data = ConfigDict(tx.config.get_config().data.to_dict() | result.config["data"])  # fields came after some results
    key = f"{data.to_json()} {result.split}"
    if key not in texts:
        texts[key] = ()
        try:
            if corpora.is_here(data) and (corpus := corpora.load(data)).fingerprint == result.data.fingerprint:
                texts[key] = corpus.pairs(result.split)
        except (UserError, OSError):
            pass
    return texts[key]

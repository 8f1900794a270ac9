"""Translations of the splits that a run is scored on, and their scores."""

import threading
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from tx.data import tokenized
from tx.decoding.last_token import complete
from tx.decoding.translator import Translator
from tx.errors import UserError, writing
from tx.evaluation.scores import score, score_apart
from tx.files import write_atomically
from tx.runs.run_dir import RunDir
from tx.runtime.liveness import show_progress

_device = threading.Lock()


class TranslatedSplit(NamedTuple):
    """Translations of a split, and its scores.

    Attributes:
      scores: tx/evaluation/scores.py, and the "lengths" of the sentences: in subwords, of source or reference,
        whichever has more.
      sources, translations, references: of each sentence.
    """

    scores: dict
    sources: list[str]
    translations: list[str]
    references: list[str]


def evaluate_translations(
    config: ConfigDict, params: dict, data: tokenized.PreparedData, run: RunDir | None = None, apart: bool = False
) -> dict[str, TranslatedSplit]:
    """Translates and scores every split of `decode.splits`; keeps the translations in `run` if there is one.

    Where `decode.task` is "last", a translation is the reference with its last token chosen by the model. Threads that
    call this translate one after the other; with `apart` each scores in a process of its own.

    Returns {split: its translations}, in the order of decode.splits.
    """
    names, found = split_names(config, data), {}
    pairs = [
        (data.splits[split].source(i), data.splits[split].target(i))
        for split in names
        for i in range(len(data.splits[split]))
    ]
    with _device:
        if config.decode.task == "last":
            outputs = iter(complete(config, params, pairs))
        else:
            outputs = iter(Translator(config, params)([source for source, _ in pairs]))
    for split in names:
        hypotheses = [data.vocabulary.decode(next(outputs)) for _ in range(len(data.splits[split]))]
        if run is not None:
            # A translation may hold a line break (through a byte piece); the file keeps one sentence a line.
            lines = [hypothesis.replace("\n", " ") for hypothesis in hypotheses]
            with writing(run.translations(split)):
                write_atomically(run.translations(split), "".join(f"{line}\n" for line in lines))
        sources, references = map(list, zip(*data.pairs(split), strict=True))
        tokens_of = data.splits[split]
        lengths = np.maximum(tokens_of.src_lengths, tokens_of.tgt_lengths)
        scored = (score_apart if apart else score)(hypotheses, references, config.data.target)
        show_progress()
        found[split] = TranslatedSplit(scored | {"lengths": lengths.tolist()}, sources, hypotheses, references)
    return found


def split_names(config: ConfigDict, data: tokenized.PreparedData) -> list[str]:
    """Returns decode.splits as a list; UserError for one that the corpus lacks."""
    names = [name.strip() for name in config.decode.splits.split(",")]
    for name in names:
        if name not in list(data.splits):  # opening a split that is not there has an error of its own
            raise UserError(
                f"decode.splits: {data.corpus.name} has no split {name!r}; there are {', '.join(data.splits)}"
            )
    return names

"""Limits of sentences: every text that a model is to meet is held against its table of positions beforehand.

Beyond a learned table a packed sentence has no vectors, and its loss is not a number (`tx.model.positions.Learned`).
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from tx.data.tokenized import PreparedData
from tx.decoding.translator import padded
from tx.errors import UserError
from tx.model.positions import check_length, positions_needed

LONGEST = 8192  # tokens of a sentence that is scored or translated, where rows are not longer: beyond, it has no end
LONGEST_LINE = 1 << 16  # characters of a line to be translated: to cut a longer one into subwords takes minutes


def check_corpus(config: ConfigDict, data: PreparedData, splits: Sequence[str]) -> None:
    """Raises UserError where a sentence of dev, or of a split that is decoded, is longer than the model can take.

    Likewise for one that any model would take no end of time for (LONGEST), and where the text itself, which
    translations are scored against, cannot be opened: that is found before training. It names the sentence that needs
    most positions: one stack counts on from source to target. Of the training text what is longer than data.row_length
    is left out, and no row is longer than the table (`tx.training.checks`).

    Args:
      config: of the run.
      data: its text.
      splits: those that are translated or completed (decode.splits).
    """
    _ = data.corpus.splits
    _check(config, [*_of_dev(config, data), *_of_decoding(config, data, splits)])


def describe_long_line(line: str) -> str:
    """Returns what is wrong with a line that is not even looked at for its length; "" where nothing is."""
    return f"has {len(line):,} characters, more than {LONGEST_LINE:,}" if len(line) > LONGEST_LINE else ""


def find_long_sources(config: ConfigDict, sources: Mapping[int, np.ndarray]) -> dict[int, str]:
    """Returns {key: what is wrong} of the sources that are longer than the model can translate.

    Args:
      config: of the run.
      sources: tokens of each line, end of sentence included.
    """
    found = {}
    for key, source in sources.items():
        try:
            _check(config, [_translated(config, "", len(source))])
        except UserError as error:
            found[key] = str(error)
    return found


def check_pairs(config: ConfigDict, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Raises UserError for the first pair of a source and its target that is longer than the model can score.

    Args:
      config: of the run.
      pairs: tokens of both, end of sentence included.
    """
    for number, pair in enumerate(pairs, 1):
        longest = max(map(len, pair))
        needed = positions_needed(config.model.architecture, padded(longest), padded(longest))
        sentence = f"sentence {number} of {len(pairs)}, source or target of {longest} tokens, in eights"
        _check(config, [(needed, sentence)])


def _check(config, needs):
    """Holds the greatest of (positions, which sentence needs them) against the table."""
    positions, sentence = max(needs, key=lambda need: need[0], default=(0, ""))
    most = _most(config)
    if positions > positions_needed(config.model.architecture, most, most) + config.decode.extra_length:
        raise _endless(sentence, most)
    try:
        check_length(config.model.positions, positions, config.model.max_positions)
    except UserError as error:
        raise UserError(f"{sentence}: {error}") from None


def _most(config):
    return max(LONGEST, config.data.row_length)


def _endless(sentence, most):
    return UserError(f"{sentence}: a sentence has {most} tokens at most; shorten it, or leave it out")


def _of_dev(config, data) -> Iterator[tuple[int, str]]:
    split = data.splits["validation"]
    sides, together = {"source": split.src_lengths, "target": split.tgt_lengths}, {}
    if config.model.architecture == "decoder_only":
        together = {"source and target": split.src_lengths + split.tgt_lengths}
    for side, lengths in (sides | together).items():
        if len(lengths):
            i = int(lengths.argmax())
            sentence = f"validation, line {i + 1}, {side} of {lengths[i]} tokens"
            if not together or side in together:
                yield int(lengths[i]), sentence
            elif lengths[i] > _most(config):  # which the sum of both does not tell
                raise _endless(sentence, _most(config))


def _of_decoding(config, data, splits) -> Iterator[tuple[int, str]]:
    """Yields what the longest sentence of each split needs, as `Translator` and `complete` pad it."""
    for name in splits:
        split, completed = data.splits[name], config.decode.task == "last"
        lengths = np.maximum(split.src_lengths, split.tgt_lengths) if completed else split.src_lengths
        if not len(lengths):
            continue
        i, longest = int(lengths.argmax()), int(lengths.max())
        if completed:
            needed = positions_needed(config.model.architecture, padded(longest), padded(longest))
            yield needed, f"{name}, line {i + 1}, source or target of {longest} tokens, in eights"
        else:
            yield _translated(config, f"{name}, line {i + 1}", longest)


def _translated(config, where, length) -> tuple[int, str]:
    extra, source = config.decode.extra_length, padded(length)
    needed = positions_needed(config.model.architecture, source, source + extra)
    sentence = f"source of {length} tokens, in eights, with decode.extra_length={extra}"
    return needed, f"{where}, {sentence}" if where else sentence

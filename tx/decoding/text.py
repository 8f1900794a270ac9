"""Translation of text: sentences in, sentences out, with the subwords in between."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tx.data.vocabulary import EOS, Vocabulary
from tx.decoding.limits import describe_long_line, find_long_sources
from tx.decoding.trained_model import OpenedModel
from tx.decoding.translator import Translator
from tx.errors import UserError


class TranslatedText(NamedTuple):
    """Translation of some lines.

    Attributes:
      lines: of each its translation; an empty one of a line that is empty or refused.
      refused: {number of a line, from 1: what is wrong with it} of those that are too long for the model.
    """

    lines: list[str]
    refused: dict[int, str]


def encode(vocabulary: Vocabulary, sentences: Sequence[str]) -> list[np.ndarray]:
    """Returns the tokens of each sentence: int32, end of sentence included."""
    return [np.array([*ids, EOS], np.int32) for ids in vocabulary.encode(list(sentences))]


def translate_lines(model: OpenedModel, lines: Sequence[str], all_or_none: bool = False) -> TranslatedText:
    """Translates lines by beam search (section 6.1), as the model's configuration says.

    With `all_or_none` it raises UserError for a line that is too long, before any is translated.
    """
    config, selected, vocabulary = model
    lines = [line.strip() for line in lines]  # as the training text is
    refused = {number: why for number, line in enumerate(lines, 1) if (why := describe_long_line(line))}
    # Of an empty line the model would make something.
    numbers = [number for number, line in enumerate(lines, 1) if line and number not in refused]
    sources = dict(zip(numbers, encode(vocabulary, [lines[number - 1] for number in numbers]), strict=True))
    refused |= find_long_sources(config, sources)
    if refused and all_or_none:
        number, why = min(refused.items())
        raise UserError(f"sentence {number} of {len(lines)}, {why}")
    asked = {number: source for number, source in sources.items() if number not in refused}
    outputs = dict(zip(asked, Translator(config, selected.params)(list(asked.values())), strict=True))
    # A translation may hold a line break (through a byte piece); the output keeps one sentence a line.
    made = {number: " ".join(vocabulary.decode(output).split("\n")) for number, output in outputs.items()}
    return TranslatedText([made.get(number, "") for number in range(1, len(lines) + 1)], refused)

"""Shared subword vocabulary: byte pairs learned from the training text of both languages (section 5.1)."""

import functools
import hashlib
import io
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

from tx.errors import UserError

PAD, EOS, UNK = 0, 1, 2  # ids; there is no BOS: the decoder starts from PAD
_UNKNOWN = "\u2585"
_SAMPLE = 2_000_000  # sentence pairs that a vocabulary is learned from at most


class Vocabulary:
    """Subwords with byte fallback: text without U+2581 (its mark of a space) survives encode and decode.

    Args:
      model: a serialised sentencepiece model.
    """

    def __init__(self, model: bytes):
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    @classmethod
    def learn(cls, sentences: Iterable[str], size: int) -> "Vocabulary":
        """Learns `size` pieces, special and byte pieces included; the same text always gives the same pieces.

        Raises:
          UserError: the text cannot fill that many pieces, or its characters alone need more.
        """
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                # It would leave out a line with its own mark of an unknown character, without a word.
                sentence_iterator=(sentence.replace(_UNKNOWN, " ") for sentence in sentences),
                model_writer=model,
                model_type="bpe",
                vocab_size=size,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=True,  # a word is the same piece at the start of a sentence as inside it
                byte_fallback=True,
                pad_id=PAD,
                eos_id=EOS,
                unk_id=UNK,
                bos_id=-1,
                num_threads=1,
                max_sentence_length=1 << 24,  # bytes: the default leaves long lines out without a word
                minloglevel=2,
            )
        except RuntimeError as error:
            if most := re.search(r"value <= (\d+)", str(error)):
                limit = f"the training text yields at most {most[1]} pieces"
            elif least := re.search(r"required_chars\. \d+ vs (\d+)", str(error)):
                limit = f"its characters and bytes alone need {least[1]} pieces"
            else:
                limit = "the training text is empty or too short"
            raise UserError(f"no vocabulary of model.vocab_size={size}: {limit}") from None
        return cls(model.getvalue())

    @classmethod
    def load(cls, path: pathlib.Path) -> "Vocabulary":
        """Reads what `save` wrote."""
        return cls(pathlib.Path(path).read_bytes())

    def save(self, path: pathlib.Path) -> None:
        """Writes the model to a file."""
        pathlib.Path(path).write_bytes(self._model)

    @property
    def size(self) -> int:
        """Number of pieces, special and byte pieces included."""
        return self._processor.get_piece_size()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of the pieces in order; the bytes of the model file vary with the machine."""
        pieces = map(self._processor.id_to_piece, range(self.size))
        return hashlib.sha256("\n".join(pieces).encode()).hexdigest()

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """Returns the ids of each sentence, without EOS."""
        return self._processor.encode(sentences)

    def piece(self, token: int) -> str:
        """Returns a subword as it is; U+2581 stands for a space."""
        return self._processor.id_to_piece(token)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Returns the text of ids; PAD and EOS leave no trace."""
        return self._processor.decode([int(i) for i in ids if i not in (PAD, EOS)])


def training_sentences(corpus) -> Iterable[str]:
    """Yields both sides of the training split; of a big one, evenly spaced pairs, always the same ones."""
    step = -(-len(corpus.splits["train"]) // _SAMPLE)
    for pair in corpus.iterate("train", step):
        yield from pair

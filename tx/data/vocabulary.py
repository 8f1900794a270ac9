"""Shared subword vocabulary, learned from the training text of both languages: byte pairs (section 5.1), or others."""

import functools
import hashlib
import io
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

from tx.data.text_lines import LONGEST
from tx.errors import UserError

PAD, EOS, UNK = 0, 1, 2  # ids; there is no BOS: the decoder starts from PAD
_UNKNOWN = "\u2585"
_SAMPLE = 2_000_000  # sentence pairs that a vocabulary is learned from at most
_SPACE = "\u2581"  # sentencepiece's mark of one
_BYTES = 256
BPE, WORD = "bpe", "word"


class Vocabulary:
    """Subwords with byte fallback: text without U+2581 (its mark of a space) survives encode and decode.

    That holds for every tokenizer: what it has no piece for (a rare character, with "word" every other word) is spelled
    in bytes.

    Args:
      model: a serialised sentencepiece model.
      tokenizer: its type, "bpe", "unigram" (Kudo 2018), "char" or "word" (what stands between spaces).
      lowercase: whether text is encoded in lower case, as that which it was learned from was.
    """

    def __init__(self, model: bytes, tokenizer: str = BPE, lowercase: bool = False):
        self.model, self.tokenizer, self.lowercase = model, tokenizer, lowercase
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    @classmethod
    def learn(cls, sentences: Iterable[str], size: int, tokenizer: str = BPE, fit: bool = False) -> "Vocabulary":
        """Learns `size` pieces, special and byte pieces included; the same text always gives the same pieces.

        Args:
          sentences: read once; what reading them raises is raised.
          tokenizer: as of the class.
          fit: whether fewer pieces will do where the text has no more.

        Raises:
          UserError: the text cannot fill that many pieces, or its characters alone need more.
        """
        model, failed = io.BytesIO(), []
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_as_learned(sentences, failed),
                model_writer=model,
                model_type=tokenizer,
                hard_vocab_limit=not fit,
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
            if failed:
                raise failed[0] from None
            raise UserError(f"no vocabulary of model.vocab_size={size}: {_why_not(str(error))}") from None
        if failed:
            raise failed[0]
        made = cls(model.getvalue(), tokenizer)
        if made.size < size and not fit:  # it has no hard limit for characters
            raise UserError(f"no vocabulary of model.vocab_size={size}: {_at_most(made.size)}")
        return made

    @classmethod
    def load(cls, path: pathlib.Path, tokenizer: str = BPE, lowercase: bool = False) -> "Vocabulary":
        """Reads what `save` wrote of a vocabulary of that tokenizer."""
        return cls(pathlib.Path(path).read_bytes(), tokenizer, lowercase)

    def save(self, path: pathlib.Path) -> None:
        """Writes the model to a file."""
        pathlib.Path(path).write_bytes(self.model)

    @property
    def size(self) -> int:
        """Number of pieces, special and byte pieces included."""
        return self._processor.get_piece_size()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of the pieces in order, and of how text is cut into them; the model file varies with the machine."""
        pieces = map(self._processor.id_to_piece, range(self.size))
        how = [self.tokenizer] * (self.tokenizer != BPE) + ["lower case"] * self.lowercase
        return hashlib.sha256("\n".join([*how, *pieces]).encode()).hexdigest()

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """Returns the ids of each sentence, without EOS."""
        return self._processor.encode([s.lower() for s in sentences] if self.lowercase else sentences)

    def piece(self, token: int) -> str:
        """Returns a subword as it is; U+2581 stands for a space."""
        return self._processor.id_to_piece(token)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Returns the text of ids; PAD and EOS leave no trace."""
        ids = [int(i) for i in ids if i not in (PAD, EOS)]
        text = self._processor.decode(ids)
        if self.tokenizer == WORD and ids:  # of a word in bytes the mark of the space before it is in bytes too
            text = text.removeprefix(_SPACE) if self._processor.is_byte(ids[0]) else text
            text = text.replace(_SPACE, " ")
        return text


def _as_learned(sentences, failed):
    """Yields what is learned from; puts what reading it raises into a list, since sentencepiece hides that."""
    try:
        for sentence in sentences:
            # It would leave out a line with its own mark of an unknown character, without a word.
            yield sentence.replace(_UNKNOWN, " ")
    except BaseException as error:
        failed.append(error)
        raise


def _why_not(said):
    """Returns what sentencepiece's error means, in a few words."""
    if most := re.search(r"value <= (\d+)", said):
        return _at_most(most[1])
    if least := re.search(r"required_chars\. \d+ vs (\d+)", said):
        return f"its characters and bytes alone need {least[1]} pieces"
    if "(vocab_size) >= (0)" in said:  # of a tokenizer that needs no piece for each character
        return f"the {_BYTES} bytes and the special pieces alone need {_BYTES + len((PAD, EOS, UNK))} pieces"
    return "the training text is empty or too short"


def _at_most(pieces):
    return f"the training text yields at most {pieces} pieces; data.vocab=fit takes them"


def training_sentences(corpus) -> Iterable[str]:
    """Yields both sides of the training split; of a big one, evenly spaced pairs, always the same ones.

    A pair of which no row can hold a side is left out.
    """
    step = -(-len(corpus.splits["train"]) // _SAMPLE)
    for pair in corpus.iterate("train", step):
        if max(map(len, pair)) <= LONGEST:
            yield from pair

"""Tokenized corpora: the token ids of each split as flat arrays, made once, cached and memory-mapped.

Neither TFDS nor the text of a split is touched when its tokens are in the cache.
"""

import collections.abc
import dataclasses
import functools
import itertools
import pathlib
import types
from collections.abc import Callable, Iterator

import numpy as np
from ml_collections import ConfigDict

from tx.data import cache, corpora, vocabulary
from tx.data.corpora import Corpus
from tx.data.text_lines import LONGEST
from tx.data.vocabulary import EOS, Vocabulary
from tx.errors import UserError
from tx.runtime.liveness import show_progress

_FORMAT = 1  # raised when these files change their form, or the vocabulary its recipe
_ARRAYS = ("src_ids", "src_offsets", "tgt_ids", "tgt_offsets")


@dataclasses.dataclass(frozen=True)
class TokenizedSplit:
    """Token ids of n sentence pairs; every sentence, on both sides, ends with EOS.

    Attributes:
      src_ids, tgt_ids: int32, all sentences one after the other.
      src_offsets, tgt_offsets: int64 (n + 1,): sentence i is ids[offsets[i]:offsets[i + 1]].
    """

    src_ids: np.ndarray
    src_offsets: np.ndarray
    tgt_ids: np.ndarray
    tgt_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.src_offsets) - 1

    def source(self, i: int) -> np.ndarray:
        """Returns the source tokens of sentence i."""
        return self.src_ids[self.src_offsets[i] : self.src_offsets[i + 1]]

    def target(self, i: int) -> np.ndarray:
        """Returns the target tokens of sentence i."""
        return self.tgt_ids[self.tgt_offsets[i] : self.tgt_offsets[i + 1]]

    def count_tokens(self, sentences: np.ndarray) -> dict[str, int]:
        """Returns {"source", "target"}: how many tokens some sentences have, EOS included."""
        sides = {"source": self.src_offsets, "target": self.tgt_offsets}
        return {side: int((offsets[sentences + 1] - offsets[sentences]).sum()) for side, offsets in sides.items()}

    @property
    def src_lengths(self) -> np.ndarray:
        """Tokens of each source sentence: int64 (n,), EOS included."""
        return np.diff(self.src_offsets)

    @property
    def tgt_lengths(self) -> np.ndarray:
        """Tokens of each target sentence: int64 (n,), EOS included."""
        return np.diff(self.tgt_offsets)


def tokenize(vocab: Vocabulary, pairs: collections.abc.Iterable[tuple[str, str]]) -> TokenizedSplit:
    """Encodes sentence pairs, a block at a time."""
    ids, lengths = ([], []), ([0], [0])
    pairs = iter(pairs)
    while block := list(itertools.islice(pairs, 10_000)):
        for side in (0, 1):
            sentences = [[*s, EOS] for s in vocab.encode([pair[side] for pair in block])]
            ids[side].append(np.fromiter(itertools.chain.from_iterable(sentences), np.int32))
            lengths[side].extend(map(len, sentences))
        show_progress()
    flat = [np.concatenate([np.zeros(0, np.int32), *blocks]) for blocks in ids]
    offsets = [np.cumsum(each, dtype=np.int64) for each in lengths]
    return TokenizedSplit(flat[0], offsets[0], flat[1], offsets[1])


class _Splits(collections.abc.Mapping):
    """{split: TokenizedSplit}, each made or opened when it is first asked for."""

    def __init__(self, names: tuple[str, ...], open_split: Callable[[str], TokenizedSplit]):
        self._names, self._open = names, functools.cache(open_split)

    def __getitem__(self, split: str) -> TokenizedSplit:
        return self._open(split)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """A corpus, the vocabulary learned from its training split, and its tokens.

    Attributes:
      splits: {split: TokenizedSplit}; UserError for a split the corpus does not have.
      fingerprint: of all that the tokens depend on: text, pieces, format.
    """

    corpus: Corpus
    vocabulary: Vocabulary
    splits: collections.abc.Mapping[str, TokenizedSplit]
    fingerprint: str

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """Returns the raw (source, target) sentences of a split, in the same order as its tokens."""
        return self.corpus.pairs(split)


def prepare(data_config, vocab_size: int, log: Callable[[str], None] = print) -> PreparedData:
    """Loads a corpus with its vocabulary and tokens, making and caching what is not in the cache yet.

    Args:
      data_config: `config.data`.
      vocab_size: V, special and byte pieces included; with data.vocab=fit the most that there may be.
      log: told of anything that takes long.
    """
    corpus = corpora.load(data_config, log)
    corpus.check_split("train")
    tokenizer, fit = data_config.tokenizer, data_config.vocab == "fit"

    def learn(folder: pathlib.Path) -> None:
        log(f"learning {'at most ' * fit}{vocab_size} subwords from {corpus.name} (once)")
        sentences = vocabulary.training_sentences(corpus)
        Vocabulary.learn(sentences, vocab_size, tokenizer, fit).save(folder / "model")

    # Byte pairs of an exact number were all there was, and keep their keys.
    otherwise = [] if (tokenizer, fit) == (vocabulary.BPE, False) else [tokenizer, fit]
    key = cache.fingerprint(_FORMAT, corpus.fingerprint, vocab_size, *otherwise)
    vocab = Vocabulary.load(cache.entry("vocabularies", key, learn) / "model", tokenizer, data_config.lowercase)
    fingerprint = cache.fingerprint(_FORMAT, corpus.fingerprint, vocab.fingerprint)

    def open_split(split: str) -> TokenizedSplit:
        corpus.check_split(split)

        def build(folder: pathlib.Path) -> None:
            log(f"tokenizing {corpus.name} {split} (once)")
            made = tokenize(vocab, map(_cut, corpus.iterate(split)))
            for name in _ARRAYS:
                with (folder / f"{name}.npy").open("wb") as file:
                    # NumPy's own way to write to a file does not say why the disk has refused it.
                    np.save(types.SimpleNamespace(write=file.write), getattr(made, name))

        folder = cache.entry("tokens", f"{fingerprint}/{split}", build)
        made = TokenizedSplit(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS))
        if split != "train":
            _refuse_empty(corpus, split, made)
        return made

    return PreparedData(corpus, vocab, _Splits(corpus.split_names, open_split), fingerprint)


def _cut(pair):
    """Returns a pair whose sides have no token where they have no text, and not all of them where no row holds them."""
    return tuple(side[:LONGEST] if side.strip() else "" for side in pair)


def _refuse_empty(corpus, split, made):
    """Raises UserError for a sentence without text: it would be scored; of the training text it is left out."""
    for language, lengths in ((corpus.source, made.src_lengths), (corpus.target, made.tgt_lengths)):
        if (empty := np.flatnonzero(lengths == 1)).size:
            raise UserError(
                f"{corpus.name} {split}, line {empty[0] + 1} is empty ({language}); in dev and test every line must "
                "hold a sentence"
            )


def sized(config: ConfigDict, data: PreparedData) -> ConfigDict:
    """Returns a configuration whose model has as many subwords as the vocabulary: with data.vocab=fit perhaps fewer.

    A run is known by what was asked for; it is trained, evaluated and decoded with this.
    """
    return sized_for(config, data.vocabulary)


def sized_for(config: ConfigDict, vocab: Vocabulary) -> ConfigDict:
    """Returns a configuration as `sized` does, of a vocabulary alone."""
    if config.model.vocab_size == vocab.size:
        return config
    found = config.copy_and_resolve_references()
    found.model.vocab_size = vocab.size
    return found.lock()

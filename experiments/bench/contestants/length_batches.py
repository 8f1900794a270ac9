"""Batches of sentences of like length, padded to the longest: what programs that do not pack train on."""

from collections.abc import Iterator

import numpy as np

from tx.data.loader import POOL
from tx.data.tokenized import TokenizedSplit

Part = tuple[np.ndarray, np.ndarray]  # int64 (sentences, length) of either side


class LengthBatches(Iterator[list[Part]]):
    """An endless stream of updates, each a list of parts whose gradients are summed.

    As in tx, sentences are mixed every epoch and taken in pools of 4,096; a pool is sorted by length and cut.

    Args:
      split: the training sentences.
      seed: of the order.
      update_tokens: target tokens of an update, padding not counted.
      part_tokens: target tokens of a part, likewise; update_tokens or more: an update is one part.
    """

    def __init__(self, split: TokenizedSplit, *, seed: int, update_tokens: float, part_tokens: float):
        self.split, self.seed = split, seed
        self.update_tokens, self.part_tokens = update_tokens, min(part_tokens, update_tokens)
        self._src_lengths, self._tgt_lengths = split.src_lengths, split.tgt_lengths
        self._epoch, self._parts = 0, []

    def __next__(self) -> list[Part]:
        update, tokens = [], 0
        # A part too few or too many: whichever comes closer to the size asked for.
        while tokens + self.part_tokens / 2 < self.update_tokens or not update:
            if not self._parts:
                self._parts = self._plan()
            members = self._parts.pop()
            tokens += int(self._tgt_lengths[members].sum())
            update.append((self._padded(self.split.source, members), self._padded(self.split.target, members)))
        return update

    def _plan(self):
        rng = np.random.default_rng((self.seed, self._epoch))
        self._epoch += 1
        order, parts = rng.permutation(len(self.split)), []
        for start in range(0, len(order), POOL):
            pool = order[start : start + POOL]
            pool = pool[np.lexsort((self._src_lengths[pool], self._tgt_lengths[pool]))]
            total = self._tgt_lengths[pool].cumsum()
            cuts = np.searchsorted(total, np.arange(1, round(total[-1] / self.part_tokens)) * self.part_tokens)
            cut = [part for part in np.split(pool, cuts) if len(part)]
            parts += [cut[i] for i in rng.permutation(len(cut))]
        return parts[::-1]

    def _padded(self, take, members):
        sentences = [take(int(i)) for i in members]
        rows = np.zeros((len(sentences), max(map(len, sentences))), np.int64)
        for row, sentence in zip(rows, sentences, strict=True):
            row[: len(sentence)] = sentence
        return rows

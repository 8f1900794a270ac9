"""Packs sentence pairs into rows of one fixed shape, so that a training step compiles once and little is padding.

A row holds several pairs; both its sides have `row_length` tokens. Sentences are taken in pools; within a pool each
goes, longest first, where it leaves the least room (best fit). Which sentences make which row is a function of
(seed, epoch, pool) alone, so a position in the data is three numbers.
"""

from collections.abc import Iterator

import numpy as np

from tx.data.tokens import TokenizedSplit
from tx.errors import UserError

POOL = 4096  # sentence pairs packed together: enough that the rows left half empty hardly count

Batch = dict[str, np.ndarray]
FIELDS = ("src", "tgt", "src_segments", "tgt_segments", "src_positions", "tgt_positions")


def best_fit(src_lengths: np.ndarray, tgt_lengths: np.ndarray, row_length: int) -> list[list[int]]:
    """Returns rows as lists of sentence indices, none over `row_length` on either side.

    Every length must be at most row_length.
    """
    order = np.argsort(-np.maximum(src_lengths, tgt_lengths), kind="stable")
    room = np.full((len(order), 2), row_length)
    rows = []
    for i in order:
        need = (src_lengths[i], tgt_lengths[i])
        used = room[: len(rows) + 1]  # the last one is a new row
        left = used - need
        slack = np.where((left >= 0).all(1), left.sum(1), 4 * row_length)
        best = int(slack.argmin())
        if best == len(rows):
            rows.append([])
        room[best] -= need
        rows[best].append(int(i))
    return rows


def fill(split: TokenizedSplit, rows: list[list[int]], batch_rows: int, row_length: int) -> Batch:
    """Returns int32 arrays (batch_rows, row_length): tokens, segment numbers from 1 (0: padding), and positions from
    0 in each sentence, for both sides. Rows that are not given stay empty."""
    batch = {field: np.zeros((batch_rows, row_length), np.int32) for field in FIELDS}
    for r, row in enumerate(rows):
        for side, take in (("src", split.source), ("tgt", split.target)):
            start = 0
            for segment, i in enumerate(row, start=1):
                tokens = take(i)
                end = start + len(tokens)
                batch[side][r, start:end] = tokens
                batch[f"{side}_segments"][r, start:end] = segment
                batch[f"{side}_positions"][r, start:end] = np.arange(len(tokens))
                start = end
    return batch


class TrainBatches(Iterator[Batch]):
    """An endless stream of packed training batches, every epoch in a new order.

    Args:
      split: the training sentences.
      seed: of the order.
      row_length, batch_rows: shape of a batch; a sentence longer than row_length on either side is left out.
      shortest: the share of the others that is kept: those no longer, on either side, than that share of them.

    Attributes:
      too_long: how many sentences are longer than row_length.
      longest: tokens of the longest sentence that is kept, on either side.
      position: {"epoch", "pool", "row"} of the next row; setting it continues from there.

    Raises:
      UserError: every sentence is too long.
    """

    def __init__(self, split: TokenizedSplit, *, seed: int, row_length: int, batch_rows: int, shortest: float = 1.0):
        self.split, self.seed = split, seed
        self.row_length, self.batch_rows = row_length, batch_rows
        longest = np.maximum(split.src_lengths, split.tgt_lengths)
        self.usable = np.flatnonzero(longest <= row_length)
        self.too_long = len(split) - len(self.usable)
        if not len(self.usable):
            raise UserError(
                f"no training sentence fits into data.row_length={row_length}; the shortest needs {longest.min()}"
            )
        self.longest = int(np.quantile(longest[self.usable], shortest, method="lower"))
        self.usable = self.usable[longest[self.usable] <= self.longest]
        self.position = {"epoch": 0, "pool": 0, "row": 0}
        self._planned, self._rows = None, []

    def __next__(self) -> Batch:
        rows = []
        while len(rows) < self.batch_rows:
            epoch, pool, row = (self.position[key] for key in ("epoch", "pool", "row"))
            taken = self._plan(epoch, pool)[row : row + self.batch_rows - len(rows)]
            rows += taken
            row += len(taken)
            if row == len(self._rows):
                epoch, pool, row = (epoch, pool + 1, 0) if (pool + 1) * POOL < len(self.usable) else (epoch + 1, 0, 0)
            self.position = {"epoch": epoch, "pool": pool, "row": row}
        return fill(self.split, rows, self.batch_rows, self.row_length)

    def epochs(self) -> float:
        """Returns how many times the training text has been passed through."""
        epoch, pool, row = (self.position[key] for key in ("epoch", "pool", "row"))
        done = pool * POOL
        if row:
            done += min(POOL, len(self.usable) - done) * row / len(self._plan(epoch, pool))
        return epoch + done / len(self.usable)

    def _plan(self, epoch, pool):
        if self._planned != (epoch, pool):
            order = np.random.default_rng((self.seed, epoch)).permutation(self.usable)
            chosen = order[pool * POOL : (pool + 1) * POOL]
            rows = best_fit(self.split.src_lengths[chosen], self.split.tgt_lengths[chosen], self.row_length)
            # Best fit makes full rows first: mix them, or the last batches of a pool would hold the short sentences.
            shuffled = np.random.default_rng((self.seed, epoch, pool)).permutation(len(rows))
            self._rows = [[int(chosen[i]) for i in rows[r]] for r in shuffled]
            self._planned = (epoch, pool)
        return self._rows


def eval_batches(split: TokenizedSplit, *, row_length: int, batch_rows: int) -> list[Batch]:
    """Returns every sentence of a split once, packed; rows are as long as its longest sentence asks for."""
    lengths = np.maximum(split.src_lengths, split.tgt_lengths)
    row_length = max(row_length, -32 * (-int(lengths.max()) // 32))
    rows = best_fit(split.src_lengths, split.tgt_lengths, row_length)
    return [fill(split, rows[i : i + batch_rows], batch_rows, row_length) for i in range(0, len(rows), batch_rows)]

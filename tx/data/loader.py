"""Batches of packed sentences: an endless shuffled stream for training, one pass for evaluation.

Sentences are taken in pools. Which sentences make which row is a function of (seed, epoch, pool) alone, so a position
in the data is three numbers. Of several processes each plans all rows, from the sentences' lengths, and makes its own.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from tx.data.packing import Batch, best_fit, pack_batch
from tx.data.prefetch import Ahead
from tx.data.tokenized import TokenizedSplit
from tx.errors import UserError

POOL = 4096  # sentence pairs packed together: enough that the rows left half empty hardly count


class Plan:
    """Packing plan: the rows of every pool, a function of the arguments, the epoch and the pool alone.

    Args:
      usable: the sentences that are packed.
      src_lengths, tgt_lengths: of all sentences.
      seed, row_length: as of `TrainBatches`.
    """

    def __init__(
        self, usable: np.ndarray, src_lengths: np.ndarray, tgt_lengths: np.ndarray, *, seed: int, row_length: int
    ):
        self._usable, self._lengths = usable, (src_lengths, tgt_lengths)
        self._seed, self._row_length, self._order = seed, row_length, (None, None)

    def rows(self, epoch: int, pool: int) -> list[list[int]]:
        """Returns the rows of a pool, as lists of sentences."""
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self._seed, epoch)).permutation(self._usable)
        chosen = self._order[1][pool * POOL : (pool + 1) * POOL]
        rows = best_fit(*(lengths[chosen] for lengths in self._lengths), self._row_length)
        # Best fit makes full rows first: mix them, or the last batches of a pool would hold the short sentences.
        shuffled = np.random.default_rng((self._seed, epoch, pool)).permutation(len(rows))
        return [[int(chosen[i]) for i in rows[r]] for r in shuffled]

    def after(self, epoch: int, pool: int) -> tuple[int, int]:
        """Returns the pool that comes next."""
        return (epoch, pool + 1) if (pool + 1) * POOL < len(self._usable) else (epoch + 1, 0)

    def close(self) -> None:
        """Does nothing; see `Ahead`."""


class TrainBatches(Iterator[Batch]):
    """Endless stream of packed training batches, reshuffled every epoch.

    Args:
      split: the training sentences.
      seed: of the order.
      row_length, batch_rows: shape of a batch; a sentence longer than row_length on either side is left out, and so is
        one that is empty on either.
      max_length_quantile: of the others those are kept that are no longer, on either side, than this quantile of
        their lengths (1: all).
      ahead: whether another process plans the pools to come, which `close` ends.
      share: (k, n): of every batch the k-th of n equal parts is made, as many rows one after the other.

    Attributes:
      num_skipped: how many sentences are longer than row_length.
      num_empty: how many, of the others, are empty on a side: they hold no token but the end of sentence.
      longest: tokens of the longest sentence that is kept, on either side.
      sentences: those of the last batch, in the order of its rows: of the whole one, whatever this makes of it.
      position: {"epoch", "pool", "row"} of the next row; setting it continues from there.

    Raises:
      UserError: every sentence is too long or empty.
    """

    def __init__(
        self,
        split: TokenizedSplit,
        *,
        seed: int,
        row_length: int,
        batch_rows: int,
        max_length_quantile: float = 1.0,
        ahead: bool = False,
        share: tuple[int, int] = (0, 1),
    ):
        self.split, self.row_length, self.batch_rows = split, row_length, batch_rows
        own = batch_rows // share[1]
        self._own, self.sentences = slice(share[0] * own, (share[0] + 1) * own), np.zeros(0, np.int64)
        lengths = split.src_lengths, split.tgt_lengths
        longest, filled = np.maximum(*lengths), np.minimum(*lengths) > 1
        self.num_skipped = int(np.count_nonzero(longest > row_length))
        self.usable = np.flatnonzero((longest <= row_length) & filled)
        self.num_empty = len(split) - self.num_skipped - len(self.usable)
        if not filled.any():
            raise UserError("no training sentence has text on both sides")
        if not len(self.usable):
            raise UserError(
                f"no training sentence fits into data.row_length={row_length}; "
                f"the shortest needs {longest[filled].min()}"
            )
        self.longest = int(np.quantile(longest[self.usable], max_length_quantile, method="lower"))
        self.usable = self.usable[longest[self.usable] <= self.longest]
        self.position = {"epoch": 0, "pool": 0, "row": 0}
        plan = Plan(self.usable, *lengths, seed=seed, row_length=row_length)
        self._plan, self._planned, self._rows = Ahead(plan) if ahead else plan, None, []

    def __next__(self) -> Batch:
        rows = []
        while len(rows) < self.batch_rows:
            epoch, pool, row = (self.position[key] for key in ("epoch", "pool", "row"))
            taken = self._pool(epoch, pool)[row : row + self.batch_rows - len(rows)]
            rows += taken
            row += len(taken)
            if row == len(self._rows):
                (epoch, pool), row = self._plan.after(epoch, pool), 0
            self.position = {"epoch": epoch, "pool": pool, "row": row}
        self.sentences = np.fromiter(itertools.chain.from_iterable(rows), np.int64)
        own = rows[self._own]
        return pack_batch(self.split, own, len(own), self.row_length)

    def epochs(self) -> float:
        """Returns the number of passes through the training text so far."""
        epoch, pool, row = (self.position[key] for key in ("epoch", "pool", "row"))
        done = pool * POOL
        if row:
            done += min(POOL, len(self.usable) - done) * row / len(self._pool(epoch, pool))
        return epoch + done / len(self.usable)

    def close(self) -> None:
        """Ends the process that plans ahead, if there is one; it would start again when it is needed."""
        self._plan.close()

    def _pool(self, epoch, pool):
        if self._planned != (epoch, pool):
            self._planned, self._rows = (epoch, pool), self._plan.rows(epoch, pool)
        return self._rows


def eval_batches(split: TokenizedSplit, *, row_length: int, batch_rows: int) -> list[Batch]:
    """Returns every sentence of a split once, packed; rows are of `row_length`, or what its longest sentence needs.

    Of rows more than twice as long a batch has fewer, so that its attention takes no more memory than of that length.
    """
    lengths = np.maximum(split.src_lengths, split.tgt_lengths)
    needed = -32 * (-int(lengths.max()) // 32)
    batch_rows = min(batch_rows, max(1, batch_rows * (2 * row_length) ** 2 // needed**2))
    row_length = max(row_length, needed)
    rows = best_fit(split.src_lengths, split.tgt_lengths, row_length)
    starts = range(0, len(rows), batch_rows)
    return [pack_batch(split, rows[i : i + batch_rows], batch_rows, row_length) for i in starts]

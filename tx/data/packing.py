"""Packing of sentence pairs into rows of one fixed shape, so that a training step compiles once and little is padding.

A row holds several pairs; both its sides have `row_length` tokens. Each sentence of a pool goes, longest first, where
it leaves the least room (best fit).
"""

import bisect
import itertools

import numpy as np

from tx.data.tokenized import TokenizedSplit

Batch = dict[str, np.ndarray]
_SCANNED = 512  # tokens of a row beyond which all rows are looked at
FIELDS = ("src", "tgt", "src_segments", "tgt_segments", "src_positions", "tgt_positions")


def best_fit(src_lengths: np.ndarray, tgt_lengths: np.ndarray, row_length: int) -> list[list[int]]:
    """Packs sentences by best fit decreasing; returns rows as lists of sentence indices.

    No row is over `row_length` on either side, and so no sentence may be. Of the rows with the least room left, both
    sides together, that a sentence fits in, it goes to the first.
    """
    order = np.argsort(-np.maximum(src_lengths, tgt_lengths), kind="stable")
    if row_length > _SCANNED:
        return _scanned(src_lengths, tgt_lengths, row_length, order)
    # A row with room for s source tokens, and for t on both sides together, is at place t * width + s. Which places
    # have rows are the bits of one number; where a sentence of (0, 0) would fit, those of another: all s up to t.
    width = row_length + 1
    rows, there, taken = [], {}, 0
    fitting = sum((1 << min(t + 1, width)) - 1 << t * width for t in range(2 * row_length + 1))
    for i, src, tgt in zip(order.tolist(), src_lengths[order].tolist(), tgt_lengths[order].tolist(), strict=True):
        need = (src + tgt) * width + src
        if found := taken >> need & fitting:
            slack = ((found & -found).bit_length() - 1) // width
            here = need + slack * width
            sides = found >> slack * width & (2 << slack) - 1
            place = min((here + k for k in _members(sides)), key=lambda place: there[place][0])
            row = there[place].pop(0)
            taken ^= (not there[place]) << place
        else:
            row, place = len(rows), 2 * row_length * width + row_length
            rows.append([])
        rows[row].append(i)
        bisect.insort(there.setdefault(place - need, []), row)
        taken |= 1 << place - need
    return rows


def _scanned(src_lengths, tgt_lengths, row_length, order) -> list[list[int]]:
    """Returns the same by a look at all rows for each sentence: numbers of so many bits would take longer."""
    rows, rooms = [], np.zeros((2, len(order)), np.int64)
    for i in order.tolist():
        need = np.array([[src_lengths[i]], [tgt_lengths[i]]])
        left = rooms[:, : len(rows)] - need
        slack = np.where((left >= 0).all(0), left.sum(0), 2 * row_length + 1)
        row = int(slack.argmin()) if len(rows) else 0
        if not len(rows) or slack[row] > 2 * row_length:
            row = len(rows)
            rows.append([])
            rooms[:, row] = row_length
        rows[row].append(i)
        rooms[:, row] -= need[:, 0]
    return rows


def _members(bits):
    """Yields the numbers in a set."""
    while bits:
        yield (bits & -bits).bit_length() - 1
        bits &= bits - 1


def pack_batch(split: TokenizedSplit, rows: list[list[int]], batch_rows: int, row_length: int) -> Batch:
    """Returns the batch that holds these rows of sentences: int32 arrays (batch_rows, row_length) for both sides.

    They are tokens, segment numbers from 1 (0: padding), and positions from 0 in each sentence. Rows that are not given
    stay empty.
    """
    batch = {field: np.zeros((batch_rows, row_length), np.int32) for field in FIELDS}
    counts = np.array([len(row) for row in rows], np.int64)
    sentences = np.fromiter(itertools.chain.from_iterable(rows), np.int64)
    row = np.repeat(np.arange(len(rows)), counts)
    first = (np.cumsum(counts) - counts)[row]  # sentence of the same row
    for side, ids, offsets in (("src", split.src_ids, split.src_offsets), ("tgt", split.tgt_ids, split.tgt_offsets)):
        begin = offsets[sentences]
        lengths = offsets[sentences + 1] - begin
        before = np.cumsum(lengths) - lengths  # tokens of the sentences before it, in all rows
        position = np.arange(lengths.sum()) - np.repeat(before, lengths)
        there = np.repeat(row * row_length + before - before[first], lengths) + position
        batch[side].flat[there] = ids[np.repeat(begin, lengths) + position]
        batch[f"{side}_segments"].flat[there] = np.repeat(np.arange(len(row)) - first + 1, lengths)
        batch[f"{side}_positions"].flat[there] = position
    return batch

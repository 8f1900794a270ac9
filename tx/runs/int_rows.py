"""Rows of whole numbers in little memory: ten thousand results have thousands of numbers each."""

import array
import itertools
from collections.abc import Iterator, Sequence

_CODES = "BHi"  # of array.array, the smallest first


class IntRows(Sequence):
    """Rows of whole numbers, equally many in each; read as a tuple of tuples is, and equal to it.

    A tuple of tuples takes 136 bytes for the ten numbers of a sentence, this 10 where none is above 255.
    """

    __slots__ = ("_numbers", "_width")

    def __init__(self, numbers: array.array, width: int):
        self._numbers, self._width = numbers, width

    @classmethod
    def of(cls, value: object) -> "IntRows | None":
        """Returns what was parsed of a JSON file; None where it is not of equally long lists of 32-bit numbers."""
        if type(value) is not list or {*map(type, value)} != {list} or len({*map(len, value)}) > 1 or not value[0]:
            return None
        flat = list(itertools.chain.from_iterable(value))
        if {*map(type, flat)} != {int}:
            return None
        for code in _CODES:
            try:
                return cls(array.array(code, flat), len(value[0]))
            except OverflowError:
                continue
        return None

    def tolist(self) -> list[list[int]]:
        """Returns the rows as JSON has them."""
        return list(map(list, self))

    def __len__(self) -> int:
        return len(self._numbers) // self._width

    def __getitem__(self, index):
        rows = [self._row(i) for i in range(len(self))[index]] if isinstance(index, slice) else None
        return self._row(range(len(self))[index]) if rows is None else tuple(rows)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return map(self._row, range(len(self)))

    def _row(self, i):
        return tuple(self._numbers[i * self._width : (i + 1) * self._width])

    def __eq__(self, other) -> bool:
        if isinstance(other, IntRows):
            return self._width == other._width and self._numbers == other._numbers
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"IntRows({self.tolist()})"

    def __array__(self, dtype=None, copy=None):
        import numpy as np  # slow to import, and needed for this alone

        return np.array(self._numbers, dtype).reshape(len(self), self._width)

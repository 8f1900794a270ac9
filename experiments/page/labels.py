"""Labels of a scatter plot: which points can be named without one name on top of another."""

import math
from collections.abc import Sequence
from typing import NamedTuple

_LETTER, _LINE = 0.0075, 0.045  # width and height of a name's letter, as parts of a picture 900 wide and 300 high


class Point(NamedTuple):
    """Point and its name; `x` and `y` as they are drawn, up to a linear scale."""

    name: str
    x: float
    y: float


def chosen(points: Sequence[Point]) -> list[str]:
    """Returns the names that have room to the right of their points: the first's, then those furthest up and down."""
    if not points:
        return []
    left, width = _extent([point.x for point in points])
    bottom, height = _extent([point.y for point in points])
    middle = bottom + height / 2
    taken, names = [], []
    for point in sorted(points, key=lambda one: (one is not points[0], -abs(one.y - middle))):
        x, y = (point.x - left) / width, (point.y - bottom) / height
        end = x + 0.01 + _LETTER * len(point.name)
        if all(end < start or x > until or abs(y - at) > _LINE for start, until, at in taken):
            taken.append((x, end, y))
            names.append(point.name)
    return names


def _extent(values):
    low, high = min(values), max(values)
    return low, (high - low) or math.inf

"""Names of the points of a grid around a variant: "base+num_heads=2"."""

import collections
import fnmatch
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from tx.fields import FIELDS


def name(variant: str, point: Mapping[str, object]) -> str:
    """Returns the variant's name with a point's values: "base+num_heads=2"; {} leaves it as it is.

    Fields stand in alphabetical order, so that a point has one name; the dotted field stands where `short` is not
    unique among the fields of every run, or in the point. The name is also the path of a folder.
    """
    return label(variant, dict(sorted(point.items())))


def label(variant: str, point: Mapping[str, object]) -> str:
    """Returns what `name` does, for people: the fields in the order of the point."""
    shorts = collections.Counter(map(short, {*FIELDS, *point}))
    parts = []
    for field, value in point.items():
        safe = re.sub(r"[^A-Za-z0-9_.+-]", "-", text(value).removesuffix(".0"))
        parts.append(f"{short(field) if shorts[short(field)] == 1 else field}={safe}")
    return variant + ("+" + ",".join(parts) if parts else "")


def short(field: str) -> str:
    """Returns a dotted field without its group: "num_heads"; "lion.b1" of optim.lion.b1, a component's."""
    return field.partition(".")[2] or field


def product(grid: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """Returns {dotted field: value} for every point of {dotted field: values}; of an empty grid the one point {}."""
    return combine([{field: value} for value in values] for field, values in grid.items())


def combine(axes: Iterable[Sequence[Mapping[str, object]]]) -> list[dict[str, object]]:
    """Returns the product of axes, each a list of points that it goes through; the last axis changes fastest."""
    return [{f: value for part in parts for f, value in part.items()} for parts in itertools.product(*axes)]


def matches(variant: str, called: str, glob: str) -> bool:
    """Returns whether a glob of --only means a row: by its own name, or by that of the variant that it is around."""
    return any(fnmatch.fnmatchcase(one, glob) for one in (variant, called))


def text(value: object) -> str:
    """Returns a value as a command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)

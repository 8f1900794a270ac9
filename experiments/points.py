"""Names of the points of a grid around a variant: "base+num_heads=2"."""

import collections
import itertools
import re
from collections.abc import Mapping, Sequence

import tx.config


def name(variant: str, point: Mapping[str, object]) -> str:
    """Returns the variant's name with a point's values: "base+num_heads=2"; {} leaves it as it is.

    Fields stand in alphabetical order, so that a point has one name; the dotted field stands where its last part is
    not unique. The name is also the path of a folder.
    """
    leaves = collections.Counter(field.rpartition(".")[2] for field in tx.config.fields(tx.config.get_config()))
    parts = []
    for field, value in sorted(point.items()):
        leaf = field.rpartition(".")[2]
        safe = re.sub(r"[^A-Za-z0-9_.+-]", "-", text(value).removesuffix(".0"))
        parts.append(f"{leaf if leaves[leaf] == 1 else field}={safe}")
    return variant + ("+" + ",".join(parts) if parts else "")


def product(grid: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """Returns {dotted field: value} for every point of {dotted field: values}; of an empty grid the one point {}."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def text(value: object) -> str:
    """Returns a value as a command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)

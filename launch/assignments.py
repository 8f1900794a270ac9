"""Assignments of a command line: --set, --tune, --seeds, and the axes of --grid, each of one field or several.

--grid model.num_heads=1,2,4                        an axis of three values
--grid model.num_heads,model.d_k=1:64,2:32,4:16     an axis of three pairs: the fields go together
"""

import argparse
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import tx.config
from tx.errors import UserError

_OWNED = {  # fields that --set, --grid and --tune may not touch, and why
    "name": "the launcher names the runs",
    "version": "it belongs to the code",
    "train.seed": "use --seeds=K for seeds 1 to K, --seeds=3,4 for exactly those",
}


class Given(NamedTuple):
    """What a command line gives: {field: value} of --set, the axes of --grid, {field: values} of --tune."""

    settings: dict[str, object]
    axes: list[list[dict[str, object]]]
    tune: dict[str, list]


def given(args: argparse.Namespace) -> Given:
    """Returns what --set, --grid and --tune give; UserError where one is malformed, or two give one field."""
    settings = {field: value for field, (value,) in values("--set", args.settings, single=True).items()}
    found = Given(settings, axes(args.grid), values("--tune", args.tune))
    fields = {"--set": found.settings, "--grid": {f for axis in found.axes for f in axis[0]}, "--tune": found.tune}
    for flag, other in itertools.combinations(fields, 2):
        if both := sorted(set(fields[flag]) & set(fields[other])):
            raise UserError(f"{both[0]} is given to {flag} and to {other}; leave one out")
    return found


def seeds(args: argparse.Namespace, first: int = 1) -> tuple[int, ...]:
    """Returns the seeds that --seeds asks for: K of them from `first` on, or with a comma exactly those listed.

    Raises UserError where it is neither.
    """
    listed = [part for part in args.seeds.split(",") if part]
    if not listed or not all(part.isdecimal() and len(part) < 10 for part in listed):
        raise UserError(f"--seeds takes a number, or numbers with commas such as 3,4; got {args.seeds!r}")
    numbers = sorted(set(map(int, listed)))
    if numbers[0] < 1:
        raise UserError(f"--seeds must be at least 1; got {args.seeds}")
    if "," in args.seeds:
        return tuple(numbers)
    return tuple(range(first, first + numbers[0]))


def values(flag: str, texts: Sequence[str], single: bool = False) -> dict[str, list]:
    """Reads "FIELD=VALUE" (or "FIELD=V1,V2,...") into {field: typed values}, fields in alphabetical order.

    The order of the command line is forgotten, so that it cannot give one point of a tuning two names.
    """
    found: dict[str, list] = {}
    for text in texts:
        (field,), right = _sides(flag, text, found, "FIELD=VALUE" if single else "FIELD=VALUE,VALUE,...", 1)
        listed = [right] if single else right.split(",")
        found[field] = list(dict.fromkeys(_value(flag, field, value) for value in listed))
    return dict(sorted(found.items()))


def axes(texts: Sequence[str]) -> list[list[dict[str, object]]]:
    """Reads "FIELD=V1,V2,..." or "F1,F2=V1:W1,V2:W2,..." into axes, each a list of {field: typed value}, in that order.

    A colon separates values only where there are several fields; elsewhere it is part of a value.
    """
    flag, found, seen = "--grid", [], {}
    for text in texts:
        fields, right = _sides(flag, text, seen, "FIELD=V1,V2 or FIELD1,FIELD2=V1:W1,V2:W2")
        seen |= dict.fromkeys(fields)
        axis = []
        for listed in right.split(","):
            parts = listed.split(":") if len(fields) > 1 else [listed]
            if len(parts) != len(fields):
                raise UserError(
                    f"{flag} {','.join(fields)} takes {len(fields)} values with a colon between them, such as "
                    f"{':'.join('XYZ'[i % 3] for i in range(len(fields)))}; got {listed!r}"
                )
            point = {field: _value(flag, field, part) for field, part in zip(fields, parts, strict=True)}
            axis += [] if point in axis else [point]
        found.append(axis)
    return found


def _sides(flag, text, seen, form, most=None):
    """Returns (fields, what stands behind the equals sign) of one assignment."""
    left, equals, right = text.partition("=")
    fields = left.split(",")
    if not equals or not right or (most and len(fields) > most):
        raise UserError(f"{flag} takes {form}; got {text!r}")
    for i, field in enumerate(fields):
        if field in _OWNED:
            raise UserError(f"{flag} cannot change {field}: {_OWNED[field]}")
        if field in seen or field in fields[:i]:
            raise UserError(f"{flag} is given {field} twice; give it once")
    return fields, right


def _value(flag, field, text):
    return tx.config.parse(field, text, flag)

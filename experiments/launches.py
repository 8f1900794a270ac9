"""Launches of a sweep: what was asked for in a SWEEP@SCALE folder, kept in its launch.json beside the runs.

Whoever reads the folder judges by it: a row means what it was launched as, --set and point of a grid included, and what
was not asked for is not missing. Several launches into one folder add up; of a row that was asked for in two ways the
newer counts. Without the file, every variant of the sweep is expected, as its name says.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from experiments import points
from experiments.locks import locked
from tx.errors import UserError, writing
from tx.files import from_json, read_text, to_json, write_atomically
from tx.renamed_fields import NEW_NAMES
from tx.runs.imports import FILE, LARGEST

MOST = 100_000  # rows that a file may ask for
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, UserError)


@dataclasses.dataclass(frozen=True)
class AskedRow:
    """Row of a sweep, as launches asked for it.

    Attributes:
      name: of its folder.
      variant: the registered variant.
      point: {dotted field: value} around it, in the order of the grid's axes; mostly empty.
      settings: {dotted field: value} of --set.
      seeds: all that were asked for.
      tuned: whether tunings alone asked for it.
    """

    name: str
    variant: str
    point: Mapping[str, object]
    settings: Mapping[str, object]
    seeds: tuple[int, ...]
    tuned: bool = False

    @functools.cached_property
    def label(self) -> str:
        """The name for people, the point in the order of its axes."""
        return points.label(self.variant, self.point)

    @property
    def overrides(self) -> dict[str, object]:
        """{dotted field: value} of it that its variant does not say."""
        return {**self.settings, **self.point}


class Launched(NamedTuple):
    """What was asked for in some folders of one sweep.

    Attributes:
      rows: {name: row}, in the order asked for.
      complete: whether every folder says so; else every variant of the sweep is expected too.
    """

    rows: dict[str, AskedRow]
    complete: bool


def read(folders: Iterable[pathlib.Path]) -> Launched:
    """Returns what launches asked for in SWEEP@SCALE folders of one name; UserError where a launch.json is damaged.

    Of a row that two folders ask for in different ways, the first folder's counts.
    """
    rows, complete = {}, True
    for folder in folders:
        text, _, found = _read(folder)
        complete = complete and bool(text)
        rows = _union(found.values(), rows.values())
    return Launched(rows, complete)


def record(folder: pathlib.Path, rows: Sequence[AskedRow], launch: Mapping[str, object]) -> None:
    """Adds a launch to those that the launch.json of a SWEEP@SCALE folder holds; UserError as `read`.

    Args:
      folder: of the sweep; it is there.
      rows: all that is asked for; whether for a tuning, the launch says.
      launch: the launch as it was typed, {what: JSON}; "imports" lists {"file", "sha256"}.
    """
    rows = [dataclasses.replace(row, tuned=bool(launch.get("tune"))) for row in rows]
    with locked(folder), writing(folder / FILE):
        text, before, there = _read(folder)
        known = _union(there.values(), rows)
        imports = {one["file"]: one for one in [*before["imports"], *launch["imports"]]}
        launches = [one for one in before["launches"] if one != launch]
        told = to_json(
            {
                "format": 1,
                "imports": list(imports.values()),
                "launches": [*launches, launch],
                "rows": [_told(row) for row in known.values()],
            }
        )
        if told != text:
            write_atomically(folder / FILE, told)


def _union(older: Iterable[AskedRow], newer: Iterable[AskedRow]) -> dict[str, AskedRow]:
    """Returns all rows by name, the seeds of both; what only `newer` has stands behind what precedes it there."""
    found, behind, before = {row.name: row for row in older}, {}, None
    there = list(found)
    for row in newer:
        seeds = {*row.seeds, *(found[row.name].seeds if row.name in found else ())}
        tuned = row.tuned and (row.name not in found or found[row.name].tuned)
        if row.name not in found:
            behind.setdefault(before, []).append(row.name)
        else:
            before = row.name
        found[row.name] = dataclasses.replace(row, seeds=tuple(sorted(seeds)), tuned=tuned)
    names = [name for place in (*there, None) for name in ([place] if place else []) + behind.get(place, [])]
    return {name: found[name] for name in names}


def _read(folder):
    """Returns (text, JSON, {name: row}) of a folder's launch.json, all empty where there is none.

    Raises UserError where it is damaged.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        return "", {"imports": [], "launches": []}, {}
    try:
        told = from_json(text := read_text(path, LARGEST))
        if not all(isinstance(told[part], list) for part in ("imports", "launches", "rows")):
            raise ValueError("no lists")
        if not all(isinstance(one["file"], str) for one in told["imports"]):
            raise ValueError("no files")
        unsaid = any(one.get("tune") for one in told["launches"])  # rows of before did not say who asked for them
        rows = [_row(one, unsaid) for one in told["rows"][:MOST]]
        return text, told, {row.name: row for row in rows}
    except _DAMAGED:
        raise UserError(f"{path} is damaged; delete it and launch again: the runs stay") from None


def _row(told, unsaid):
    asked = (_fields(told["point"]), _fields(told["set"]), tuple(told["seeds"]))
    row = AskedRow(told["row"], told["variant"], *asked, tuned=bool(told.get("tuned", unsaid)))
    if {type(row.name), type(row.variant)} != {str} or {*map(type, row.seeds)} != {int} or min(row.seeds) < 1:
        raise ValueError("no row")
    return row


def _fields(pairs):
    """Returns {dotted field as it is called today: value} of [field, value] pairs."""
    found = {NEW_NAMES.get(field, field): value for field, value in pairs}
    if not all(isinstance(f, str) and isinstance(v, str | int | float) for f, v in found.items()):
        raise ValueError("values of no field")
    return found


def _told(row):
    return {
        "row": row.name,
        "variant": row.variant,
        "point": [list(pair) for pair in row.point.items()],
        "set": [list(pair) for pair in row.settings.items()],
        "seeds": list(row.seeds),
        "tuned": row.tuned,
    }

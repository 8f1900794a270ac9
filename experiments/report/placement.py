"""Placement of results: whether result.json lies in the folder of its own run, or is a copy of another row's."""

from collections.abc import Iterable

import tx.config
from experiments import points
from tx.errors import UserError
from tx.renamed_fields import names_of
from tx.runs import state
from tx.runs.result import RunResult
from tx.runs.state import RunState


def of_other_row(name: str, result: RunResult) -> RunState | None:
    """Returns the state of a run whose result has another SWEEP/VARIANT@SCALE than `name`; None where it has that."""
    return None if result.name == name else state.misplaced(result.name, name)


def of_other_point(folder: str, free: Iterable[str], result: RunResult) -> RunState | None:
    """Returns the state of a run in a folder "base+num_heads=2" whose result has another value; None where it has it.

    Args:
      folder: the variant's name, as the folder says it.
      free: the dotted fields that it may name.
      result: the run's.
    """
    has = tx.config.fields(result.config)
    for point in folder.partition("+")[2].split(","):
        called, _, value = point.partition("=")
        for field in free:
            names = {one for name in names_of(field) for one in (name, points.short(name))}
            if called in names and field in has and not _means(field, value, has[field]):
                return state.misplaced(f"{field}={points.text(has[field])}", point)
    return None


def _means(field, text, value):
    """Whether a part of a folder's name stands for a value of a field."""
    if points.name("", {field: value}).partition("=")[2] == text:
        return True
    try:
        return tx.config.parse(field, text) == value
    except UserError:
        return False

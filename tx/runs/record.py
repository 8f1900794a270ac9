"""Dataclasses for objects of JSON files: read and checked by the types of their fields, written as they were."""

import collections.abc
import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Any

from tx.errors import UserError
from tx.runs.int_rows import IntRows

_LARGEST = 10**300  # a greater whole number is none that can be computed with: a float may not hold it
_WANTED = {int: "a whole number", float: "a number", str: "text"}
_FOUND = {type(None): "null", bool: "true or false", **_WANTED, list: "a list", tuple: "a list", dict: "an object"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """Base of dataclasses whose fields are those of a JSON object.

    A field whose type has None in it need not be in the file: None says that it is not known. Types are int, float,
    str, object, Literal, other records, tuple[T, ...] for lists, Sequence[Sequence[int]] for long ones of short ones,
    and dict[str, T] for open keys.

    Attributes:
      others: what else the file says, as it stands there: fields of other versions of this code, and those that need
        not be there and are not of their type. So nothing is lost where a record is read and written again.
    """

    others: dict[str, object] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, value: object, where: str = "") -> "Record":
        """Reads an object of a parsed JSON file.

        Args:
          where: the dotted name of the field that it is; "" for the whole file.

        Raises UserError, "dev.ppl is missing", for a field that has to be there, and is not or is of another type.
        """
        if not isinstance(value, dict):
            raise _wrong(value, "an object", where or "it")
        known, others = {}, dict(value)
        for name, (read, needed) in _fields(cls).items():
            field = f"{where}.{name}" if where else name
            if name in value:
                try:
                    known[name] = read(value[name], field)
                    del others[name]
                except UserError:
                    if needed:
                        raise
            elif needed:
                raise UserError(f"{field} is missing")
        return cls(**known, others=others)

    def to_dict(self) -> dict[str, object]:
        """Returns what `from_dict` has read, for JSON."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "others"]
        known = {name: _plain(value) for name in names if (value := getattr(self, name)) is not None}
        return self.others | known


@functools.cache
def _fields(cls) -> dict[str, tuple[Callable, bool]]:
    """Returns {field: (its reader, whether it has to be there)}."""
    found = {}
    for name, hint in typing.get_type_hints(cls).items():
        if name != "others":
            kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
            optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
            found[name] = _reader(kinds[0] if optional else hint), not optional
    return found


def _reader(hint: Any) -> Callable[[object, str], Any]:
    """Returns a function of a parsed value and the name of its field, which gives the value of that type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return functools.partial(_read_choice, arguments)
    if origin is collections.abc.Sequence:
        return functools.partial(_read_rows, _reader(tuple[tuple[int, ...], ...]))
    if origin is tuple:
        return functools.partial(_read_list, _reader(arguments[0]))
    if origin is dict:
        return functools.partial(_read_map, _reader(arguments[1]))
    if hint is object:
        return lambda value, where: value
    return hint.from_dict if issubclass(hint, Record) else functools.partial(_read_leaf, hint)


def _read_choice(choices, value, where):
    if value not in choices:
        raise UserError(f"{where} is none of {', '.join(choices)}")
    return value


def _read_list(read, value, where):
    if not isinstance(value, list | tuple):
        raise _wrong(value, "a list", where)
    if _are_numbers(read, value):
        return tuple(value)
    return tuple([read(one, where) for one in value])


def _read_rows(read, value, where):
    rows = IntRows.of(value)
    return read(value, where) if rows is None else rows


def _read_map(read, value, where):
    if not isinstance(value, dict):
        raise _wrong(value, "an object", where)
    if _are_numbers(read, value.values()):
        return dict(value)
    return {key: read(one, f"{where}.{key}") for key, one in value.items()}


def _are_numbers(read, values) -> bool:
    """Returns whether `read` takes all values as they are, at a glance: results hold thousands of numbers."""
    kinds = _GLANCES.get(read.args[0]) if getattr(read, "func", None) is _read_leaf else None
    if not kinds or not kinds.issuperset(map(type, values)):
        return False
    whole = [value for value in values if type(value) is int]
    return not whole or (min(whole) > -_LARGEST and max(whole) < _LARGEST)


_GLANCES = {int: {int}, float: {int, float}}  # the types of values that a leaf of such a type may have


def _read_leaf(kind, value, where):
    if isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool):
        if not isinstance(value, int) or -_LARGEST < value < _LARGEST:
            return value
        raise UserError(f"{where} is too long a number")
    raise _wrong(value, _WANTED[kind], where)


def _wrong(value, wanted, where):
    return UserError(f"{where} should be {wanted}, and is {_FOUND.get(type(value), type(value).__name__)}")


def _plain(value):
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, IntRows):
        return value.tolist()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, dict) else value

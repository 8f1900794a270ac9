"""Small registries of components that a configuration chooses by name, each with fields of its own if it has any."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from tx import components
from tx.fields import FIELDS, Field


@dataclasses.dataclass(frozen=True)
class Configured:
    """Name of a component and values of its own fields, where these are handed on together.

    Attributes:
      name: as it is registered.
      values: (name, value) of its fields.
    """

    name: str
    values: tuple[tuple[str, object], ...] = ()


class Registry:
    """Mapping of names to the components of one kind.

    Args:
      field: the configuration field that holds the name, e.g. "model.positions".
      given: keyword arguments that every component of the kind is called with, whose names no own field may have.
      positional: how many arguments every component of the kind is called with by position; none of them is a field.
      reserved: more names that no own field may have: those that flax has for any module.
    """

    def __init__(self, field: str, given: tuple[str, ...] = (), positional: int = 0, reserved: tuple[str, ...] = ()):
        self.field, self.given, self.positional, self.reserved = field, given, positional, reserved
        self.group, _, self.leaf = field.partition(".")
        self._components = {}

    def register(self, name: str, /, *shared: str, **own: Field) -> Callable:
        """Returns a decorator that makes a component available under `name`; a name is taken once.

        Args:
          name: for the configuration.
          shared: names of fields of the group that it takes and not every component does, e.g. "beta1".
          own: fields of its own: b1=Field(0.9, "what it is") of the optimizer "lion" is optim.lion.b1.

        The component is called, or made, with the values of all these as keyword arguments, beside the arguments that
        every component of the kind has. This project's own are declared in tx/components.py, and say nothing here.
        """

        def add(component):
            if name in self._components:
                raise ValueError(f"{self.field} {name!r} is registered twice")
            if hidden := [one for one in own if one in (*self.given, *self.reserved)]:
                raise ValueError(
                    f"{self.field} {name!r}: every component of the kind is given its {hidden[0]} by the model, which "
                    "would hide a field of that name; choose another"
                )
            if shared or own or name not in components.names(self.field):
                components.declare(self.field, name, shared, own)
            self._check_arguments(name, component)
            self._components[name] = component
            return component

        return add

    def _check_arguments(self, name, component):
        declared = components.declaration(self.field, name)
        wanted = {*declared.own, *declared.shared}
        if not wanted and not self.positional and not self.given:
            return
        try:
            signature = inspect.signature(component)
        except (TypeError, ValueError):  # of nothing, which stands for no layer, or of what is not written in Python
            return
        taken = signature.parameters.values()
        kinds = {one.kind for one in taken}
        first = [one.name for one in taken if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        by_name = {one.name for one in taken if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)}
        given = f"every component of the kind is given {self.positional} by position"
        if hidden := sorted(wanted.intersection(first[: self.positional])):
            place = first.index(hidden[0]) + 1
            wrong = f": {hidden[0]} is a field of it, but its argument {place}, and {given}; take {hidden[0]} by name"
        elif len(first) < self.positional and inspect.Parameter.VAR_POSITIONAL not in kinds:
            wrong = f" takes {len(first)} arguments by position, and {given}"
        elif (lacking := sorted(wanted - by_name)) and inspect.Parameter.VAR_KEYWORD not in kinds:
            wrong = f" takes no argument {lacking[0]}, which is a field of it"
        elif unlike := _mismatch(signature, self.positional, [*self.given, *sorted(wanted)]):
            wrong = f" cannot be called with what every component of the kind is given: {unlike}"
        else:
            return
        components.withdraw(self.field, name)
        raise ValueError(f"{self.field} {name!r}{wrong}")

    def __getitem__(self, name: str | Configured) -> Any:
        """Returns the component, with the values of its fields: those given, else the defaults.

        Raises UserError for an unknown name, with the nearest one.
        """
        values = {}
        if isinstance(name, Configured):
            name, values = name.name, dict(name.values)
        if name not in self._components:
            raise components.no_component(self.field, name, list(self))
        declared = components.declaration(self.field, name)
        defaults = {leaf: FIELDS[f"{self.group}.{leaf}"].default for leaf in declared.shared}
        defaults |= {leaf: field.default for leaf, field in declared.own.items()}
        component = self._components[name]
        return functools.partial(component, **(defaults | values)) if defaults else component

    def configured(self, name: str, own: Mapping[str, Mapping]) -> str | Configured:
        """Returns what `self[...]` takes to give a component with the values of its own fields.

        Args:
          name: of the component.
          own: {name of a component: {field: value}}, of any components.
        """
        return Configured(name, tuple(sorted(own[name].items()))) if name in own else name

    def of(self, group: ConfigDict | Mapping) -> Any:
        """Returns the component that a group of a configuration chooses, with its fields as they are there."""
        name = group[self.leaf]
        declared = components.declaration(self.field, name)
        values = dict(group[name]) if declared.own else {}
        values |= {leaf: group[leaf] for leaf in declared.shared}
        return self[Configured(name, tuple(values.items()))]

    def __contains__(self, name: str) -> bool:
        return name in self._components

    def __iter__(self):
        return iter(sorted(self._components))


def _mismatch(signature, positional, names):
    """Returns what a call with so many arguments by position, and these by name, lacks or has too many; else ""."""
    try:
        signature.bind(*(None,) * positional, **dict.fromkeys(names))
    except TypeError as error:
        return str(error)
    return ""

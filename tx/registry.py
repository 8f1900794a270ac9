"""Small registries of components that a configuration chooses by name."""

from collections.abc import Callable

from tx.errors import unknown


class Registry:
    """Mapping of names to the components of one kind.

    Args:
      field: the configuration field that holds the name, e.g. "model.positions".
    """

    def __init__(self, field: str):
        self.field = field
        self._components = {}

    def register(self, name: str) -> Callable:
        """Returns a decorator that makes a component available under `name`; a name is taken once."""

        def add(component):
            if name in self._components:
                raise ValueError(f"{self.field} {name!r} is registered twice")
            self._components[name] = component
            return component

        return add

    def __getitem__(self, name: str):
        """Returns the component; UserError for an unknown name, with the nearest one."""
        if name not in self._components:
            more = f" (there are: {', '.join(self)}; one of your own needs --import FILE.py)"
            raise unknown(f"no {self.field}", name, self._components, more)
        return self._components[name]

    def __iter__(self):
        return iter(sorted(self._components))

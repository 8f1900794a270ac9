"""Fields of components among the arguments of a module: in `Transformer(**config.model)`, `near` is model.near.*."""

from collections.abc import Mapping

from flax.core import FrozenDict
from ml_collections import ConfigDict


class TakesComponentFields(type):
    """Metaclass of a module that is made with {name of a component: {field: value}} among its fields.

    Those that are no field of the module become its `component_fields`.
    """

    def __call__(cls, *args, **fields):
        """Makes the module."""
        own = {
            name: FrozenDict(dict(values))
            for name, values in fields.items()
            if isinstance(values, Mapping | ConfigDict) and name not in cls.__dataclass_fields__
        }
        rest = {name: value for name, value in fields.items() if name not in own}
        if own:
            rest["component_fields"] = FrozenDict(own)
        return super().__call__(*args, **rest)

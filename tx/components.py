"""Declarations of components: what a configuration can choose by name, and the fields of each; nothing is imported.

A field of a component's own is called GROUP.NAME.FIELD (optim.lion.b1), where GROUP is that of the field that chooses
it (optim.optimizer). A component can also share fields of the group with others (optim.beta1: of Adam and AdamW, not of
Lion). A run's configuration holds the fields of the components that it uses and no others, so that it is what it was
when a component is added.

Those of this project are declared here, those of others where they are registered (`tx.registry`).
"""

import dataclasses
import functools
import re
import types
from collections.abc import Mapping

from tx.errors import UserError, unknown
from tx.fields import AT_LEAST_0, FIELDS, SHARE, Field


@dataclasses.dataclass(frozen=True)
class Declaration:
    """Declaration of a component.

    Attributes:
      own: {name: field} of its own.
      shared: names of fields of the group that it uses and not every component does.
    """

    own: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    shared: tuple[str, ...] = ()


def _plain(*names):
    return {name: Declaration() for name in names}


_ADAM = ("beta1", "beta2", "epsilon")
_DECAY = "times the rate and a matrix (embeddings too), is subtracted from the matrix"
_MOMENTUM = Field(0.9, "decay of the sum of the gradients", SHARE)

_BUILT_IN = {
    "model.positions": _plain("sinusoidal", "learned", "none", "relative", "t5", "alibi", "rotary"),
    "model.similarity": _plain("scaled", "unscaled", "cosine", "additive"),
    "model.mixer": _plain("attention", "local", "recurrent", "convolution", "dilated"),
    "model.feed_forward": _plain("relu", "gelu", "swiglu", "none"),
    "model.normalization": _plain("layer", "rms"),
    "optim.schedule": _plain("inverse_sqrt", "constant", "cosine"),
    "loss.name": {
        "label_smoothed": Declaration(),
        "z_loss": Declaration({"coefficient": Field(1e-4, "times the square of log Z, is added", AT_LEAST_0)}),
        "focal": Declaration({"gamma": Field(2.0, "the loss is times (1 - p)^gamma; 0: cross-entropy", AT_LEAST_0)}),
    },
    "optim.optimizer": {
        "adam": Declaration(shared=_ADAM),
        "adamw": Declaration({"weight_decay": Field(0.01, _DECAY, AT_LEAST_0)}, _ADAM),
        "lion": Declaration(
            {
                "b1": Field(0.9, "weight of the mean of the gradients in the sum whose sign is the update", SHARE),
                "b2": Field(0.99, "decay of that mean", SHARE),
                "weight_decay": Field(0.1, _DECAY, AT_LEAST_0),
            }
        ),
        "adafactor": Declaration(
            {
                "decay_rate": Field(0.8, "the mean of the squares decays by 1 - step^-decay_rate", SHARE),
                "clipping_threshold": Field(
                    1.0, "greatest root mean square of a parameter's update; 0: any", AT_LEAST_0
                ),
                "multiply_by_parameter_scale": Field(True, "times the root mean square of the parameter"),
                "min_dim_size_to_factor": Field(128, "matrices of fewer rows or columns keep all mean squares"),
                "weight_decay": Field(0.0, _DECAY, AT_LEAST_0),
            }
        ),
        "sgd": Declaration(
            {
                "momentum": _MOMENTUM,
                "nesterov": Field(True, "look one step ahead along the momentum"),
                "weight_decay": Field(0.0, "times a matrix, is added to its gradient", AT_LEAST_0),
            }
        ),
        "muon": Declaration(
            {
                "momentum": dataclasses.replace(_MOMENTUM, default=0.95),
                "nesterov": Field(True, "look one step ahead along the momentum"),
                "ns_steps": Field(5, "iterations of Newton and Schulz that make a matrix orthogonal"),
                "consistent_rms": Field(
                    *(0.2, "root mean square of an update at rate 1, as AdamW's; 0: sqrt(max(1, outputs / inputs))"),
                    AT_LEAST_0,
                ),
                "weight_decay": Field(0.01, _DECAY, AT_LEAST_0),
            },
            _ADAM,
        ),
    },
    "probe.metrics": {
        "length_ratio": Declaration(),
        "ter": Declaration({"normalized": Field(False, "punctuation counts as words of their own")}),
    },
}
_NETWORKS = ("model.feed_forward", ("relu", "gelu", "swiglu"))
_READERS = {  # of fields that every run has: what chooses, and what of this project's makes use of them
    "model.normalization": ("model.norm", ("post", "pre")),
    "model.neighbourhood": ("model.mixer", ("local",)),
    "model.kernel_width": ("model.mixer", ("convolution", "dilated")),
    "model.max_positions": ("model.positions", ("learned",)),
    "model.scale_positions": ("model.positions", ("learned",)),
    "model.max_offset": ("model.positions", ("relative",)),
    "model.sinusoid_layout": ("model.positions", ("sinusoidal",)),
    "model.sinusoid_endpoint": ("model.positions", ("sinusoidal",)),
    "model.d_ff": _NETWORKS,
    "model.relu_dropout": _NETWORKS,
}
_SEVERAL = frozenset({"probe.metrics"})  # fields that choose any number of components, with commas between
_declared: dict[str, dict[str, Declaration]] = {choosing: dict(those) for choosing, those in _BUILT_IN.items()}


def declare(choosing: str, name: str, shared: tuple[str, ...] = (), own: Mapping[str, object] | None = None) -> None:
    """Declares a component, or finds it declared so.

    Args:
      choosing: the field that chooses it, e.g. "optim.optimizer".
      name: that the field then has.
      shared, own: as in `Declaration`.

    Raises ValueError for a name of a field that does not do, that is another field's, or for another declaration.
    """
    what, group = f"{choosing} {name!r}", choosing.partition(".")[0]
    if wrong := [one for one, field in (own or {}).items() if not isinstance(field, Field)]:
        raise ValueError(f"{what}: {wrong[0]} is no tx.fields.Field")
    declaration = Declaration(dict(own or {}), tuple(shared))
    if declaration.own:
        for one in (name, *declaration.own):
            if not re.fullmatch(r"[A-Za-z]\w*", one):
                raise ValueError(f"{what}: {one!r} is no name for a part of a field; letters, digits and _ are")
        if f"{group}.{name}" in FIELDS:
            raise ValueError(f"{what}: {group}.{name} is a field already; a component with fields needs another name")
        for other, those in _declared.items():
            if other != choosing and other.partition(".")[0] == group and those.get(name, Declaration()).own:
                raise ValueError(f"{what}: {other}={name} has fields {group}.{name}.* already; choose another name")
    for one in declaration.shared:
        if f"{group}.{one}" not in _shared(choosing):
            raise ValueError(f"{what}: {group}.{one} is no field that components of {choosing} share")
    known = _declared.setdefault(choosing, {})
    if known.setdefault(name, declaration) != declaration:
        raise ValueError(f"{what} is declared otherwise already")
    known_fields.cache_clear()


def withdraw(choosing: str, name: str) -> None:
    """Forgets a component that was declared."""
    del _declared[choosing][name]
    known_fields.cache_clear()


def declaration(choosing: str, name: str) -> Declaration:
    """Returns what is declared of a component; one without fields where nothing is."""
    return _declared.get(choosing, {}).get(name, Declaration())


def names(choosing: str) -> list[str]:
    """Returns the components that a field can choose, sorted."""
    return sorted(_declared.get(choosing, ()))


def chosen(choosing: str, value: str) -> list[str]:
    """Returns the names of the components that a field chooses by its value: one, or any number."""
    if choosing not in _SEVERAL:
        return [value]
    return list(dict.fromkeys(filter(None, (name.strip() for name in value.split(",")))))


def check_name(choosing: str, value: str) -> None:
    """Raises UserError, with the nearest, for a name that no component has, where all are known that there are."""
    for name in chosen(choosing, value):
        if choosing in _BUILT_IN and name not in _declared[choosing]:
            raise no_component(choosing, name, names(choosing))


def absent(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """Returns (field, name) of the components that some fields, {dotted name: value}, choose and that are not here."""
    fields = [choosing for choosing in _BUILT_IN if isinstance(values.get(choosing), str)]
    pairs = [(choosing, name) for choosing in fields for name in chosen(choosing, values[choosing])]
    return [(choosing, name) for choosing, name in pairs if name not in _declared[choosing]]


def may_have(choosing: str, name: str, field: str) -> bool:
    """Returns whether a field is, or may be, one of a component."""
    return field in fields_of(choosing, name) or field.startswith(f"{choosing.partition('.')[0]}.{name}.")


def no_component(choosing: str, name: str, known: list[str]) -> UserError:
    """Returns the error for a name that no component has."""
    more = f" (there are: {', '.join(known)}; one of your own needs --import FILE.py)"
    return unknown(f"no {choosing}", name, known, more)


def choosing_fields() -> list[str]:
    """Returns the fields that choose a component."""
    return list(_declared)


def fields_of(choosing: str, value: str) -> dict[str, Field]:
    """Returns {dotted name: field} of the components that a field chooses: their own and those that they share.

    Of a component that is not declared nothing is known: it may share any.
    """
    return {dotted: field for name in chosen(choosing, value) for dotted, field in _fields_of(choosing, name).items()}


def _fields_of(choosing, name):
    group = choosing.partition(".")[0]
    shared = _shared(choosing)
    if name not in _declared.get(choosing, ()):
        return shared
    found = declaration(choosing, name)
    own = {f"{group}.{name}.{leaf}": field for leaf, field in found.own.items()}
    return {f"{group}.{leaf}": shared[f"{group}.{leaf}"] for leaf in found.shared} | own


def every_field_of(choosing: str) -> dict[str, Field]:
    """Returns {dotted name: field} of all components that a field can choose."""
    return {dotted: field for name in _declared[choosing] for dotted, field in fields_of(choosing, name).items()}


@functools.cache
def known_fields() -> Mapping[str, Field]:
    """Returns {dotted name: field} of every field that any run can have."""
    more = {dotted: field for choosing in _declared for dotted, field in every_field_of(choosing).items()}
    return types.MappingProxyType(FIELDS | more)


def owners(field: str) -> tuple[str, list[str]] | None:
    """Returns (the field that chooses, names of the components) that a field belongs to; None for one of every run."""
    for choosing, those in _declared.items():
        if found := [name for name in those if field in fields_of(choosing, name)]:
            return choosing, found
    return None


def chooses(field: str) -> bool:
    """Returns whether the value of a field decides which others mean something (`readers`)."""
    return field in _declared or any(field == choosing for choosing, _ in _READERS.values())


def readers(field: str) -> tuple[str, list[str]] | None:
    """Returns (the field that chooses, its values) that a field means something to; None for any run.

    It is of these components, or every run has it and they alone of this project's read it: one of somebody's own may,
    too.
    """
    if field not in _READERS:
        return owners(field)
    choosing, those = _READERS[field]
    return choosing, [*those, *(name for name in _declared.get(choosing, ()) if name not in _BUILT_IN[choosing])]


def is_unread(field: str, values: Mapping[str, object]) -> bool:
    """Returns whether a field of every run means nothing to what some fields, {dotted name: value}, choose."""
    if field not in _READERS:
        return False
    choosing, those = readers(field)
    return values[choosing] not in those


def _shared(choosing):
    """The fields that some components of a kind use and others do not."""
    group = choosing.partition(".")[0]
    leaves = dict.fromkeys(leaf for one in _BUILT_IN.get(choosing, {}).values() for leaf in one.shared)
    return {f"{group}.{leaf}": FIELDS[f"{group}.{leaf}"] for leaf in leaves}

"""Meaning of a row of a sweep: the configuration that it was launched with, or else the one that its name says."""

from collections.abc import Mapping

from ml_collections import ConfigDict

import tx.config
from experiments import registry
from experiments.launches import AskedRow, Launched
from experiments.registry import Scale, Sweep, Variant
from tx import components
from tx.errors import UserError


def asked_of_base(sweep: Sweep, launched: Launched, begun: bool) -> AskedRow | None:
    """Returns what the base was launched as; where it was not, with what all rows that were launched have in common."""
    name, rows = sweep.variants[0].name, list(launched.rows.values())
    if name in launched.rows or begun or not rows:
        return launched.rows.get(name)
    shared = [pair for pair in rows[0].settings.items() if all(pair in row.settings.items() for row in rows)]
    return AskedRow(name, name, {}, dict(shared), ())


def meaning(sweep: Sweep, scale: Scale, variant: Variant, asked: AskedRow | None) -> ConfigDict | None:
    """Returns the configuration that a row was launched with; None where there is none such any more.

    Without what it says of components that are not here, as their file is gone: `fields` has that too.
    """
    try:
        return registry.resolve(sweep, variant, scale, _of_components_here(asked.overrides) if asked else {})
    except UserError:
        if not asked:
            raise
        return None


def fields(config: ConfigDict, asked: AskedRow | None) -> dict[str, object]:
    """Returns {dotted field: value} of a `meaning`, with all that the row was launched with."""
    overrides = asked.overrides if asked else {}
    return tx.config.fields(config) | (overrides if components.absent(overrides) else {})


def unjudged(config: Mapping[str, object], now: Mapping[str, object]) -> frozenset[str]:
    """Returns the fields of a run that nothing here can judge: of components that are not here.

    Args:
      config: of the run, nested.
      now: what its row means, {dotted field: value}.
    """
    absent = components.absent(now)
    names = {*tx.config.fields(config), *now} if absent else ()
    return frozenset(name for name in names if name not in now and any(components.may_have(*a, name) for a in absent))


def _of_components_here(overrides):
    absent = components.absent(overrides)
    rest = {f: v for f, v in overrides.items() if not any(components.may_have(*one, f) for one in absent)}
    for choosing in {choosing for choosing, _ in absent}:
        lacking = [name for field, name in absent if field == choosing]
        here = [name for name in components.chosen(choosing, rest.pop(choosing)) if name not in lacking]
        rest |= {choosing: ",".join(here)} if here else {}
    return rest

"""Meaning of a row of a sweep: the configuration that it was launched with, or else the one that its name says."""

from ml_collections import ConfigDict

from experiments import registry
from experiments.launches import AskedRow, Launched
from experiments.registry import Scale, Sweep, Variant
from tx.errors import UserError


def asked_of_base(sweep: Sweep, launched: Launched, begun: bool) -> AskedRow | None:
    """Returns what the base was launched as; where it was not, with what all rows that were launched have in common."""
    name, rows = sweep.variants[0].name, list(launched.rows.values())
    if name in launched.rows or begun or not rows:
        return launched.rows.get(name)
    shared = [pair for pair in rows[0].settings.items() if all(pair in row.settings.items() for row in rows)]
    return AskedRow(name, name, {}, dict(shared), ())


def meaning(sweep: Sweep, scale: Scale, variant: Variant, asked: AskedRow | None) -> ConfigDict | None:
    """Returns the configuration that a row was launched with; None where there is none such any more."""
    try:
        return registry.resolve(sweep, variant, scale, asked.overrides if asked else {})
    except UserError:
        if not asked:
            raise
        return None

"""Matching of a grid's points to the size of their variant: d_ff takes up the slack."""

from collections.abc import Mapping

from experiments import registry
from experiments.report.budget import TOLERANCE
from experiments.report.symbols import symbol
from tx.errors import UserError
from tx.model import flops

SLACK = "model.d_ff"  # the field that takes it up


def match_parameters(name: str, point: Mapping[str, object], settings: Mapping[str, object]) -> dict[str, object]:
    """Returns a point with the d_ff at which it has as many parameters as the variant that it is around.

    Raises UserError where the variant, the point or the settings set d_ff themselves, and where none comes within
    TOLERANCE.

    Args:
      name: of the variant, SWEEP/VARIANT@SCALE.
      point: {dotted field: value} around it.
      settings: {dotted field: value} of both.
    """
    run = registry.parse(name)
    if any(SLACK in those for those in (run.sweep.base, run.variant.diff, settings, point)):
        raise UserError(f"--match=params sets {SLACK}, which {name} or the command line sets too; leave one out")

    def count(width):
        return flops.parameter_count(registry.get_config(name, {**settings, **point, SLACK: width}).model)

    variant = registry.get_config(name, settings).model
    wanted, width = flops.parameter_count(variant), variant.d_ff
    if each := count(width + 1) - count(width):
        width += round((wanted - count(width)) / each)
    if width < 1 or abs(count(width) - wanted) > TOLERANCE * wanted:
        told = ", ".join(f"{symbol(field)}={value}" for field, value in point.items())
        raise UserError(f"--match=params: no {SLACK} gives {name} with {told} the {wanted:,} parameters of the variant")
    return {**point, SLACK: width}

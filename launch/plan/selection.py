"""Selection of a command line: the arguments that say which runs, and the rows that they select.

No text is read, no configuration resolved but where a point of a grid needs to know which components a row has.
"""

import argparse
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import tx.config
from experiments import points, registry
from launch import assignments, matching
from tx import cli, components, plugins
from tx.errors import UserError


class Row(NamedTuple):
    """A registered variant (SWEEP/VARIANT@SCALE), or a point around it ({dotted field: value})."""

    name: str
    point: Mapping[str, object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say which runs; they are the same wherever the runs happen.

    An engine whose runs are made on accelerators sets `accelerated`, for `launch.dispatch` to choose.
    """
    parser.set_defaults(accelerated=False)
    parser.add_argument("selector", nargs="+", help="table3@smoke, 'table3/A/*@smoke' or table3/A/h=1@smoke")
    parser.add_argument("--workdir", type=_folder, default="runs", help="folder for all runs (default: %(default)s)")
    parser.add_argument(plugins.OPTION, metavar="FILE", help=plugins.HELP)
    parser.add_argument(
        "--seeds",
        default="1",
        metavar="K|K,L",
        help="seeds 1 to K of every variant; with --tune, the K fresh seeds 2 to K+1 (default: 1). With a comma, "
        "exactly those: --seeds=3,4, or --seeds=7, for seed 7 alone",
    )
    parser.add_argument(
        "--only",
        action="extend",
        type=lambda globs: globs.split(","),  # no name of a variant has a comma
        metavar="GLOB[,GLOB]",
        help="only these variants, e.g. 'A/*,big'; repeatable",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="for every run; repeatable",
        dest="settings",
    )
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="FIELD=V1,V2",
        help="the product of all --grid around every variant selected, each point a variant of its own, and, without "
        "--only, the base once; values are taken as they are, whatever the scale; repeatable. Fields that go together "
        "make one axis: --grid model.num_heads,model.d_k=1:64,2:32,4:16",
    )
    parser.add_argument(
        "--match",
        choices=("params",),
        help="give every point of --grid the d_ff with which it has as many parameters as its variant, within "
        f"{100 * matching.TOLERANCE:g} per cent",
    )
    parser.add_argument(
        "--tune",
        action="append",
        default=[],
        metavar="FIELD=V1,V2",
        help="run every variant selected, the base too, at each of these values with seed 1, then at the one of the "
        "lowest dev loss with fresh seeds; repeatable, for the product",
    )


def _folder(path: str) -> pathlib.Path:
    try:
        return pathlib.Path(os.path.abspath(cli.path(path)))
    except FileNotFoundError:
        raise UserError(f"--workdir={path}: the folder that this was started in is gone; start from another") from None


def select(args: argparse.Namespace) -> list[Row]:
    """Returns the variants that parsed arguments select, each at every point of --grid, a grid's after its base.

    Differences are from the base. With --only there is what was named, and no more. Raises UserError as `plan.make`.
    """
    found, bases = [], {}
    for row in _named(args):
        run = registry.parse(row.name)
        sweep, base = (run.sweep.name, run.scale.label), Row(run._replace(variant=run.sweep.variants[0]).name, {})
        if args.grid and not args.only and sweep not in bases:
            bases[sweep] = base
            found.append(base)
        if row != bases.get(sweep):  # a point may be the base: none of its fields means anything to it
            found.append(row)
    return found


def _named(args):
    """Returns the variants that parsed arguments name, each at every point of --grid."""
    assignments.seeds(args)
    names = list(dict.fromkeys(name for pattern in args.selector for name in registry.select(pattern)))
    asked = assignments.given(args)
    globs, around = args.only or [], points.combine(asked.axes)
    if args.match and not asked.axes:
        raise UserError(f"--match={args.match} is for the points of a grid; give --grid, or leave it out")
    selected, missed = [], set(globs)
    for name in names:
        variant = registry.parse(name).variant.name
        for point in _that_belong(name, around, asked.settings):
            met = {glob for glob in globs if points.matches(variant, points.name(variant, point), glob)}
            missed -= met
            if met or not globs:
                matched = args.match and point  # the variant itself has the size that others are made to have
                selected.append(Row(name, matching.match_parameters(name, point, asked.settings) if matched else point))
    if missed:
        known = ", ".join(dict.fromkeys(registry.parse(name).variant.name for name in names))
        raise UserError(f"--only={min(missed, key=globs.index)} is none of: {known}")
    return selected


def left_out(args: argparse.Namespace) -> list[str]:
    """Returns a line for each field of --grid that variants selected leave out, as their components make no use of it.

    Raises UserError as `plan.make`.
    """
    grid, notes = {field for axis in assignments.given(args).axes for field in axis[0]}, []
    read = {field: readers for field in sorted(grid) if (readers := components.readers(field))}
    rows = _named(args) if read else []
    for field, (choosing, those) in read.items():
        without = [row for row in rows if field not in row.point]
        if without:
            names = dict.fromkeys(points.name(registry.parse(row.name).variant.name, row.point) for row in without)
            does = "belongs" if components.owners(field) else "means something"
            whose = f"it {does} to {choosing}={' or '.join(those)}"
            notes.append(f"note: --grid {field} is left out of {', '.join(names)}: {whose}")
    return notes


def fields_of_components(run: registry.Run, given: Mapping[str, object]) -> dict[str, object]:
    """Returns {dotted field: value} of a run with the components, and nothing else, of some {dotted field: value}."""
    choices = {field: value for field, value in given.items() if components.chooses(field)}
    return tx.config.fields(registry.assemble(*run, choices))


def _that_belong(name, around, settings):
    """Returns the points of a grid around a variant, each once, without fields that its components make no use of."""
    if not any(components.readers(field) for field in {field for point in around for field in point}):
        return around
    run, known, found = registry.parse(name), {}, {}

    def unread(point):
        choices = tuple((f, v) for f, v in (settings | point).items() if components.chooses(f))
        if choices not in known:
            known[choices] = fields_of_components(run, dict(choices))
        return {f for f in point if f not in known[choices] or components.is_unread(f, known[choices])}

    for point in around:
        while without := unread(point):  # what is left out may have chosen others
            point = {f: v for f, v in point.items() if f not in without}
        found.setdefault(tuple(point.items()), point)
    return list(found.values())

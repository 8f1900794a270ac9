"""Plan of a launch: the runs that a command line asks for, the folder of each, and what is already there.

Every configuration is resolved and validated here, before anything starts. No text is read, nothing compiled.
"""

import argparse
import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import ml_collections

import tx.config
from experiments import points, registry
from experiments.scales import PAPER
from launch import assignments, dispatch, matching
from tx import cli, components, plugins
from tx.errors import UserError
from tx.model import flops
from tx.runs import run_config, state
from tx.runs.run_config import Request
from tx.runs.run_dir import RunDir
from tx.runs.state import RunState


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """Planned run of a sweep.

    Attributes:
      name: SWEEP/VARIANT@SCALE, the variant extended by what --grid or --tune sets ("table3/base+num_heads=2@smoke").
      registered: the registered name that it starts from.
      sweep: SWEEP@SCALE.
      seed: from 1.
      config: the resolved configuration.
      folder: the run's files.
      state: what is there already.
      trained_in: the folder of the run whose parameters it takes; None where it is trained itself.
      point: {dotted field: value} of --grid or --tune, in the order of its axes.
    """

    name: str
    registered: str
    sweep: str
    seed: int
    config: ml_collections.ConfigDict
    folder: RunDir
    state: RunState
    trained_in: RunDir | None = None
    point: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def read_again(self) -> "PlannedRun":
        """Returns it with the state that its folder has now."""
        return dataclasses.replace(self, state=_state(self.folder, self.config.to_dict()))

    @property
    def label(self) -> str:
        """The name and the seed, for people."""
        return f"{self.name} seed {self.seed}"

    @property
    def params(self) -> int:
        return flops.parameter_count(self.config.model)

    @property
    def flops(self) -> float:
        return 0.0 if self.trained_in else flops.training_flops(self.config)

    @property
    def checkpoints(self) -> set[int]:
        """The steps that it has checkpoints of."""
        return set(self.folder.checkpoint_steps())

    def hand_over(self) -> None:
        """Writes the configuration into the folder, where `python -m tx.train` finds it.

        Raises UserError where that cannot be written, or holds another configuration by now.
        """
        self.folder.create()
        run_config.hand_over(Request(self.config, self.folder, self.trained_in))


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
    return pathlib.Path(os.path.abspath(cli.path(path)))


class Row(NamedTuple):
    """A registered variant (SWEEP/VARIANT@SCALE), or a point around it ({dotted field: value})."""

    name: str
    point: Mapping[str, object]


def make(args: argparse.Namespace) -> list[PlannedRun]:
    """Returns the runs that parsed arguments ask for, --tune aside; variants as in their table, seeds together.

    Raises UserError for an unknown or empty selection, an impossible configuration, two runs in one folder.
    """
    return runs_of(_with_base(select(args), args), assignments.seeds(args), args)


def _with_base(rows: Sequence[Row], args: argparse.Namespace) -> list[Row]:
    """Returns the rows, those of each sweep after its base where they are a grid: differences are from that.

    With --only there is what was named, and no more.
    """
    found, sweeps = [], set()
    for row in rows:
        run = registry.parse(row.name)
        base = run._replace(variant=run.sweep.variants[0])
        if args.grid and not args.only and (run.sweep.name, run.scale.label) not in sweeps:
            sweeps.add((run.sweep.name, run.scale.label))
            found.append(Row(base.name, {}))
        found.append(row)
    return found


def select(args: argparse.Namespace) -> list[Row]:
    """Returns the variants that parsed arguments select, each at every point of --grid; UserError as `make`."""
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
                selected.append(
                    Row(name, matching.match_parameters(name, point, asked.settings) if args.match else point)
                )
    if missed:
        known = ", ".join(dict.fromkeys(registry.parse(name).variant.name for name in names))
        raise UserError(f"--only={min(missed, key=globs.index)} is none of: {known}")
    return selected


def left_out(args: argparse.Namespace) -> list[str]:
    """Returns a line for each field of --grid that variants selected leave out, since their components have none such.

    Raises UserError as `make`.
    """
    grid, notes = {field for axis in assignments.given(args).axes for field in axis[0]}, []
    owned = {field: owners for field in sorted(grid) if (owners := components.owners(field))}
    rows = select(args) if owned else []
    for field, (choosing, those) in owned.items():
        without = [row for row in rows if field not in row.point]
        if without:
            names = dict.fromkeys(points.name(registry.parse(row.name).variant.name, row.point) for row in without)
            whose = f"it belongs to {choosing}={' or '.join(those)}"
            notes.append(f"note: --grid {field} is left out of {', '.join(names)}: {whose}")
    return notes


def _that_belong(name, around, settings):
    """Returns the points of a grid around a variant, each once, without the fields of components that it has not."""
    if not any(components.owners(field) for point in around for field in point):
        return around
    run, found = registry.parse(name), []
    for point in around:
        choices = {f: v for f, v in (settings | point).items() if f in components.choosing_fields()}
        config = registry.assemble(*run, choices)
        if (whole := {f: v for f, v in point.items() if not tx.config.is_missing(config, f)}) not in found:
            found.append(whole)
    return found


def runs_of(rows: Iterable[Row], seeds: Sequence[int], args: argparse.Namespace) -> list[PlannedRun]:
    """Returns the runs of some seeds of each row, and the trainings that they take parameters of; UserError as `make`.

    Args:
      rows: in the order of the runs.
      seeds: of each.
      args: what else is asked for: --set and --workdir.
    """
    plan = functools.partial(
        _runs_of_row,
        seeds=seeds,
        settings=assignments.given(args).settings,
        workdir=args.workdir,
        accelerated=args.accelerated,
    )
    runs = [run for row in rows for run in plan(row)]
    for folder, count in collections.Counter(run.folder.path for run in runs).items():
        if count > 1:
            raise UserError(f"{count} of the runs asked for would share {folder}; launch them one by one")
    return _with_trainings(runs, plan)


def _with_trainings(runs, plan) -> list[PlannedRun]:
    """Adds the trainings that runs take parameters of.

    Of variants that differ in decoding or in what is measured alone, the first of the sweep is trained, and the others
    take its parameters. It is added where it was not asked for; `plan` makes the runs of a row.
    """
    found, rows, trainings, said = {run.folder.path: run for run in runs}, {}, {}, {}
    for run in runs:
        rows.setdefault(run.name, []).append(run)
    for name, those in rows.items():
        parsed, first = registry.parse(those[0].registered), those[0]
        around = name != first.registered  # a point of a grid, which only its own variant can train for
        for variant in [parsed.variant] if around else _trained_alike(parsed, said):
            training = parsed._replace(variant=variant).name
            if training not in trainings:
                made = those if training == name else plan(Row(training, {}))
                trainings[training] = {one.seed: one for one in made}
            trainer = trainings[training][first.seed]
            if trainer is first or _training(trainer) == _training(first):
                break
        else:
            continue  # a point of a grid that trains otherwise
        if all(first.config[group] == trainer.config[group] for group in ("decode", "probe")):
            continue
        for run in those:
            trainer = trainings[training][run.seed]
            found.setdefault(trainer.folder.path, trainer)
            found[run.folder.path] = dataclasses.replace(run, trained_in=trainer.folder)
    return list(found.values())


def _trained_alike(run: registry.Run, known: dict[str, list]) -> list[registry.Variant]:
    """Returns the variants up to a run's own whose diffs say the same of all but decoding, itself the last.

    Args:
      known: what they say by sweep and scale, filled here: it is asked for every row.
    """
    variants, key = run.sweep.variants, f"{run.sweep.name}@{run.scale.label}"
    if key not in known:
        known[key] = [_diff_of_training(run.sweep, variant) for variant in variants]
    own = variants.index(run.variant)
    return [variant for variant, said in zip(variants[: own + 1], known[key], strict=False) if said == known[key][own]]


def _diff_of_training(sweep, variant):
    said = tx.config.training_fields({**sweep.base, **variant.diff})
    return {field: value for field, value in said.items() if PAPER.get(field) != value}


def _training(run):
    return tx.config.training_fields(run.config) | {"train.seed": 0}


def _runs_of_row(row, seeds, settings, workdir, accelerated) -> list[PlannedRun]:
    run = registry.parse(row.name)
    variant = dataclasses.replace(run.variant, name=points.name(run.variant.name, row.point))
    full, sweep = run._replace(variant=variant).name, f"{run.sweep.name}@{run.scale.label}"
    row_config = registry.resolve(run.sweep, variant, run.scale, settings | row.point | {"train.seed": seeds[0]})
    fields, planned = tx.config.fields(row_config), []
    for seed in seeds:
        folder, each = RunDir(workdir / sweep / variant.name / f"seed{seed}"), row_config.train.steps_per_dispatch
        if accelerated:
            each = dispatch.updates(row_config, settings.keys() | row.point.keys(), folder)
        config = _of_seed(row_config, seed, each)
        found = _state(folder, fields | {"train.seed": seed, "train.steps_per_dispatch": each})
        planned.append(PlannedRun(full, row.name, sweep, seed, config, folder, found, point=row.point))
    return planned


def _of_seed(row: ml_collections.ConfigDict, seed: int, updates: int) -> ml_collections.ConfigDict:
    """Returns the configuration of a seed of a row, which is resolved once: thousands of runs are seeds of few rows.

    All sections but the one that differs are the row's own; nobody changes those of a run that is planned.
    """
    config = ml_collections.ConfigDict(row)  # its sections are not copied
    with config.unlocked():
        config.train = row.train.copy_and_resolve_references()
    config.train.seed, config.train.steps_per_dispatch = seed, updates
    return config.lock()


def _state(folder, config):
    return state.of(folder, functools.partial(_describe_changes, config))


def arguments(runs: Sequence[PlannedRun]) -> list[str]:
    """Returns the arguments with which `python -m tx.train` makes runs side by side, once they are handed over."""
    return [str(run.folder.path) for run in runs]


def _describe_changes(wanted, found):
    return ", ".join(tx.config.describe_differences(found, wanted, "{field} {stored} -> {current}", "(absent)"))


def refuse_clashes(runs: Sequence[PlannedRun]) -> None:
    """Raises UserError if any run's folder holds another configuration: nothing may start then."""
    if clashes := [run for run in runs if run.state.clash]:
        first, more = clashes[0], len(clashes) - 1
        raise UserError(
            f"{first.folder.path} holds another configuration: {first.state.reason}"
            f"{f' (and {more} more runs)' if more else ''}; choose another --workdir, or delete that folder"
        )

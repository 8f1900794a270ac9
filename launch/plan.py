"""Which runs a command line asks for, where each one's folder is, and what is already there.

Every configuration is resolved and validated here, before anything starts. No text is read, nothing compiled.
"""

import argparse
import collections
import dataclasses
import fnmatch
import itertools
import json
import os
import pathlib
import re
from collections.abc import Sequence

import ml_collections

import tx.config
from experiments import registry
from launch import states
from launch.states import State
from tx import extensions, flops
from tx.errors import UserError
from tx.run import RunDir, to_json

_OWNED = {  # fields that --set and --grid may not touch, and why
    "name": "the launcher names the runs",
    "version": "it belongs to the code",
    "train.seed": "use --seeds=K for seeds 1 to K",
}


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
      name: SWEEP/VARIANT@SCALE, the variant extended by what --grid sets ("table3/base+num_heads=2@smoke").
      registered: the registered name that it starts from.
      sweep: SWEEP@SCALE.
      overrides: {dotted field: typed value} on top of the registered configuration, seed and name apart.
      seed: from 1.
      config: the resolved configuration.
      folder: the run's files.
      state: what is there already.
      trained_in: the folder of the run whose parameters it takes; None where it is trained itself.
    """

    name: str
    registered: str
    sweep: str
    overrides: dict[str, object]
    seed: int
    config: ml_collections.ConfigDict
    folder: RunDir
    state: State
    trained_in: RunDir | None = None

    @property
    def label(self) -> str:
        """For people: the name, and the seed."""
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
        folder = self.folder.checkpoints
        return {int(path.name) for path in folder.iterdir() if path.name.isdigit()} if folder.is_dir() else set()

    def arguments(self) -> list[str]:
        """The command line of `python -m tx.train` that makes this run, from any working directory."""
        config = pathlib.Path(registry.__file__).resolve().with_name("config.py")
        overrides = self.overrides | {"train.seed": self.seed}
        if self.name != self.registered:
            overrides["name"] = self.name
        return [
            f"--config={config}:{self.registered}",
            f"--workdir={self.folder.path}",
            *([f"--trained_in={self.trained_in.path}"] if self.trained_in else []),
            *(f"--config.{field}={_as_text(value)}" for field, value in overrides.items()),
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say which runs; they are the same wherever the runs happen."""
    parser.add_argument("selector", nargs="+", help="table3@smoke, 'table3/A/*@smoke' or table3/A/h=1@smoke")
    parser.add_argument("--workdir", type=_folder, default="runs", help="folder for all runs (default: %(default)s)")
    parser.add_argument(extensions.OPTION, metavar="FILE", help=extensions.HELP)
    parser.add_argument("--seeds", type=int, default=1, metavar="K", help="seeds 1 to K of every variant (default: 1)")
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
        help="the product of all --grid around every variant selected, each point a variant of its own; "
        "values are taken as they are, whatever the scale; repeatable",
    )


def _folder(path: str) -> pathlib.Path:
    return pathlib.Path(os.path.abspath(os.path.expanduser(path)))


def make(args: argparse.Namespace) -> list[PlannedRun]:
    """Returns the runs that parsed arguments ask for, variants in the order of their table, seeds together.

    Raises UserError for an unknown or empty selection, an impossible configuration, two runs in one folder.
    """
    if args.seeds < 1:
        raise UserError(f"--seeds must be at least 1; got {args.seeds}")
    settings = {field: value for field, (value,) in _assignments("--set", args.settings, single=True).items()}
    grid = _assignments("--grid", args.grid)
    if both := sorted(settings.keys() & grid.keys()):
        raise UserError(f"{both[0]} is given to --set and to --grid; leave one out")
    names = list(dict.fromkeys(name for pattern in args.selector for name in registry.select(pattern)))
    globs = args.only or []
    runs, missed = [], set(globs)
    for name, *values in itertools.product(names, *grid.values()):
        point = dict(zip(grid, values, strict=True))
        variant = registry.parse(name).variant.name
        called = (variant, _extended(variant, point))
        met = {glob for glob in globs if any(fnmatch.fnmatchcase(one, glob) for one in called)}
        missed -= met
        if met or not globs:
            runs += _around(name, point, settings, args)
    if missed:
        known = ", ".join(dict.fromkeys(registry.parse(name).variant.name for name in names))
        raise UserError(f"--only={min(missed, key=globs.index)} is none of: {known}")
    for folder, count in collections.Counter(run.folder.path for run in runs).items():
        if count > 1:
            raise UserError(f"{count} of the runs asked for would share {folder}; launch them one by one")
    return _with_trainings(runs, settings, args)


def _with_trainings(runs, settings, args) -> list[PlannedRun]:
    """Of variants that differ in decoding alone, the first of the sweep is trained, and the others take its parameters.

    It is added where it was not asked for.
    """
    found, trainings = {run.folder.path: run for run in runs}, {}
    for run in runs:
        parsed = registry.parse(run.registered)
        around = run.name != run.registered  # a point of a grid, which only its own variant can train for
        for variant in [parsed.variant] if around else parsed.sweep.variants:
            name = parsed._replace(variant=variant).name
            if name not in trainings:
                planned = _around(name, {}, settings, args)
                trainings[name] = {one.seed: (one, _training(one)) for one in planned}
            trainer, key = trainings[name][run.seed]
            if key == _training(run):
                break
        else:
            continue  # a point of a grid that trains otherwise
        if run.config.decode != trainer.config.decode:
            found.setdefault(trainer.folder.path, trainer)
            found[run.folder.path] = dataclasses.replace(run, trained_in=trainer.folder)
    return list(found.values())


def _training(run):
    return tx.config.training_fields(run.config)


def _around(name, point, settings, args) -> list[PlannedRun]:
    """The seeds of one variant at one point of the grid."""
    run = registry.parse(name)
    variant = dataclasses.replace(run.variant, name=_extended(run.variant.name, point))
    full, sweep = run._replace(variant=variant).name, f"{run.sweep.name}@{run.scale.label}"
    planned = []
    for seed in range(1, args.seeds + 1):
        overrides = settings | point
        config = registry.resolve(run.sweep, variant, run.scale, overrides | {"train.seed": seed})
        folder = RunDir(args.workdir / sweep / variant.name / f"seed{seed}")
        planned.append(
            PlannedRun(full, name, sweep, overrides, seed, config, folder, states.of(folder, _changes(config)))
        )
    return planned


def arguments(runs: Sequence[PlannedRun]) -> list[str]:
    """The command line of `python -m tx.train` that makes runs side by side."""
    return [text for run in runs for text in ("--and", *run.arguments())][1:]


def groups(runs: Sequence[PlannedRun], most: int | None = None) -> list[list[PlannedRun]]:
    """Returns what is to run, in one group what can train side by side in one program, the longest group first.

    Runs that were begun go together only where they have a checkpoint in common, since a group goes on from there:
    so none of them starts anew because of another.

    Args:
      runs: any; what is finished is left out.
      most: the largest group; None for any size.
    """
    alike = collections.defaultdict(list)  # program -> [(runs, checkpoints in common)]
    alone = [[run] for run in runs if run.trained_in and not run.state.finished]
    for run in (run for run in runs if not run.state.finished and not run.trained_in):
        found, steps = alike[to_json(_program(run, most))], run.checkpoints
        for i, (group, common) in enumerate(found):
            if len(group) != most and (common & steps or not common | steps):
                found[i] = ([*group, run], common & steps)
                break
        else:
            found.append(([run], steps))
    made = alone + [group for found in alike.values() for group, _ in found]
    return sorted(made, key=lambda group: -sum(run.flops for run in group))


def _program(run, most):
    if most == 1:
        return run.label
    from tx.step import program  # slow to import, and not needed to run one by one

    return program(run.config)


def _changes(config):
    wanted = json.loads(to_json(config.to_dict()))  # as it comes back from a file

    def changes(found):
        changed = tx.config.differences(found, wanted)
        return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed.items())

    return changes


def refuse_clashes(runs: Sequence[PlannedRun]) -> None:
    """Raises UserError if any run's folder holds another configuration: nothing may start then."""
    if clashes := [run for run in runs if run.state.clash]:
        first, more = clashes[0], len(clashes) - 1
        raise UserError(
            f"{first.folder.path} holds another configuration: {first.state.why}"
            f"{f' (and {more} more runs)' if more else ''}; choose another --workdir, or delete that folder"
        )


def _assignments(flag: str, texts: Sequence[str], single: bool = False) -> dict[str, list]:
    """Reads "FIELD=VALUE" (or "FIELD=V1,V2,...") into {field: typed values}, fields in alphabetical order.

    The order of the command line is forgotten, so that it cannot give one point of a grid two names.
    """
    found = {}
    for text in texts:
        field, equals, values = text.partition("=")
        if not equals or not values:
            raise UserError(f"{flag} takes FIELD=VALUE{'' if single else ',VALUE,...'}; got {text!r}")
        if field in _OWNED:
            raise UserError(f"{flag} cannot change {field}: {_OWNED[field]}")
        if field in found:
            raise UserError(f"{flag} is given {field} twice; give it once")
        parsed = []
        for value in [values] if single else values.split(","):
            probe = tx.config.get_config()
            tx.config.update(probe, {field: value}, flag)
            parsed.append(tx.config.fields(probe)[field])
        found[field] = list(dict.fromkeys(parsed))
    return dict(sorted(found.items()))


def _extended(variant: str, point: dict[str, object]) -> str:
    """The name of a grid's point: "base+num_heads=2"; the dotted field where its last part is not unique."""
    leaves = collections.Counter(field.rpartition(".")[2] for field in tx.config.fields(tx.config.get_config()))
    parts = []
    for field, value in point.items():
        leaf = field.rpartition(".")[2]
        # Values become folder names and parts of a run's name.
        safe = re.sub(r"[^A-Za-z0-9_.+-]", "-", _as_text(value).removesuffix(".0"))
        parts.append(f"{leaf if leaves[leaf] == 1 else field}={safe}")
    return variant + ("+" + ",".join(parts) if parts else "")


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

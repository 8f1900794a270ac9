"""Plan of a launch: the runs that a command line asks for, the folder of each, and what is already there.

Every configuration is resolved and validated here, before anything starts. No text is read, nothing compiled.
"""

import argparse
import collections
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

import ml_collections

import tx.config
from experiments import points, registry
from experiments.scales import PAPER
from launch import assignments, dispatch
from launch.plan import selection
from launch.plan.selection import Row
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


def make(args: argparse.Namespace) -> list[PlannedRun]:
    """Returns the runs that parsed arguments ask for, --tune aside; variants as in their table, seeds together.

    Raises UserError for an unknown or empty selection, an impossible configuration, two runs in one folder.
    """
    return runs_of(selection.select(args), assignments.seeds(args), args)


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

"""Results of a sweep's folder: every row's runs, done, failed or unfinished, read from their JSON files."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ml_collections import ConfigDict

import tx.config
from experiments import launches, points, registry, tuning
from experiments.launches import AskedRow
from experiments.points import short
from experiments.registry import Scale, Sweep, Variant
from experiments.report import meaning, placement
from experiments.tuning import Asked
from tx import components
from tx.errors import UserError
from tx.renamed_fields import names_of
from tx.runs import state
from tx.runs.result import RunResult
from tx.runs.run_dir import RunDir
from tx.runs.state import RunState

Computed = TypeVar("Computed")
# What a run is called and which of the seeds it is do not make it another experiment.
NOT_COMPARED = frozenset({"name", "train.seed"})
# The scores of a test split (tx/evaluation/scores.py) that tables show, and their titles.
KINDS = {
    "bleu": "sacreBLEU",
    "bleu_tokenized": "tokenised",
    "bleu_compound": "compounds split",
    "bleu_lower": "lower case",
    "chrf": "chrF",
}


@dataclasses.dataclass(frozen=True)
class SeedRun:
    """Run of one seed, and its folder.

    Attributes:
      path: the folder ".../seedK".
      seed: K.
      state: as its files tell it (`tx.runs.state.read`).
      result: what result.json says where done, else None.
      stale: where done, one phrase for each field that differs from what the run's name means now.
    """

    path: pathlib.Path
    seed: int
    state: RunState
    result: RunResult | None = None
    stale: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
    """Row of the table: a variant, its changed fields at this scale, and its runs by seed.

    Attributes:
      variant: registered, or made up from the folder's name for a run that no sweep registers.
      diff: {dotted field: value} against the sweep's base at this scale.
      runs: sorted by seed; empty where nothing was started.
      now: what its name means today, {dotted field: value}; None where only its runs know.
      free: the fields of it that a run may have otherwise.
      asked: what launches asked for, where they say; then `now` is that.
      launched: the configuration of a point of a grid that was launched; None of other rows.
    """

    variant: Variant
    diff: dict[str, object]
    runs: tuple[SeedRun, ...]
    now: dict[str, object] | None = None
    free: frozenset[str] = frozenset()
    asked: AskedRow | None = None
    launched: ConfigDict | None = None

    @property
    def label(self) -> str:
        """Its name in tables, the fields of a point in the order of the grid's axes."""
        return self.asked.label if self.asked else self.variant.name

    @property
    def group(self) -> str:
        """Part of the name before the first slash: "A" of "A/h=1"; of a grid's point, that of the variant around it."""
        return self.label.partition("+")[0].partition("/")[0]

    @functools.cached_property
    def measured(self) -> dict[object, object]:
        """What was measured of its runs so far, by measure: tables ask for the same again and again."""
        return {}

    @property
    def results(self) -> list[RunResult]:
        return [run.result for run in self.runs if run.result]

    def changes(self, config: dict) -> tuple[str, ...]:
        """Returns a phrase for each field in which a run's configuration is not what the row's name means today."""
        return _changes(config, self.now, self.free)


@dataclasses.dataclass(frozen=True)
class Results:
    """Results of one SWEEP@SCALE.

    Attributes:
      rows: the registered variants in order, the base first, then the others by name.
      folders: the SWEEP@SCALE folders that were read.
      tunings: of rows, as they were asked for.
      points: a row for each point of their grids; none of these is among `rows`.
      complete: whether every folder says what was asked for.
      only: globs, as `launch.local` takes them, of the rows to show; all where there are none.
    """

    sweep: Sweep
    scale: Scale
    rows: tuple[Row, ...]
    folders: tuple[pathlib.Path, ...]
    tunings: tuple[Asked, ...] = ()
    points: tuple[Row, ...] = ()
    complete: bool = False
    only: tuple[str, ...] = ()

    @functools.cached_property
    def _computed(self) -> dict[Callable, object]:
        return {}

    def once(self, compute: Callable[["Results"], Computed]) -> Computed:
        """Returns what a function makes of it, computed at the first call: every row's cells may ask for the same."""
        if compute not in self._computed:
            self._computed[compute] = compute(self)
        return self._computed[compute]

    @functools.cached_property
    def shown(self) -> tuple[Row, ...]:
        """The rows that a table shows: those that were asked for or begun, and that `only` means.

        Where a folder does not say what was asked for, every row was.
        """
        rows = (row for row in self.rows if row.asked or row.runs or not self.complete)
        return tuple(row for row in rows if self.means(row.variant.name, row.asked))

    @functools.cached_property
    def axes(self) -> tuple[str, ...]:
        """The fields of the grids that the rows shown are points of, in the order given."""
        return tuple(dict.fromkeys(field for row in self.shown if row.asked for field in row.asked.point))

    @property
    def beside_paper(self) -> bool:
        """Whether rows stand in the paper: of a grid others than its base, which is there for differences."""
        rows = self.shown[1:] if self.axes and self.shown[0] is self.rows[0] else self.shown
        return any(row.variant.paper for row in rows)

    def means(self, name: str, asked: AskedRow | None = None) -> bool:
        """Returns whether a row is to be shown by `only`."""
        return not self.only or any(meant(glob, name, asked) for glob in self.only)

    @property
    def name(self) -> str:
        """SWEEP@SCALE."""
        return f"{self.sweep.name}@{self.scale.label}"

    def name_of(self, row: Row) -> str:
        """Returns SWEEP/VARIANT@SCALE."""
        return f"{self.sweep.name}/{row.variant.name}@{self.scale.label}"

    def seeds(self, row: Row) -> list[int]:
        """Returns the seeds that `row` should have: those asked for, else those of all rows of its kind.

        A point of a tuning should have the seed of the grid, and the fresh ones if it is chosen.
        """
        if row.variant.name in self._runs_of_points:
            chosen = [asked for asked, choice in self.choices if choice.point == row.variant.name]
            return sorted({tuning.SEED, *(seed for asked in chosen for seed in asked.seeds)})
        if row.asked:
            return sorted({*row.asked.seeds, *(run.seed for run in row.runs)})
        return self._seeds_by_kind[row.variant.name in self._registered]

    @functools.cached_property
    def _registered(self):
        return frozenset(variant.name for variant in self.sweep.variants)

    @functools.cached_property
    def _seeds_by_kind(self):
        """{whether registered: the seeds that any row of the kind has, of those that nobody asked for}."""
        seeds = {True: set(), False: set()}
        for row in self.rows:
            if not row.asked:
                seeds[row.variant.name in self._registered].update(run.seed for run in row.runs)
        return {kind: sorted(found) for kind, found in seeds.items()}

    @functools.cached_property
    def choices(self) -> list[tuple[Asked, tuning.Choice]]:
        """What each tuning has chosen."""
        return [(asked, tuning.choose(asked, self.losses(asked))) for asked in self.tunings]

    def losses(self, asked: Asked) -> dict[str, float | None]:
        """Returns {point of a tuning's grid: dev loss}, as `tuning.choose` takes it."""
        return {point: loss_of(self._runs_of_points.get(point, {}).get(tuning.SEED)) for point in asked.points}

    @functools.cached_property
    def _runs_of_points(self):
        return {row.variant.name: {run.seed: run for run in row.runs} for row in self.points}

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """Rows that a table shows, then the points of tunings: without `only`, every run of the folders is in one."""
        return (*self.shown, *self.points)

    @functools.cached_property
    def done(self) -> list[RunResult]:
        """Every result of every row of the table."""
        return [result for row in self.shown for result in row.results]


def read(
    dirs: Iterable[pathlib.Path],
    only: Sequence[str] = (),
    left_out: list[UserError] | None = None,
    abridged: bool = False,
) -> list[Results]:
    """Reads every SWEEP@SCALE folder that is, or lies in, one of `dirs`; folders of one name make one table.

    Args:
      dirs: workdirs or SWEEP@SCALE folders.
      only: globs of the rows to show; [] for all.
      left_out: gets the errors of sweeps that cannot be read, so that the others are; none where no sweep can be.
      abridged: leave out what results say of each sentence, step and head (`RunResult.abridged`).

    Raises UserError for a folder that is missing or holds no sweep, and a glob of `only` that means no row; and,
    without `left_out`, for an unknown sweep or scale, and a run found twice.
    """
    folders: dict[str, list[pathlib.Path]] = {}
    for directory in dirs:
        for folder in _sweep_folders(directory):
            same_name = folders.setdefault(folder.resolve().name, [])
            if folder.resolve() not in [other.resolve() for other in same_name]:
                same_name.append(folder)
    read, errors = [], []
    for name, found in sorted(folders.items()):
        try:
            read.append(dataclasses.replace(_results(name, found, abridged), only=tuple(only)))
        except UserError as error:
            errors.append(UserError(f"{', '.join(map(str, found))}: {error}" if len(folders) > 1 else str(error)))
    if errors and (left_out is None or not read):
        raise errors[0]
    if left_out is not None:
        left_out += errors
    for glob in only:
        rows = [(row.variant.name, row.asked) for one in read for row in one.rows]
        rows += [(asked.row, None) for one in read for asked in one.tunings]
        if not any(meant(glob, *row) for row in rows):
            raise UserError(f"--only={glob} is none of: {', '.join(dict.fromkeys(name for name, _ in rows))}")
    return read


def refuse(left_out: list[UserError]) -> None:
    """Raises UserError, in one line, for the sweeps that could not be read, if any, when the others are through."""
    if left_out:
        more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise UserError(f"left out: {left_out[0]}{more}")


def meant(glob: str, name: str, asked: AskedRow | None = None) -> bool:
    """Returns whether a glob of --only means a row; a point of a grid is also meant by the name of its variant."""
    return points.matches(asked.variant if asked else name.partition("+")[0], name, glob)


def _sweep_folders(directory: pathlib.Path) -> list[pathlib.Path]:
    if not directory.is_dir():
        raise UserError(f"no folder {directory}; give a sweep's --workdir or a SWEEP@SCALE folder in it")
    found = sorted(child for child in directory.iterdir() if "@" in child.name and child.is_dir())
    if not found and "@" in directory.resolve().name:  # no variant's name has one, but a work folder's may
        return [directory]
    if not found:
        raise UserError(f"{directory} holds no SWEEP@SCALE folder; give the --workdir of a sweep")
    return found


def _results(name: str, folders: list[pathlib.Path], abridged: bool) -> Results:
    sweep, scale = registry.parse_sweep(name)
    read_one = functools.partial(read_run, abridged=abridged)
    launched = launches.read(folders)
    paths: dict[str, dict[int, pathlib.Path]] = {variant.name: {} for variant in sweep.variants}
    for folder in folders:
        for variant, seed, path in _run_folders(folder, ""):
            other = paths.setdefault(variant, {}).setdefault(seed, path)
            if other != path:
                raise UserError(f"{name}: {variant} seed {seed} is in {other} and in {path}; leave one out")
    tunings = _tunings(folders)
    of_base = meaning.asked_of_base(sweep, launched, bool(paths[sweep.variants[0].name]))
    base = meaning.meaning(sweep, scale, sweep.variants[0], of_base) or registry.base_config(sweep, scale)
    before = meaning.fields(base, of_base)
    registered = [variant.name for variant in sweep.variants]
    tried = sorted({point for asked in tunings for point in asked.points}.difference(registered))

    @functools.cache
    def resolved(place):  # of the points of a grid, which may be hundreds, all ask for one variant
        return registry.resolve(sweep, sweep.variants[place], scale)

    def extra(name):
        return _extra_row(sweep, scale, name, paths.get(name, {}), before, launched.rows.get(name), read_one, resolved)

    rows = [
        _row(sweep, scale, one, paths[one.name], base, launched.rows.get(one.name), read_one) for one in sweep.variants
    ]
    if not rows[0].asked:  # what the others are held against, though nobody asked for it
        rows[0] = dataclasses.replace(rows[0], now=before)
    names = dict.fromkeys([*launched.rows, *sorted(paths)])
    elsewhere = {*registered, *tried}
    rows += [extra(name) for name in names if name not in elsewhere]
    tables = tuple(folders), tuple(tunings), tuple(map(extra, tried))
    return Results(sweep, scale, tuple(rows), *tables, complete=launched.complete)


def _tunings(folders: list[pathlib.Path]) -> list[Asked]:
    """Returns the tunings that any of the folders asks for; UserError where two ask for one row in different ways."""
    found: dict[tuple, tuple[Asked, pathlib.Path]] = {}
    for folder in folders:
        for asked in tuning.read(folder):
            other, there = found.setdefault(asked.key, (asked, folder))
            if other != asked:
                raise UserError(f"{asked.row} is tuned in {there} and otherwise in {folder}; leave one out")
    return [asked for asked, _ in found.values()]


def _run_folders(
    folder: pathlib.Path, variant: str, above: frozenset[pathlib.Path] = frozenset()
) -> Iterable[tuple[str, int, pathlib.Path]]:
    """Yields (variant, seed, path) of every VARIANT/seedK; a run's own subfolders are not read."""
    above |= {folder.resolve()}
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        match = re.fullmatch(r"seed(\d+)", child.name)
        if match and variant:
            yield variant, int(match[1]), child
        elif child.resolve() not in above:  # a link may lead back up
            yield from _run_folders(child, f"{variant}/{child.name}".removeprefix("/"), above)


def _row(sweep, scale, variant, paths, base, asked, read_one):
    launched = meaning.meaning(sweep, scale, variant, asked)
    config = launched or registry.resolve(sweep, variant, scale)
    now = meaning.fields(config, asked if launched else None)
    runs = tuple(read_one(path, seed, now) for seed, path in sorted(paths.items()))
    misplaced = functools.partial(placement.of_other_row, f"{sweep.name}/{variant.name}@{scale.label}")
    runs = tuple(_in_place(run, misplaced) for run in runs)
    return Row(variant, registry.diff(config, base), runs, now, asked=asked)


def _extra_row(sweep, scale, name, paths, before, asked, read_one, resolved):
    """Returns the row of a variant that is not registered: "base+num_heads=2" is `base` but for the fields it names.

    Where a launch says what it is, it is that. What another name means only its runs know, so that none is stale.
    """
    start, _, named_points = name.partition("+")
    start = asked.variant if asked else start
    named = {point.partition("=")[0] for point in named_points.split(",")}
    place = next((i for i, variant in enumerate(sweep.variants) if variant.name == start), None)
    launched = meaning.meaning(sweep, scale, sweep.variants[place], asked) if place is not None and asked else None
    config = launched or (resolved(place) if place is not None else None)
    now = meaning.fields(config, asked if launched else None) if config else None
    known = {*now, *components.known_fields()} if now else ()  # a point may choose components that the variant does not
    of_name = frozenset(field for field in known if any(named & {f, short(f)} for f in names_of(field)))
    free = frozenset() if launched else of_name
    runs = tuple(read_one(path, seed, now, free) for seed, path in sorted(paths.items()))
    runs = tuple(_in_place(run, functools.partial(placement.of_other_point, name, of_name)) for run in runs)
    config = now if launched else next(filter(None, map(_configuration, runs)), before)
    changed = tx.config.differences(config, before, "absent")
    there = {field for field in changed if field in before or field.count(".") > 1}  # else it is a field no more
    diff = {field: changed[field][0] for field in changed if field in there - NOT_COMPARED}
    return Row(Variant(name), diff, runs, now, free, asked, launched)


def read_run(
    path: pathlib.Path,
    seed: int,
    now: dict[str, object] | None = None,
    free: Iterable[str] = (),
    abridged: bool = False,
) -> SeedRun:
    """Reads one run; `now` is what its name means today ({dotted field: value}), the fields `free` aside."""
    found, result = state.read(RunDir(path))
    result = result.abridged() if result and abridged else result
    return SeedRun(path, seed, found, result, _changes(result.config, now, free) if result else ())


def _in_place(run: SeedRun, misplaced: Callable[[RunResult], RunState | None]) -> SeedRun:
    """Returns a run; failed, and without a result, where that is a copy of another's."""
    found = misplaced(run.result) if run.result else None
    return dataclasses.replace(run, state=found, result=None, stale=()) if found else run


def _changes(config: dict, now: dict[str, object] | None, free: Iterable[str]) -> tuple[str, ...]:
    if now is None:
        return ()
    apart = NOT_COMPARED.union(free, meaning.unjudged(config, now))
    return tuple(tx.config.describe_differences(config, now, apart=apart))


def loss_of(run: SeedRun | None) -> float | None:
    """Returns the dev loss of a run, in nats a subword; `tuning.FAILED` where it failed, None where it is not done.

    A result that is damaged, or a copy of another's, says nothing of the run: that is not done.
    """
    if run and run.result:
        return float(run.result.dev.nll)
    return tuning.FAILED if run and run.state.name == "failed" and not run.state.finished else None


def _configuration(run: SeedRun) -> dict[str, object]:
    """Returns the configuration of a run in any state, from result.json or config.json; {} where there is none."""
    try:
        return tx.config.fields(run.result.config if run.result else RunDir(run.path).read("config")["config"])
    except UserError:
        return {}

"""Reading of results: from the folders of sweeps to `results.Results`, one for each SWEEP@SCALE."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence

import tx.config
from experiments import launches, registry, tuning
from experiments.points import short
from experiments.registry import Variant
from experiments.report import meaning, placement
from experiments.report.results import NOT_COMPARED, Results, Row, SeedRun, changes, meant
from experiments.scales import EVERY
from experiments.tuning import Asked
from tx import components
from tx.errors import UserError
from tx.renamed_fields import names_of
from tx.runs import state
from tx.runs.result import RunResult
from tx.runs.run_dir import RunDir
from tx.runs.state import RunState


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
    asked_for = {name for name, row in launched.rows.items() if not row.tuned}  # a grid may have the same points

    @functools.cache
    def resolved(place):  # of the points of a grid, which may be hundreds, all ask for one variant
        return registry.resolve(sweep, sweep.variants[place], scale)

    @functools.cache
    def extra(name):
        return _extra_row(sweep, scale, name, paths.get(name, {}), before, launched.rows.get(name), read_one, resolved)

    rows = [
        _row(sweep, scale, one, paths[one.name], base, launched.rows.get(one.name), read_one) for one in sweep.variants
    ]
    if not rows[0].asked:  # what the others are held against, though nobody asked for it
        rows[0] = dataclasses.replace(rows[0], now=before)
    names = dict.fromkeys([*launched.rows, *sorted(paths)])
    elsewhere = {*registered, *set(tried).difference(asked_for)}
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
    implied = set(EVERY).difference(asked.point if asked else ()) if "train.steps" in changed else set()
    diff = {field: changed[field][0] for field in changed if field in there - NOT_COMPARED - implied}
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
    return SeedRun(path, seed, found, result, changes(result.config, now, free) if result else ())


def _in_place(run: SeedRun, misplaced: Callable[[RunResult], RunState | None]) -> SeedRun:
    """Returns a run; failed, and without a result, where that is a copy of another's."""
    found = misplaced(run.result) if run.result else None
    return dataclasses.replace(run, state=found, result=None, stale=()) if found else run


def _configuration(run: SeedRun) -> dict[str, object]:
    """Returns the configuration of a run in any state, from result.json or config.json; {} where there is none."""
    try:
        return tx.config.fields(run.result.config if run.result else RunDir(run.path).read("config")["config"])
    except UserError:
        return {}

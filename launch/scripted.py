"""Launches from Python: `launch.sweep(...)` in a script or a notebook."""

import dataclasses
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence

from experiments import points
from experiments.report import main_table, reading, tables
from launch import local
from tx.errors import INTERRUPTED_STATUS, UserError
from tx.runs.result import RunResult


@dataclasses.dataclass(frozen=True)
class Launched:
    """What a launch has made; a notebook shows its tables.

    Attributes:
      folders: SWEEP@SCALE folders, the tables in them; none of a dry run.
      failed: whether a run failed.
    """

    folders: tuple[pathlib.Path, ...]
    failed: bool

    def results(self) -> list[RunResult]:
        """Returns the results of all runs that are done, rows in the order of their table."""
        return [result for found in reading.read(self.folders) for result in found.done]

    def tables(self) -> list[tables.Table]:
        """Returns the main table of each sweep."""
        return [main_table.build(found) for found in reading.read(self.folders)]

    def _repr_markdown_(self):
        return "\n".join(map(tables.to_markdown, self.tables()))


def sweep(
    *selectors: str,
    workdir: str | os.PathLike = "runs",
    only: str | Sequence[str] = (),
    set: Mapping[str, object] | None = None,
    grid: Mapping[str | tuple[str, ...], Sequence] | None = None,
    tune: Mapping[str, Sequence] | None = None,
    seeds: int | Sequence[int] = 1,
    imports: Sequence[str | os.PathLike] = (),
    **options: object,
) -> Launched:
    """Runs a sweep on this machine, and returns when it is done; what is done already is not done again.

    Every argument is an option of `python -m launch.local`, whose help says more. A run is a process of its own, which
    knows of your components and sweeps what the files of `imports` say; a script that is one itself launches below
    `if __name__ == "__main__":`.

    Args:
      selectors: "table3@smoke", "table3/A/*@smoke" or "table3/A/h=1@smoke".
      workdir: folder for all runs.
      only: globs of the variants, e.g. "A/*".
      set: {field: value} for every run.
      grid: {field: values}, each point a variant of its own; {(field, field): [(value, value), ...]} for fields that
        go together.
      tune: {field: values} that every variant is tuned over.
      seeds: how many; of a list exactly those.
      imports: Python files with components or sweeps of your own.
      options: the others by name, e.g. jobs=2, stack=True, match="params", dry_run=True.

    Raises UserError for what the caller has to mend, KeyboardInterrupt where it is interrupted; a run that fails makes
    the result `failed`.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UserError("launch.sweep takes signals, which only the main thread can; call it from there")
    flags = {"workdir": os.fspath(workdir), "seeds": _seeds(seeds)} | options
    argv = [*selectors, *_arguments(flags)]
    argv += [f"--only={glob}" for glob in ([only] if isinstance(only, str) else only)]
    argv += [f"--import={os.fspath(path)}" for path in imports]
    argv += [f"--set={field}={points.text(value)}" for field, value in (set or {}).items()]
    argv += [f"--grid={_axis('grid', fields, values)}" for fields, values in (grid or {}).items()]
    argv += [f"--tune={_axis('tune', field, values)}" for field, values in (tune or {}).items()]
    made = []

    def report(folders):
        made.extend(folders)
        local.report(folders)

    status = local.main.__wrapped__(argv, report=report)  # undecorated: errors are raised, the process does not end
    if status == INTERRUPTED_STATUS:
        raise KeyboardInterrupt
    return Launched(tuple(made), failed=status != 0)


def _arguments(flags):
    """Returns options as a command line has them; one that is True has no value, one that is False or None is not."""
    given = {name: value for name, value in flags.items() if value is not None and value is not False}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]


def _seeds(seeds):
    return str(seeds) if isinstance(seeds, int) else "".join(f"{seed}," for seed in seeds)


def _axis(name, fields, values):
    """Returns an axis as --grid and --tune take it; UserError for a value that would be read as several.

    Args:
      name: of the argument.
    """
    several = not isinstance(fields, str)
    axis = [[points.text(value) for value in (point if several else [point])] for point in values]
    for value in (value for point in axis for value in point):
        if wrong := next((mark for mark in ",:"[: 1 + several] if mark in value), ""):
            raise UserError(
                f"{name}: {value!r} of {', '.join(fields) if several else fields} has {wrong!r}, which separates "
                "values; launch it apart, with `set`, in a workdir of its own"
            )
    return f"{','.join(fields) if several else fields}={','.join(map(':'.join, axis))}"

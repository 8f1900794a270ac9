"""Trials: what of a run goes to another tool, from its result.json, metrics.jsonl and error.json."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence

import tx.config
from experiments import frames
from experiments.report.results import Results
from experiments.report.row_status import word_for
from experiments.report.symbols import changes, in_order
from tx.runs.run_dir import RunDir


@dataclasses.dataclass(frozen=True)
class Trial:
    """Run, as it is exported.

    Attributes:
      sweep: SWEEP@SCALE.
      row, seed: which run of it.
      group: SWEEP/VARIANT@SCALE; the seeds of a row share it.
      path: the run's folder.
      state, error: done, failed or begun; of one that failed, why.
      diff: what its row changes, in one line.
      varied: {dotted field: value} of the fields in which rows differ.
      config: every field of its configuration.
      metrics: {name: number}, scores and costs; empty where it is not done.
      curve: (step, seconds since 1970, {name: number}) of what it logged.
      began, ended: seconds since 1970, by its files.
    """

    sweep: str
    row: str
    seed: int
    group: str
    path: pathlib.Path
    state: str
    error: str
    diff: str
    varied: dict[str, object]
    config: dict[str, object]
    metrics: dict[str, float]
    curve: tuple[tuple[int, float, dict[str, float]], ...]
    began: float
    ended: float

    @property
    def digest(self) -> str:
        """Digest of what is exported, by which a run that was exported already is told from one that went on."""
        told = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return hashlib.sha256(repr(told).encode()).hexdigest()


def read(dirs: frames.Dirs, only: str | Sequence[str] = ()) -> tuple[list[Trial], pathlib.Path]:
    """Returns every run in folders, and the workdir of the first of them; UserError as `frames.load`."""
    found = frames.read(dirs, only)
    fields = in_order({field for one in found for row in one.all_rows for field in row.diff})
    trials = [_trial(one, row, run, fields) for one in found for row, run in frames.runs(one)]
    return trials, found[0].folders[0].absolute().parent


def _trial(found: Results, row, run, fields) -> Trial:
    result, began, ended = run.result, *_times(run)
    measured = frames.scores(found, result) | frames.costs(result) if result else {}
    config = tx.config.fields(result.config) if result else {**(row.now or {}), **row.diff}
    return Trial(
        sweep=found.name,
        row=row.variant.name,
        seed=run.seed,
        group=found.name_of(row),
        path=run.path,
        state=word_for(run.state),
        error=run.state.reason if run.state.name == "failed" else "",
        diff=changes(row.diff),
        varied={field: value for field, value in frames.values(row, run, fields).items() if value is not None},
        config={field: value for field, value in config.items() if value is not None},
        metrics={name: float(value) for name, value in measured.items() if isinstance(value, int | float)},
        curve=tuple(_steps(found, row, run, began, ended)),
        began=began,
        ended=ended,
    )


def _steps(found, row, run, began, ended):
    lines = list(frames.curve(found, row, run, full=True))
    last = max((line["step"] for line in lines), default=1)
    for line in lines:
        values = {name: line[name] for name in frames.LOGGED if line[name] is not None}
        when = line.get("time") or began + (ended - began) * line["step"] / last  # a result has no clock
        yield line["step"], when, values


def _times(run):
    """Returns when a run began and ended: its result.json was written at its end."""
    folder = RunDir(run.path)
    file = next((f for f in (folder.result, folder.error, folder.config) if f.exists()), run.path)
    ended = file.stat().st_mtime
    return ended - (run.result.timing.total_s if run.result else 0.0), ended

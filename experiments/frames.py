"""Runs as pandas data frames: `load`, one line a run, and `curves`, one line a logged step of a run.

Tables show means over seeds; here is what they are means of, for questions that no table asks.
"""

import os
from collections.abc import Iterable, Iterator, Sequence

import tx.config
from experiments.report import flags, own_metrics, reading
from experiments.report.metrics import BLEU, EXACT, NAMED, NLL, PPL
from experiments.report.results import KINDS, Results, Row, SeedRun
from experiments.report.row_status import word_for
from experiments.report.symbols import changes, in_order
from tx import components
from tx.fields import FIELDS
from tx.files import expanded
from tx.runs import imports
from tx.runs.metrics_log import read_metrics
from tx.runs.result import RunResult
from tx.runs.run_dir import RunDir

Dirs = str | os.PathLike | Iterable[str | os.PathLike]
LOGGED = ("loss", "nll", "grad_norm", "lr", "dev_nll", "dev_ppl")  # the columns that every frame of curves has


def load(dirs: Dirs, only: str | Sequence[str] = ()):
    """Returns a pandas.DataFrame of the runs in folders, a line each, whatever became of it.

    Columns: what the run is (`sweep`, `scale`, `row`, `group`, `seed`, `name`, `path`, and `diff`, its changes in one
    line); a column for each field that any row changes, by its dotted name, with the value of every run; what became of
    it (`state`: done, failed or begun, `error`, `stale`, and of its row `unfinished` and `flags`, as the table has
    them); its scores (`log_ppl` in nats a subword, `ppl`, `bleu`, `chrf` and the like, `exact_percent`, the measures of
    the sweep, and `probe.NAME` for each metric of probe.metrics); its costs (`params`, `steps`, `target_tokens`,
    `flops`, seconds, `device_hours`). What a run does not have is missing there.

    Args:
      dirs: a workdir or SWEEP@SCALE folder, or several.
      only: a glob of rows, or several, e.g. ["A/*", "big"]; [] for all.

    Raises UserError as `experiments.report.reading.read`.
    """
    import pandas as pd  # slow to import

    found = read(dirs, only)
    fields = in_order({field for one in found for row in one.all_rows for field in row.diff})
    return pd.DataFrame([line for one in found for row in one.all_rows for line in _lines(one, row, fields)])


def curves(dirs: Dirs, only: str | Sequence[str] = (), full: bool = False):
    """Returns a pandas.DataFrame of the learning curves of the runs in folders, a line for each step of a run.

    Columns: `sweep`, `scale`, `row`, `seed`, `step`; `loss` (which is trained on), `nll`, `grad_norm` and `lr` of the
    training; `dev_nll` and `dev_ppl`; `target_tokens` and `flops` until that step, in proportion to those of the whole
    run, where it is done. A run that is done has the thinned curve of its result.json, another what it has logged.

    Args:
      dirs, only: as `load` takes them.
      full: read every line that the runs logged, where metrics.jsonl is there, and their clocks (`time`, in seconds
        since 1970, and tokens a second).

    Raises UserError as `load`, and for a metrics.jsonl that is damaged.
    """
    import pandas as pd  # slow to import

    lines = [line for one in read(dirs, only) for row, run in runs(one) for line in curve(one, row, run, full)]
    return pd.DataFrame(lines, columns=None if lines else ["sweep", "scale", "row", "seed", "step", *LOGGED])


def read(dirs: Dirs, only: str | Sequence[str] = ()) -> list[Results]:
    """Returns the results in folders; imports what they were launched with, as commands do."""
    alone = isinstance(dirs, str | os.PathLike)
    paths = [expanded(one) for one in ([dirs] if alone else dirs)]
    imports.recall(paths)
    return reading.read(paths, [only] if isinstance(only, str) else only)


def runs(found: Results) -> Iterator[tuple[Row, SeedRun]]:
    """Yields every run of a sweep with its row, those of tunings last."""
    return ((row, run) for row in found.all_rows for run in row.runs)


def identity(found: Results, row: Row, run: SeedRun) -> dict[str, object]:
    """Returns what a run is: the columns that `load` and `curves` share."""
    return {"sweep": found.sweep.name, "scale": found.scale.label, "row": row.label, "seed": run.seed}


def scores(found: Results, result: RunResult) -> dict[str, float | None]:
    """Returns the scores of a run by column; None for those that it does not have."""
    kinds = {kind: getattr(result.scores, kind) if result.translated else None for kind in KINDS if kind != "bleu"}
    measures = {name: NAMED[name].of(result) for name in found.sweep.measures}
    known = {"log_ppl": NLL.of(result), "ppl": PPL.of(result), "bleu": BLEU.of(result), **kinds}
    own = {own_metrics.column(name): measure.of(result) for name, measure in own_metrics.measures([result]).items()}
    return {**known, "exact_percent": EXACT.of(result), **measures, **own}


def costs(result: RunResult) -> dict[str, object]:
    """Returns the costs of a run by column."""
    timing, train = result.timing, result.train
    return {
        "params": result.params,
        "steps": train.steps,
        "epochs": train.epochs,
        "target_tokens": train.target_tokens,
        "flops": train.flops,
        "train_s": timing.train_s,
        "decode_s": timing.decode_s,
        "total_s": timing.total_s,
        "device": result.device.kind,
        "device_hours": result.device_hours,
    }


def values(row: Row, run: SeedRun, fields: Iterable[str]) -> dict[str, object]:
    """Returns {dotted field: value} of a run: of its own configuration where it is done, else of its row's.

    A field of every run that came after this one was made had its default there; one of a component is None.
    """
    if not run.result:
        known = {**(row.now or {}), **row.diff}
        return {field: known.get(field) for field in fields}
    known = tx.config.fields(run.result.config)
    return {field: known[field] if field in known else _default(field) for field in fields}


def _default(field):
    return FIELDS[field].default if field in FIELDS and not components.owners(field) else None


def _lines(found, row, fields):
    """Yields the line of each run of a row."""
    judged = {
        "unfinished": bool(row.results) and flags.unfinished(row, found),
        "flags": ", ".join(word for word, _ in flags.of(row, found)) if row.results else "",
    }
    for run in row.runs:
        result = run.result
        yield {
            **identity(found, row, run),
            "group": row.group,
            "name": found.name_of(row),
            "diff": changes(row.diff),
            **values(row, run, fields),
            "state": word_for(run.state),
            "error": run.state.reason if run.state.name == "failed" else None,
            "stale": bool(run.stale),
            **judged,
            **(scores(found, result) if result else {}),
            **(costs(result) if result else {}),
            "code": result.code if result else None,
            "path": str(run.path),
        }


def curve(found: Results, row: Row, run: SeedRun, full: bool) -> Iterator[dict[str, object]]:
    """Yields the lines of a run as `curves` has them, those of one step put together."""
    result = run.result
    logged = read_metrics(RunDir(run.path)) if full or result is None else []
    merged: dict[int, dict] = {}
    for line in logged or (result.curve if result else None) or ():
        told = {**line, **(line.get("timing", {}) if full else {})}
        at = merged.setdefault(int(line["step"]), dict.fromkeys(LOGGED))
        at |= {name: value for name, value in told.items() if name not in ("step", "timing")}
    for step, line in sorted(merged.items()):
        share = step / result.train.steps if result else None
        spent = {name: result and getattr(result.train, name) * share for name in ("target_tokens", "flops")}
        yield {**identity(found, row, run), "step": step, **line, **spent}

"""Learning curves of rows: mean and range over the seeds at each step, thinned for a page."""

import collections
import math
import statistics
from collections.abc import Callable, Iterable

from experiments.report.results import Results, Row, SeedRun
from tx.errors import UserError
from tx.runs.metrics_log import read_metrics
from tx.runs.run_dir import RunDir

POINTS = 60  # at most, of a curve
KINDS = {"train": "nll", "dev": "dev_nll"}  # both in nats a target subword, without label smoothing
AXES = {"step": "step", "tokens": "target tokens", "flops": "training FLOPs", "hours": "hours of training"}
_PER_STEP = {
    "tokens": lambda result: result.train.target_tokens / result.train.steps,
    "flops": lambda result: result.train.flops / result.train.steps,
    "hours": lambda result: result.timing.train_s / 3600 / result.train.steps,
}
_DIGITS = 4  # significant


def of(found: Results, kind: str) -> list[dict[str, object]]:
    """Returns the curves of the rows shown that have one, for `charts`.

    Each is {"row", "seeds", "step", "mean", "low", "high": lists, "tokens", "flops", "hours": of a step}. The last
    three are means over the row's runs that are done, None where none is.

    Args:
      found: the results.
      kind: one of KINDS.
    """
    return [curve for row in found.shown if (curve := _of_row(row, KINDS[kind]))]


def _of_row(row: Row, key: str) -> dict[str, object] | None:
    at = collections.defaultdict(list)
    lines = [_lines(run) for run in row.runs]
    for of_run in lines:
        for line in of_run:
            if (value := line.get(key)) is not None and math.isfinite(value) and value > 0:
                at[line["step"]].append(value)
    if not at:
        return None
    steps = thinned(sorted(at))
    return {
        "row": row.label,
        "seeds": sum(any(key in line for line in of_run) for of_run in lines),
        "step": steps,
        "mean": rounded(statistics.fmean(at[step]) for step in steps),
        "low": rounded(min(at[step]) for step in steps),
        "high": rounded(max(at[step]) for step in steps),
        **{name: _mean_over(row, per_step) for name, per_step in _PER_STEP.items()},
    }


def _lines(run: SeedRun) -> Iterable[dict[str, float]]:
    """Returns what is known of a run's losses: of one that is not done, what its log says by now."""
    if run.result:
        return run.result.curve or ()
    folder = RunDir(run.path)
    try:
        return read_metrics(folder) if folder.metrics.exists() else ()
    except (UserError, OSError):
        return ()


def thinned(steps: list[int]) -> list[int]:
    """Returns at most POINTS of some steps, as evenly as they come, the first and the last among them."""
    if len(steps) <= POINTS:
        return steps
    return [steps[round(i * (len(steps) - 1) / (POINTS - 1))] for i in range(POINTS)]


def rounded(values: Iterable[float | None]) -> list[float | None]:
    """Returns numbers as a page carries them, to as many digits as a picture can show; None stays."""
    return [None if value is None else float(f"{value:.{_DIGITS}g}") for value in values]


def _mean_over(row: Row, per_step: Callable) -> float | None:
    values = [per_step(result) for result in row.results if result.train.steps]
    return rounded([statistics.fmean(values)])[0] if values else None

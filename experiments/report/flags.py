"""Flags of a row whose runs did not come out as a comparison wants them: unfinished, on the plateau, over-fitted.

Each is judged from result.json alone; what an old result does not say gives no flag. The noise that a change of dev
loss is held against is its standard deviation between seeds: the row's own, or that of the sweep's other rows, pooled.
"""

import math
from collections.abc import Callable

from experiments.report.metrics import is_diverged
from experiments.report.noise import pooled
from experiments.report.results import Results, Row
from experiments.scales import PAPER
from tx.runs.result import RunResult

LAST_PART = 0.2  # of the training: where dev loss still falls, a row has not finished
# On the plateau is a row whose source explains less of its loss than this share of what it explains in the row where it
# explains most. N=8 at scale smoke is at 36% with post-norm, and gets no sentence right; with pre-norm at 99%.
PLATEAU = 0.5
USED = 0.1  # of the loss without the source: where no row's source explains so much, there is nothing to learn from it
_ONE = PAPER["model.architecture"]  # there was, before there were several


def of(row: Row, sweep: Results) -> list[tuple[str, str]]:
    """Returns (flag, footnote) pairs for the cell that says what became of a row."""
    flags = []
    if still_descending(row, sweep):
        flags.append(_meant("still descending"))
    stuck = sum(_stuck(row, sweep))
    if stuck:
        flag, note = _meant("on the plateau")
        flags.append((flag if stuck == len(row.results) else f"{stuck} {flag}", note))
    if over_fitted(row, sweep):
        rose = _ROSE.format(", on average over the seeds," if len(row.results) > 1 else "")
        flags.append(("over-fitted", f"Over-fitted: the dev loss was lowest at step {_best_steps(row)}{rose}"))
    return flags + [("equal seeds", f"Equal seeds: {twins}{_EQUAL}") for twins in _equal_seeds(row)]


def _meant(flag):
    return flag, f"{flag.capitalize()}: {OF_ROWS[flag]}"


def _equal_seeds(row):
    """Yields "seeds 3 and 4" for runs of a row whose training and dev losses are the same to the last digit."""
    alike = {}
    for run in row.runs:
        if run.result and (losses := (run.result.train.final_loss, run.result.dev.nll))[0] is not None:
            alike.setdefault(losses, []).append(str(run.seed))
    for seeds in alike.values():
        if len(seeds) > 1:
            yield f"seeds {', '.join(seeds[:-1])} and {seeds[-1]}"


def unfinished(row: Row, sweep: Results, beside: Results | None = None) -> bool:
    """Returns whether a row cannot be judged by its numbers: training too short, or stuck, or its grid too narrow.

    Args:
      row: any row; a tuned one over its fresh seeds.
      sweep: what it is of, grids included.
      beside: whose rows it is compared with: those tuned too of a tuned one; by default the sweep's.
    """
    beside = beside or sweep
    return still_descending(row, beside) or on_plateau(row, beside) or at_edge(row, sweep)


OF_ROWS = {  # what a flag means, where a line says it of several rows
    "still descending": f"over the last {LAST_PART:.0%} of the training the dev loss fell by more than one standard "
    "deviation between seeds. Longer training would change the row.",
    "on the plateau": f"the source takes off less than {PLATEAU:.0%} of the share of the dev loss that it takes off in "
    "the row where that is most (beside the loss with the encoder's output zeroed): the model has hardly learned to "
    "use it.",
    "over-fitted": "the dev loss was lowest before the end, where it was, on average over a row's seeds, more than one "
    "standard deviation between seeds above that.",
}
_ROSE = ", and at the end it was{} more than one standard deviation between seeds above that."
_EQUAL = (
    " have the same training and dev losses to the last digit, which different seeds do not: they may be one run, "
    "counted several times, and then ± is too small."
)


def still_descending(row: Row, sweep: Results) -> bool:
    """Returns whether the dev loss fell over the last fifth of the training, on average, by more than the noise."""
    return _exceeds_noise(_gain, row, sweep)


def over_fitted(row: Row, sweep: Results) -> bool:
    """Returns whether the last dev loss is above the lowest, on average by more than the noise: a result, no fault."""
    return _exceeds_noise(_rise, row, sweep)


def on_plateau(row: Row, sweep: Results) -> bool:
    """Returns whether a model of the row is one of the target language alone, beside a row that uses the source.

    Without another row it cannot be told from a corpus whose source says nothing.
    """
    return any(_stuck(row, sweep))


def at_edge(row: Row, sweep: Results) -> bool:
    """Returns whether a row is one tuned, at the least or greatest value of its grid: a better may lie beyond."""
    if row.asked and not row.asked.tuned:  # a plain row, though it may be the same point
        return False
    paths = {run.path for run in row.runs}
    return bool(paths) and any(paths <= runs for runs in sweep.once(_runs_at_edges))


def _runs_at_edges(sweep):
    """Returns the folders of the runs of each point that a tuning has chosen at the edge of its grid."""
    paths = {point.variant.name: {run.path for run in point.runs} for point in sweep.points}
    return [paths.get(choice.point, set()) for _, choice in sweep.choices if choice.edges]


def noise(row: Row, sweep: Results) -> float | None:
    """Returns the standard deviation of dev loss between seeds, in nats: the row's or pooled; None where unknown.

    A seed that diverged says nothing of how far the others lie apart.
    """
    own = _losses(row)
    return pooled([own]) if len(own) > 1 else sweep.once(_pooled)


def _pooled(sweep: Results) -> float | None:
    """Returns the standard deviation between seeds that all rows have in common; None where unknown.

    Of rows that diverged only where there are no others: after few steps every row does worse than chance.
    """
    rows = [row for row in sweep.rows if not all(map(is_diverged, row.results))] or sweep.rows
    return pooled([losses for losses in map(_losses, rows) if len(losses) > 1])


def _exceeds_noise(change: Callable[[RunResult], float | None], row: Row, sweep: Results) -> bool:
    mean, spread = _mean(change, row), noise(row, sweep)
    return mean is not None and spread is not None and mean > spread


def _mean(number: Callable[[RunResult], float | None], row: Row) -> float | None:
    """Returns the mean of a number over the results that a row is judged by; None where none has it."""
    if (key := (_judged, number)) not in row.measured:
        known = [value for value in map(number, _judged(row)) if value is not None]
        row.measured[key] = sum(value / len(known) for value in known) if known else None  # of huge ones, overflow
    return row.measured[key]


def _judged(row):
    """Returns the results of a row that have not diverged; all of them where every one has."""
    return [result for result in row.results if not is_diverged(result)] or row.results


def _losses(row):
    """Returns the dev losses that a row is judged by, those that are finite."""
    return [loss for loss in (_finite(result.dev.nll) for result in _judged(row)) if loss is not None]


def _gain(result):
    """Returns the fall of dev loss from the last evaluation before the last fifth of the training to the last one."""
    curve = evaluations(result)
    before = [loss for step, loss in curve if step <= (1 - LAST_PART) * result.train.steps]
    return before[-1] - curve[-1][1] if before else None


def _rise(result):
    curve = evaluations(result)
    return curve[-1][1] - min(loss for _, loss in curve) if curve else None


def _best_steps(row):
    """Returns the step of the lowest dev loss, or the first and last of the seeds', of all steps."""
    best = [min(curve, key=lambda point: point[1])[0] for curve in map(evaluations, _judged(row)) if curve]
    ends = dict.fromkeys(f"{step:,.0f}" for step in (min(best), max(best)))
    return f"{' to '.join(ends)} of {max(result.train.steps for result in row.results):,}"


def evaluations(result: RunResult) -> list[tuple[float, float]]:
    """Returns (step, dev loss) of every evaluation whose loss is finite, by step."""
    points = [(_finite(line.get("step")), _finite(line.get("dev_nll"))) for line in result.curve or ()]
    return sorted(point for point in points if None not in point)


def _stuck(row, sweep):
    """Returns for each of a row's results whether its model is on the plateau.

    What is left without the source is another thing for one stack, which is lost without it, than for a decoder whose
    encoder gives zeros: rows are compared with those of their architecture.
    """
    most = sweep.once(_most_explained).get(_architecture(row), 0.0)
    shares = map(_explained, row.results)
    return [most >= USED and share is not None and share < PLATEAU * most for share in shares]


def _most_explained(sweep: Results) -> dict[str | None, float]:
    """Returns {architecture: the largest share that the source takes off in a row of it}."""
    most: dict[str | None, float] = {}
    for row in sweep.rows:
        share, architecture = _mean(_explained, row), _architecture(row)
        if share is not None:
            most[architecture] = max(most.get(architecture, share), share)
    return most


def _architecture(row):
    """Returns the architecture of a row that has a result; of a result from before there were several, the one."""
    models = (result.config.get("model") for result in row.results)
    return next((one.get("architecture", _ONE) if isinstance(one, dict) else _ONE for one in models), None)


def _explained(result):
    """Returns the share of the dev loss without the source that the source takes off; None where unknown.

    Where only the last word is asked for, it is not the source that tells it.
    """
    loss, without = _finite(result.dev.nll), _finite(result.dev.nll_without_source)
    return 1 - loss / without if loss is not None and without and result.translated else None


def _finite(value):
    return float(value) if value is not None and math.isfinite(value) else None

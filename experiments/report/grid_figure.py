"""Figure of grids: a score along one axis as a curve with a band, over two axes as a heat map."""

import math
from collections.abc import Sequence

from experiments.report import grid as grids
from experiments.report import pictures
from experiments.report.grid import SHOWN, Axis, Grid, shown
from experiments.report.metrics import number
from experiments.report.noise import LEVEL, SCORES
from experiments.report.results import Results

_WRITTEN = 400  # cells of a heat map up to which each has its score written in it; of more nobody could read them
_TICKS = 40  # values written along an axis
_SPREAD = 8  # the largest number over the least from which an axis of numbers is logarithmic


def drawable(found: Results) -> list[Grid]:
    """Returns the grids of one or two axes with a result, for which there is a picture."""
    return [grid for grid in grids.of(found) if len(grid.axes) < 3 and heads_of([grid])]


def draw(found: Results):
    """Returns the picture as a matplotlib figure: a line of panels a grid, a panel a score."""
    import matplotlib
    from matplotlib.figure import Figure

    made = drawable(found)
    heads = heads_of(made)
    with matplotlib.rc_context(pictures.STYLE):
        tall = sum(map(_height, made))
        figure = Figure(figsize=(0.8 + 4.1 * len(heads), 0.6 + tall), layout="constrained")
        panels = figure.subplots(len(made), len(heads), squeeze=False)
        for line, grid in zip(panels, made, strict=True):
            for panel, head in zip(line, heads, strict=True):
                (_curve if len(grid.axes) == 1 else _heat)(panel, grid, head)
                panel.set_title(f"{grid.variant}: {head}", fontsize=9)
        figure.suptitle(
            f"{found.name}. Ring or frame: best; hollow or in parentheses: inside its noise ({LEVEL:.0%})", fontsize=9
        )
    return figure


def _height(grid):
    """Returns the inches of a line of panels: lower rows where nothing is written in them."""
    if len(grid.axes) == 1:
        return 2.6
    down, across = (len(axis.values) for axis in grid.axes)
    return 1.2 + (0.4 if down * across <= _WRITTEN else 0.15) * down


def heads_of(made: Sequence[Grid]) -> list[str]:
    """Returns the scores that any point of grids has, keys of `noise.SCORES`."""
    rows = [row for grid in made for row in grid.points.values()]
    return [head for head, measure in SCORES.items() if any(map(math.isfinite, _all(measure, rows)))]


def _all(measure, rows):
    return [value for row in rows for value in measure.values(row)]


def _curve(panel, grid: Grid, head: str) -> None:
    """Draws means over the seeds, a band of one standard deviation, the best point and its interval."""
    measure, best, (axis,) = SHOWN[head], grid.best(head), grid.axes
    numbers = numbers_of(axis)
    known = [(n, grid.points.get((value,))) for n, value in zip(numbers, axis.values, strict=True)]
    known = [(n, row) for n, row in known if row is not None and measure.values(row)]
    known = [(n, row) for n, row in known if math.isfinite(measure.mean(row))]
    at, means = [n for n, _ in known], [measure.mean(row) for _, row in known]
    spread = [measure.sd(row) or 0.0 for _, row in known]
    panel.fill_between(
        at,
        [mean - sd for mean, sd in zip(means, spread, strict=True)],
        [mean + sd for mean, sd in zip(means, spread, strict=True)],
        alpha=0.2,
        linewidth=0,
    )
    panel.plot(at, means, "-", linewidth=1.2)
    for (n, row), mean in zip(known, means, strict=True):
        close = best is not None and best.is_close(row.variant.name)
        panel.plot([n], [mean], "o", color="C0", mfc="white" if close else "C0", markersize=5)
        if best is not None and row.variant.name == best.row:
            panel.plot([n], [mean], "o", color="C3", mfc="none", markersize=11)
            if best.low is not None:
                ends = ([grids.as_shown(end, head)] for end in (best.low, best.high))
                panel.vlines([n], *ends, color="C3", linewidth=1.2)
    _scale(panel, axis, numbers)
    panel.set_xlabel(axis.title)


def numbers_of(axis: Axis) -> list[float]:
    """Returns where the values of an axis lie: at themselves if they are numbers, else side by side."""
    return [float(value[0]) if is_numeric(axis) else float(i) for i, value in enumerate(axis.values)]


def is_numeric(axis: Axis) -> bool:
    """Returns whether an axis is one field of numbers."""
    plain = [value[0] for value in axis.values]
    return len(axis.fields) == 1 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in plain)


def is_log(axis: Axis) -> bool:
    """Returns whether the numbers of an axis reach so far that they are to be read as ratios."""
    numbers = numbers_of(axis)
    return min(numbers) > 0 and max(numbers) >= _SPREAD * min(numbers)


def _scale(panel, axis: Axis, numbers: Sequence[float]) -> None:
    if is_log(axis):
        panel.set_xscale("log")
    panel.set_xticks(*_ticks(numbers, axis))
    panel.minorticks_off()


def _ticks(numbers: Sequence[float], axis: Axis) -> tuple[list[float], list[str]]:
    """Returns places on an axis and what is written there: every one, or as many as can be read."""
    every = -(-len(numbers) // _TICKS)
    return list(numbers)[::every], [shown(value) for value in axis.values[::every]]


def _heat(panel, grid: Grid, head: str) -> None:
    """Draws a cell for each point, its score in it; that of perplexity coloured by its logarithm."""
    import numpy as np
    from matplotlib.patches import Rectangle

    measure, best, (down, across) = SHOWN[head], grid.best(head), grid.axes
    colours = np.full((len(down.values), len(across.values)), np.nan)
    written = []
    for i, one in enumerate(down.values):
        for j, other in enumerate(across.values):
            row = grid.points.get((one, other))
            mean = SCORES[head].mean(row) if row else None
            if mean is None or not math.isfinite(mean):
                continue
            colours[i, j] = mean
            close = best is not None and best.is_close(row.variant.name)
            text = number(measure.mean(row), measure.form)
            written += [(j, i, f"({text})" if close else text)] if colours.size <= _WRITTEN else []
            if best is not None and row.variant.name == best.row:
                panel.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="C3", linewidth=2))
    shade = panel.imshow(colours, aspect="auto", cmap="viridis_r" if head == "PPL" else "viridis", alpha=0.55)
    if colours.size > _WRITTEN:
        panel.figure.colorbar(shade, ax=panel, label=f"log {head}" if head == "PPL" else head)
    for x, y, text in written:
        panel.text(x, y, text, ha="center", va="center")
    panel.set_xticks(*_ticks(range(len(across.values)), across))
    panel.set_yticks(*_ticks(range(len(down.values)), down))
    panel.set_xlabel(across.title)
    panel.set_ylabel(down.title)

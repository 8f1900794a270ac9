"""Grids of `launch.local --grid`, read as grids: axes, points, the best one and those that cannot be told from it.

The best of several looks better than it is, since chance had a part in which it was; and points that chance could have
put in its place are as good a choice. Those are the points whose difference from the best has a simultaneous interval
that holds zero (Dunnett's, two-sided, so that at least LEVEL of all such sets hold the point that is truly best: Gupta
1956, Hsu 1984).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.report import bootstrap, noise, power
from experiments.report.metrics import BLEU, PPL, exp, number
from experiments.report.noise import LEVEL, SCORES, Interval
from experiments.report.results import Results, Row
from experiments.report.symbols import show, symbol

BETTER = {"PPL": -1, "BLEU": 1}  # the sign of what is better
SHOWN = {"PPL": PPL, "BLEU": BLEU}  # of perplexity the logarithm is tested


class Axis(NamedTuple):
    """Axis of a grid.

    Attributes:
      fields: that vary along it; several where they go together.
      values: of the fields, a tuple for each place on it, numbers in their order.
    """

    fields: tuple[str, ...]
    values: tuple[tuple[object, ...], ...]

    @property
    def title(self) -> str:
        """The fields' symbols: "h", "h, d_k"."""
        return ", ".join(map(symbol, self.fields))


class Best(NamedTuple):
    """Best point of a grid by a score.

    Attributes:
      row: its name.
      mean: of its seeds.
      low, high: the ends of the mean's interval at LEVEL (Student's t, the spread that all points have in common); None
        where nothing tells the noise.
      differences: {row of another point: the interval of its score less the best's}.
      uneven: the least and the greatest spread, where the points share none (`noise.uneven`); None elsewhere.
    """

    row: str
    mean: float
    low: float | None
    high: float | None
    differences: Mapping[str, Interval]
    uneven: tuple[float, float] | None

    def is_close(self, row: str) -> bool:
        """Returns whether a point is inside the noise of the best."""
        return row in self.differences and not self.differences[row].sign


@dataclasses.dataclass(frozen=True)
class Grid:
    """Grid around a variant.

    Attributes:
      variant: its name.
      axes: that have two values or more, in the order in which they were given.
      points: {place on each axis: row}.
    """

    variant: str
    axes: tuple[Axis, ...]
    points: Mapping[tuple[tuple[object, ...], ...], Row]

    def best(self, head: str) -> Best | None:
        """Returns the best point by a score of `noise.SCORES`.

        None where no point has a finite one, or the points' are not of one text and one kind of subword.
        """
        if head not in self._known:
            self._known[head] = self._best(head)
        return self._known[head]

    @functools.cached_property
    def _known(self):
        return {}

    def _best(self, head):
        measure, rows = SCORES[head], list(self.points.values())
        if not noise.of_one_text(measure, *rows):
            return None
        samples = {row.variant.name: noise.comparable(row, measure) for row in rows}
        means = {name: sum(values) / len(values) for name, values in samples.items() if values}
        if not means:
            return None
        name = max(means, key=lambda name: BETTER[head] * means[name])
        half = _half(list(samples.values()), len(samples[name]))
        low, high = (None, None) if half is None else (means[name] - half, means[name] + half)
        others = {other: values for other, values in samples.items() if other != name}
        compared = noise.compare(
            samples[name], others, noise.paired(measure, *(row for row in rows if samples[row.variant.name]))
        )
        differences = self._differences(name, others, measure, compared.intervals)
        return Best(name, means[name], low, high, differences, compared.uneven)

    def _differences(self, best, others, measure, by_seeds):
        """Returns the intervals by the seeds; of BLEU of one seed those of the paired bootstrap over sentences."""
        found = dict(by_seeds)
        if measure is BLEU:
            rows = {row.variant.name: row for row in self.points.values()}
            rest = [row for name, row in rows.items() if others.get(name) and name not in found]
            drawn = bootstrap.bleu_intervals_of_each(rows[best], rest) if rest else {}
            found |= {name: one.interval for name, one in drawn.items()}
        return found


def of(found: Results) -> list[Grid]:
    """Returns the grids among the rows that a table shows, those that launches asked for, each with every axis."""
    return found.once(_grids)


def _grids(found):
    points: dict[tuple, list[Row]] = {}
    for row in found.shown:
        if row.asked and row.asked.point:
            points.setdefault((row.asked.variant, frozenset(row.asked.point)), []).append(row)
    grids = []
    for (variant, _), rows in points.items():
        if axes := _axes([row.asked.point for row in rows]):
            places = {tuple(_place(row.asked.point, axis.fields) for axis in axes): row for row in rows}
            grids.append(Grid(variant, axes, places))
    return grids


def _axes(points: Sequence[Mapping[str, object]]) -> tuple[Axis, ...]:
    """Returns the axes of points: fields whose values go together one to one are one, a constant field is none."""
    groups: list[list[str]] = []
    for field in points[0]:
        if len({point[field] for point in points}) < 2:
            continue
        group = next((g for g in groups if _together(points, g[0], field)), None)
        if group is None:
            groups.append(group := [])
        group.append(field)
    return tuple(Axis(tuple(g), _ordered({_place(point, g) for point in points})) for g in groups)


def _together(points, one, other):
    pairs = {(point[one], point[other]) for point in points}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _place(point, fields):
    return tuple(point[field] for field in fields)


def _ordered(places):
    """Returns places in the order of their numbers; of words, alphabetically."""
    return tuple(sorted(places, key=lambda place: [(isinstance(v, str), v) for v in place]))


def _half(samples, size):
    """Returns half the width of the interval of a mean of so many seeds; None where nothing tells the spread."""
    several = [values for values in samples if len(values) > 1]
    spread = noise.pooled(several)
    if not spread:
        return None
    from scipy.stats import t  # slow to import

    freedom = sum(len(values) - 1 for values in several)
    return float(t.ppf((1 + LEVEL) / 2, freedom)) * spread / math.sqrt(size)


def marked(text: str, row: Row, best: Best | None) -> str:
    """Returns a score as tables show it: the best's with a word, in parentheses where it is inside the best's noise."""
    if best is None or not text:
        return text
    if row.variant.name == best.row:
        return f"{text} best"
    return f"({text})" if best.is_close(row.variant.name) else text


def shown(place: tuple[object, ...]) -> str:
    """Returns a place on an axis as tables print it: "4", "4, 16" of two fields."""
    return ", ".join(map(show, place))


def as_shown(value: float | None, head: str) -> float | None:
    """Returns a number of a score of `noise.SCORES` as tables have it: the perplexity of its logarithm."""
    return exp(value) if value is not None and head == "PPL" else value


def told(grid: Grid, head: str) -> str:
    """Returns a sentence on the best point of a grid by a score, its interval and its rivals; "" where none has it."""
    best, measure = grid.best(head), SHOWN[head]
    if best is None:
        return ""
    labels = {row.variant.name: row.label.partition("+")[2] or row.label for row in grid.points.values()}
    mean, low, high = (number(as_shown(end, head), measure.form) for end in (best.mean, best.low, best.high))
    text = f"{grid.variant}: best {head} at {labels[best.row]}, {mean}"
    if best.low is not None:
        text += f" [{low}, {high}]"
    if not best.differences:
        return f"{text}; {_untold(grid, best, SCORES[head])}."
    close = [label for name, label in labels.items() if best.is_close(name)]
    untold = [label for name, label in labels.items() if name != best.row and name not in best.differences]
    rest = f" Nothing tells the noise of {'; '.join(power.shortened(untold))}." if untold else ""
    return f"{text}; inside its noise: {'; '.join(power.shortened(close)) if close else 'no other point'}.{rest}"


def _untold(grid, best, measure):
    """Returns why no point is held against the best, in a few words."""
    seeds = {row.variant.name: len(noise.comparable(row, measure)) for row in grid.points.values()}
    if not any(count for name, count in seeds.items() if name != best.row):
        return "no other point can be compared"  # in each a run has diverged, or none is done
    if max(seeds.values()) < 2:
        return "nothing tells the noise: that needs two seeds of the points or more"
    if seeds[best.row] < 2:
        return "nothing tells what is inside its noise: that needs two seeds of it or more"
    return "nothing tells the noise: nothing varies between seeds"

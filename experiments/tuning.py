"""Tuning of a row: the grid that was asked for, the point of the lowest dev loss, and the sensitivity to it.

The grid is run with one seed, and the row is then read at the point chosen, over fresh seeds: those have no part in the
choice, so that it does not flatter the row. SWEEP@SCALE/tuning.json keeps what was asked for; all else follows from the
result files.
"""

import dataclasses
import functools
import math
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence

from experiments import points
from experiments.locks import locked
from tx.config import says_where
from tx.errors import UserError, writing
from tx.files import from_json, read_text, to_json, write_atomically

FILE = "tuning.json"
SEED = 1  # of every point of a grid
FAILED = math.nan  # the loss of a point that has none
MOST = 10_000  # points that a file may ask for
_LATER = ("decode.", "probe.")  # what is done with a model when its dev loss is known
# Of another text, or per another kind of subword: such losses are no better or worse than each other.
_UNITS = frozenset(
    ("data.corpus", "data.source", "data.target", "data.lowercase", "data.tokenizer", "data.vocab", "model.vocab_size")
)
_BEFORE = ("decode.average_last",)  # of those, what the parameters follow from whose dev loss it is
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError)


@dataclasses.dataclass(frozen=True)
class Asked:
    """Tuning of one row, as it was asked for.

    Attributes:
      variant: the registered variant.
      around: {dotted field: value} of the row beside that (a point of --grid); mostly empty.
      grid: {dotted field: values to choose from}.
      seeds: the fresh seeds of the point chosen.
    """

    variant: str
    around: Mapping[str, object]
    grid: Mapping[str, Sequence[object]]
    seeds: tuple[int, ...]

    @property
    def row(self) -> str:
        """The row's name, without what is tuned."""
        return points.name(self.variant, self.around)

    @functools.cached_property
    def points(self) -> dict[str, dict[str, object]]:
        """{name of a variant: {dotted field: value}}, every point of the grid."""
        return {points.name(self.variant, {**self.around, **point}): point for point in points.product(self.grid)}

    @property
    def key(self) -> tuple:
        """What a later tuning takes the place of: the row, and the fields."""
        return self.row, tuple(sorted(self.grid))


@dataclasses.dataclass(frozen=True)
class Choice:
    """Choice of a point from a grid.

    Attributes:
      point: the name of the variant chosen; None where there is none yet, or none at all.
      edges: the fields whose value chosen is the least or the greatest of the grid: a better may lie beyond.
      why: where there is none, in a few words.
    """

    point: str | None
    edges: tuple[str, ...] = ()
    why: str = ""


def check(grid: Iterable[str]) -> None:
    """Raises UserError for a dotted field that the dev loss, by which points are chosen, cannot depend on."""
    for field in grid:
        if field in _UNITS:
            raise UserError(f"--tune chooses by the dev loss, whose unit {field} changes; use --grid {field}=...")
        where = says_where(field)
        if where or (field.startswith(_LATER) and field not in _BEFORE):
            flag = "--set" if where else "--grid"
            raise UserError(f"--tune chooses by the dev loss, which {field} does not change; use {flag} {field}=...")


def choose(asked: Asked, losses: Mapping[str, float | None]) -> Choice:
    """Chooses the point of the lowest dev loss; of equals the one of the least values, however the grid was typed.

    Args:
      asked: the grid.
      losses: {point: dev loss in nats}; not finite or FAILED loses, None (not done yet) puts the choice off.
    """
    count = len(asked.points)
    if waiting := sum(losses[point] is None for point in asked.points):
        return Choice(None, why=f"{waiting} of the {count} points of its grid not done")
    finite = [point for point in asked.points if math.isfinite(losses[point])]
    if not finite:
        return Choice(None, why=f"none of the {count} points of its grid has a finite dev loss")
    best = min(finite, key=lambda point: (losses[point], list(asked.points[point].values())))
    return Choice(best, tuple(f for f, value in asked.points[best].items() if _is_end(value, asked.grid[f])))


def _is_end(value, values):
    return type(value) in (int, float) and value in (min(values), max(values))


def sensitivity(losses: Iterable[float], guessing: float) -> float:
    """Returns how much a row loses, on average over its grid, by a value other than the best, in nats.

    E_g[min(l(g), l_0)] - min_g min(l(g), l_0): the learning-rate sensitivity of Wortsman et al. (2023, "Small-scale
    proxies for large-scale Transformer training instabilities", section 2.2), where l(g) is the final loss at point g
    and l_0 the loss at initialisation. Here l is the dev loss of the parameters that are translated, and l_0 that of
    guessing, log V. The paper takes the best l(g) itself: it is the same where any point does better than guessing.

    Args:
      losses: of every point; one that is not finite counts as l_0.
      guessing: l_0.
    """
    bounded = [min(loss, guessing) if math.isfinite(loss) else guessing for loss in losses]
    return statistics.fmean(bounded) - min(bounded)


def read(folder: pathlib.Path) -> list[Asked]:
    """Returns what tuning.json in a SWEEP@SCALE folder says was asked for, rows in order; [] where there is none.

    Raises UserError where it is damaged.
    """
    return [asked for asked, _ in _records(folder)]


def record(folder: pathlib.Path, tunings: Sequence[tuple[Asked, Mapping[str, float | None]]]) -> None:
    """Writes tunings, and what follows from their losses by now, to tuning.json in a SWEEP@SCALE folder.

    Those of the same rows and fields are replaced, the others kept; their fresh seeds add up unless points are left
    out. Raises UserError as `read` does.

    Args:
      folder: of the sweep.
      tunings: (tuning, its losses as in `choose`) pairs.
    """
    with writing(folder / FILE), locked(folder):
        there = _records(folder)
        before, rows = {asked.key: asked for asked, _ in there}, {asked.key: told for asked, told in there}
        rows |= {asked.key: _told(_adding(asked, before.get(asked.key)), losses) for asked, losses in tunings}
        write_atomically(folder / FILE, to_json({"format": 1, "rows": list(rows.values())}))


def _adding(asked, before):
    """Returns a tuning with the fresh seeds of the one before it too, unless that one had points that it has not."""
    if before is None or before.points.keys() - asked.points.keys():
        return asked
    return dataclasses.replace(asked, seeds=tuple(sorted({*before.seeds, *asked.seeds})))


def _records(folder):
    path = folder / FILE
    try:
        return [(_asked(told), told) for told in from_json(read_text(path))["rows"]]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except _DAMAGED:
        raise UserError(f"{path} is damaged; delete it and launch the tuning again: its runs stay") from None


def _asked(told):
    asked = Asked(told["variant"], told["around"], told["grid"], tuple(told["seeds"]))
    if not asked.grid or not isinstance(asked.variant, str) or {type(seed) for seed in asked.seeds} != {int}:
        raise ValueError("no tuning")
    for values in asked.grid.values():
        if len({type(value) for value in values}) != 1 or not isinstance(values[0], int | float | str):
            raise ValueError("values of no field")
    if math.prod(map(len, asked.grid.values())) > MOST:
        raise ValueError("more points than anybody runs")
    _ = asked.points
    return asked


def _told(asked, losses):
    choice = choose(asked, losses)
    return {
        "row": asked.row,
        "variant": asked.variant,
        "around": dict(asked.around),
        "grid": {field: list(values) for field, values in asked.grid.items()},
        "seeds": list(asked.seeds),
        "points": {point: _number(losses[point]) for point in asked.points},
        "chosen": choice.point,
        "at_edge": list(choice.edges),
        "why": choice.why,
    }


def _number(loss):
    return loss if loss is None or math.isfinite(loss) else "failed"  # JSON has no NaN

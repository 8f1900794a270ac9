"""Results of a sweep: every row's runs, done, failed or begun, as `experiments.report.reading` finds them."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from ml_collections import ConfigDict

import tx.config
from experiments import points, tuning
from experiments.launches import AskedRow
from experiments.registry import Scale, Sweep, Variant
from experiments.report import meaning
from experiments.tuning import Asked
from tx.runs.result import RunResult
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
        return changes(config, self.now, self.free)


@dataclasses.dataclass(frozen=True)
class Results:
    """Results of one SWEEP@SCALE.

    Attributes:
      rows: the registered variants in order, the base first, then the others by name.
      folders: the SWEEP@SCALE folders that were read.
      tunings: of rows, as they were asked for.
      points: a row for each point of their grids; those that a plain grid asked for too are also among `rows`.
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

        A point of a tuning should have the seed of the grid, and the fresh ones if it is chosen, beside those that a
        plain grid asked for.
        """
        if row.variant.name in self._runs_of_points:
            chosen = [asked for asked, choice in self.choices if choice.point == row.variant.name]
            plain = row.asked and not row.asked.tuned
            others = (*row.asked.seeds, *(run.seed for run in row.runs)) if plain else ()
            return sorted({tuning.SEED, *others, *(seed for asked in chosen for seed in asked.seeds)})
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
        """Rows that a table shows, then the other points of tunings that `only` means: without it, every run's row."""
        shown = {row.variant.name for row in self.shown}
        others = (row for row in self.points if row.variant.name not in shown)
        return (*self.shown, *(row for row in others if self.means(row.variant.name, row.asked)))

    @functools.cached_property
    def done(self) -> list[RunResult]:
        """Every result of every row of the table."""
        return [result for row in self.shown for result in row.results]


def meant(glob: str, name: str, asked: AskedRow | None = None) -> bool:
    """Returns whether a glob of --only means a row; a point of a grid is also meant by the name of its variant."""
    return points.matches(asked.variant if asked else name.partition("+")[0], name, glob)


def changes(config: dict, now: dict[str, object] | None, free: Iterable[str]) -> tuple[str, ...]:
    """Returns a phrase for each field in which a configuration is not what a name means now, fields `free` aside."""
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

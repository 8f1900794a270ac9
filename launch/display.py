"""Display of a launch: a live table on a terminal, one line an event elsewhere."""

import contextlib
import datetime
import os
from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from launch.plan import PlannedRun
from launch.pool import Job, Outcome
from launch.time_left import Clock
from tx.errors import printable
from tx.runs.lease import Holder
from tx.runs.metrics_log import newest

PLAIN_WIDTH = 250  # columns off a terminal, where nothing needs to fold


class View:
    """View of a launch that runs; use as a context manager.

    Args:
      runs: all runs asked for, the done ones among them.
      todo: those that are to run.
      running: the jobs at work, as their owner keeps it up to date.
      console: where to write.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        todo: Sequence[PlannedRun],
        running: Sequence[Job],
        console: Console,
    ):
        self.console, self._todo, self._running = console, todo, running
        self._before = done_before(runs, todo)
        self._ended: list[tuple[Job | None, PlannedRun, Outcome]] = []
        self._held: set[tuple[str, str]] = set()
        self._clock = Clock(todo)
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self):
        if self._live:
            self._live.start()
        self._say(f"{len(self._todo)} to run, {self._before}")
        return self

    def __exit__(self, *_):
        if self._live:
            self._live.stop()

    def started(self, job: Job) -> None:
        self._clock.started(job, len(self._running))
        beside = "" if len(job.runs) == 1 else f" ({len(job.runs)} side by side)"
        for run in job.runs:
            self._say(f"start  {run.label}{beside}")

    def noted(self, jobs: Sequence[Job]) -> None:
        """Passes on what processes have noted and warned of: that a run begins anew, for instance, and why."""
        for job in jobs:
            more = f" and {len(job.runs) - 1} more" if len(job.runs) > 1 else ""
            for note in job.new_notes():
                self._say(f"note   {job.runs[0].label}{more}: {note}")

    def ended(self, job: Job, run: PlannedRun, outcome: Outcome) -> None:
        """Reports a run of a job that has ended and is not to be tried again."""
        self._ended.append((job, run, outcome))
        self._clock.ended(job, run, outcome.name == "done")
        counted = f"[{len(self._ended)}/{len(self._todo)}] {run.label}"
        if outcome.name == "done":
            self._say(f"done   {counted} in {_clock(job.seconds)}, {self._left()} left")
        else:
            self._say(f"FAILED {counted}: {outcome.error} (see {job.log})")

    def again(self, job: Job, run: PlannedRun, outcome: Outcome) -> None:
        """Reports a failure after which the run is tried again."""
        self._say(f"again  {run.label}: {outcome.error} (see {job.log})")

    def elsewhere(self, run: PlannedRun, outcome: Outcome) -> None:
        """Reports a run that another launch has done, or given up."""
        self._ended.append((None, run, outcome))
        self._clock.ended(None, run, outcome.name == "done")
        counted = f"[{len(self._ended)}/{len(self._todo)}] {run.label}"
        if outcome.name == "done":
            self._say(f"done   {counted} by another launch, {self._left()} left")
        else:
            self._say(f"FAILED {counted} in another launch: {outcome.error}")

    def left(self, count: int) -> None:
        """Reports how many runs are left to others, who are at work on them."""
        self._say(f"leaves {count} runs that others are making: nothing else is left")

    def held(self, held: Mapping[str, Holder]) -> None:
        """Reports who is at work on runs that wait, once each."""
        for label, holder in held.items():
            if (label, str(holder)) not in self._held:
                self._held.add((label, str(holder)))
                self._say(f"waits  {label}: {holder}")

    def summary(self) -> None:
        """Prints what became of every run that was to run."""
        if not self._ended:
            return
        table = Table("run", "state", "time", box=None)
        for job, run, outcome in self._ended:
            state = "done" if outcome.name == "done" else f"FAILED: {outcome.error}"
            table.add_row(run.label, Text(state), _clock(job.seconds) if job else "elsewhere")
        with _whatever_the_disk():
            self.console.print(table)
        self._say(self._counts())

    def refresh(self) -> None:
        """Draws what is running now; nothing off a terminal."""
        if self._live:
            with _whatever_the_disk():
                self._live.update(self._picture(), refresh=True)

    def _say(self, line: str) -> None:
        with _whatever_the_disk():
            say(self.console, line)

    def _picture(self) -> Group:
        running = [(job, run) for job in self._running for run in job.runs]
        waiting = len(self._todo) - len(self._ended) - len(running)
        line = f"{self._counts()}, {len(running)} running, {waiting} waiting; {self._left()} left"
        table = Table("running", "step", "loss", "target tokens/s", "time", box=None)
        for job, run in running:
            now = newest(run.folder)
            table.add_row(
                run.label,
                f"{now.get('step', 0)}/{run.config.train.steps}",
                f"{now['loss']:.3f}" if "loss" in now else "-",
                f"{now['target_tokens_per_s']:,.0f}" if "target_tokens_per_s" in now else "-",
                _clock(job.seconds),
            )
        return Group(table, Text(line))

    def _counts(self) -> str:
        failed = sum(1 for _, _, outcome in self._ended if outcome.name != "done")
        return f"{len(self._ended) - failed} done, {failed} failed, {self._before}"

    def _left(self) -> str:
        left = self._clock.left(self._running)
        return "?" if left is None else f"{'over ' if left.least and left.seconds else ''}{_clock(left.seconds)}"


@contextlib.contextmanager
def _whatever_the_disk():
    """Lets the body print, and drops what a full disk under standard output does not take: the runs go on."""
    try:
        yield
    except BrokenPipeError:  # nobody reads any more
        raise
    except OSError:
        pass


def console() -> Console:
    """Returns the console of a command, as wide as its terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def say(console: Console, line: str) -> None:
    """Prints a line that may hold text of others (errors, paths): no markup; for scripts, not wrapped."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def plan_table(runs: Sequence[PlannedRun], groups: Sequence[Sequence[PlannedRun]] = ()) -> Table:
    """Returns the table of a launch's runs for --dry_run; with groups, the number of each one's."""
    numbers = {run.folder.path: str(number) for number, group in enumerate(groups, start=1) for run in group}
    table = Table("name", "seed", "state", *["group"] * bool(groups), "parameters", "FLOPs", "folder", box=None)
    for run in runs:
        number = [numbers.get(run.folder.path, "")] * bool(groups)
        sizes, folder = (f"{run.params:,}", f"{run.flops:.2e}"), _from_here(run.folder.path)
        table.add_row(run.name, str(run.seed), run.state.name, *number, *sizes, Text(folder))
    return table


def _from_here(path):
    """Returns a path from the folder that this was started in; as it is where that is gone."""
    try:
        return os.path.relpath(path)
    except FileNotFoundError:
        return str(path)


def done_before(runs: Sequence[PlannedRun], todo: Sequence[PlannedRun]) -> str:
    """Returns "2 done before" of the runs that are not to run, and how many are stale, or damaged, and stay so."""
    doing = {run.label for run in todo}
    left = [run.state for run in runs if run.label not in doing]
    stale, damaged = sum(state.name == "stale" for state in left), sum(state.damaged for state in left)
    counts = {"done before": len(left) - stale - damaged, "stale": stale, "damaged": damaged}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "done before")


def _clock(seconds: float) -> str:
    try:
        return str(datetime.timedelta(seconds=round(seconds)))
    except (OverflowError, ValueError):  # of what a damaged file says
        return "?"

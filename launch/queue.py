"""Queue of a launch: what is still to do, less what others do meanwhile, plus what is to be tried again."""

import collections
import contextlib
import os
import time
from collections.abc import Sequence

from launch import failures
from launch.plan import PlannedRun
from launch.pool import Outcome, of_result
from tx.errors import UserError
from tx.runs import lease, state

PATIENCE = 2.0  # seconds between looks at runs that others hold


class Queue:
    """Queue of groups of runs that wait for a process.

    Args:
      groups: in the order in which to start them.
      retries: how many times a run that failed is started again, whoever started it.
      since: failures before this time do not count, in seconds since 1970; None for now.
      first: which of the groups that nobody has in hand is taken out first, from 0: workers that start at one moment
        would all take the same one.

    Attributes:
      left_to_others: whether at the last look all that wait were others' or waited for theirs.
    """

    def __init__(
        self, groups: Sequence[Sequence[PlannedRun]], retries: int, since: float | None = None, first: int = 0
    ):
        self._waiting = [list(group) for group in groups]
        self._retries, self._failures = retries, collections.Counter()
        self._since, self._first = time.time() if since is None else since, first
        self._looked = -PATIENCE
        self._elsewhere: list[tuple[PlannedRun, Outcome]] = []
        self._open = {run.folder.path for group in groups for run in group}  # neither done nor given up
        self._held: dict[str, lease.Holder] = {}
        self.left_to_others = False

    def __len__(self) -> int:
        """Returns how many runs wait."""
        return sum(map(len, self._waiting))

    def next(self) -> list[PlannedRun] | None:
        """Takes out the first group that nobody else is at work on, and that waits for no training of this launch.

        None where there is none now.
        """
        if time.monotonic() - self._looked < PATIENCE:
            return None
        free = []
        for group in list(self._waiting):
            self._drop_ended(group)
            if any(run.trained_in and run.trained_in.path in self._open for run in group):
                continue
            holders = {run.label: holder for run in group if (holder := _holder(run))}
            if not group:
                self._waiting.remove(group)
            elif not holders:
                free.append(group)
                if len(free) > self._first:
                    break
            self._held |= holders
        if free:
            group = free[self._first % len(free)]
            self._first = 0
            self._waiting.remove(group)
            return group
        self._looked = time.monotonic()  # nobody's is left
        self.left_to_others = bool(self._waiting)
        return None

    def ended_elsewhere(self) -> list[tuple[PlannedRun, Outcome]]:
        """Returns the runs that were found done, or given up, by another launch since the last call."""
        found, self._elsewhere = self._elsewhere, []
        return found

    def held(self) -> dict[str, lease.Holder]:
        """Returns {run's label: its holder} of those that others were found to make since the last call."""
        found, self._held = self._held, {}
        return found

    def put_back(self, run: PlannedRun) -> None:
        """Adds a run that another process had in hand."""
        self._add(run)

    def failed(self, run: PlannedRun, error: str) -> bool:
        """Counts a failure; returns whether the run waits again."""
        self._failures[run.label] += 1
        with contextlib.suppress(OSError):  # a full disk: then each who makes the sweep counts its own
            failures.add(run.folder, error)
        again = self._count(run) <= self._retries
        if again:
            self._add(run)
        return again

    def over(self, run: PlannedRun) -> None:
        """Records that a run is done, or given up: what waited for its parameters waits no longer."""
        self._open.discard(run.folder.path)
        self._look_again()

    def _drop_ended(self, group):
        """Takes the runs out of a group that another launch has done, or given up."""
        for run in list(group):
            if os.path.exists(run.folder.result):
                became = of_result(run)
            elif self._count(run) > self._retries and os.path.exists(run.folder.error):
                became = Outcome("failed", state.error_of(run.folder))
            else:
                continue
            group.remove(run)
            self.over(run)
            self._elsewhere.append((run, became))

    def _count(self, run):
        return max(self._failures[run.label], failures.count(run.folder, self._since))

    def _add(self, run):
        self._waiting.append([run])
        self._look_again()

    def _look_again(self):
        self._looked, self.left_to_others = -PATIENCE, False


def _holder(run):
    """Returns who holds a run; None, too, where that cannot be read: its process finds out, and says it."""
    try:
        return lease.holder(run.folder.path)
    except UserError:
        return None

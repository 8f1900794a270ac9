"""Queue of a launch: what is still to do, less what others do meanwhile, plus what is to be tried again."""

import collections
import os
import time
from collections.abc import Sequence

from launch.plan import PlannedRun
from tx.errors import UserError
from tx.runs import lease

PATIENCE = 2.0  # seconds between looks at runs that others hold


class Queue:
    """Queue of groups of runs that wait for a process.

    Args:
      groups: in the order in which to start them.
      retries: how many times a run that failed is started again.

    Attributes:
      held: {run's label: its holder} of those that others were found to make.
    """

    def __init__(self, groups: Sequence[Sequence[PlannedRun]], retries: int):
        self._waiting = [list(group) for group in groups]
        self._retries, self._failures = retries, collections.Counter()
        self._looked = -PATIENCE
        self._elsewhere: list[PlannedRun] = []
        self._open = {run.folder.path for group in groups for run in group}  # neither done nor given up
        self.held: dict[str, lease.Holder] = {}

    def __len__(self) -> int:
        """Returns how many runs wait."""
        return sum(map(len, self._waiting))

    def next(self) -> list[PlannedRun] | None:
        """Takes out the first group that nobody else is at work on, and that waits for no training of this launch.

        None where there is none now.
        """
        if time.monotonic() - self._looked < PATIENCE:
            return None
        for group in list(self._waiting):
            for run in [run for run in group if os.path.exists(run.folder.result)]:
                group.remove(run)
                self.over(run)
                self._elsewhere.append(run)
            if any(run.trained_in and run.trained_in.path in self._open for run in group):
                continue
            holders = {run.label: holder for run in group if (holder := _holder(run))}
            if not group or not holders:
                self._waiting.remove(group)
            if group and not holders:
                return group
            self.held |= holders
        self._looked = time.monotonic()  # nobody's is left
        return None

    def taken_elsewhere(self) -> list[PlannedRun]:
        """Returns the runs that were found done by another launch since the last call."""
        found, self._elsewhere = self._elsewhere, []
        return found

    def put_back(self, run: PlannedRun) -> None:
        """Adds a run that another process had in hand."""
        self._add(run)

    def failed(self, run: PlannedRun) -> bool:
        """Counts a failure; returns whether the run waits again."""
        self._failures[run.label] += 1
        again = self._failures[run.label] <= self._retries
        if again:
            self._add(run)
        return again

    def over(self, run: PlannedRun) -> None:
        """Records that a run is done, or given up: what waited for its parameters waits no longer."""
        self._open.discard(run.folder.path)
        self._looked = -PATIENCE

    def _add(self, run):
        self._waiting.append([run])
        self._looked = -PATIENCE


def _holder(run):
    """Returns who holds a run; None, too, where that cannot be read: its process finds out, and says it."""
    try:
        return lease.holder(run.folder.path)
    except UserError:
        return None

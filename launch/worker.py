"""Worker: makes the runs of a sweep that nobody else has in hand until none is left, the same on every engine.

A launch on this machine is one worker, with a pool of processes; a Slurm job is one on its node; on a Ray cluster the
launch is one, with a pool of tasks. Workers know nothing of each other: leases, results and failures in the runs'
folders say what is others', done, or given up.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from rich.console import Console

from launch.display import View
from launch.plan import PlannedRun
from launch.pool import GRACE, Command, Job
from launch.queue import Queue

POLL = 0.2  # seconds between looks at the processes


class JobPool(Protocol):
    """Pool of jobs side by side; a context manager, which ends on leaving what still runs (`launch.pool.Pool`).

    Attributes:
      free: true where another job can start.
      running: the jobs at work.
    """

    running: list[Job]

    @property
    def free(self) -> object: ...

    def start(self, runs: Sequence[PlannedRun]) -> Job: ...

    def finished(self) -> list[Job]: ...

    def __enter__(self) -> "JobPool": ...

    def __exit__(self, *_) -> None: ...


class Place(NamedTuple):
    """Place of a worker among those that make a sweep; by default it is a launch of its own.

    Attributes:
      number: of one of several workers that were started together, from 0, each to begin with another run; what they
        were asked for is on record. None for a launch of its own.
      stays: whether it waits for what others are making, and takes over from the dead; else it leaves that to them.
      since: failures before this time do not count, in seconds since 1970; None for now.
      grace: seconds that a process has to save and end when the worker is to end.
      pool: makes a pool of jobs elsewhere, of (jobs or None, command, defaults, threads, stalled),
        the last four as `launch.pool.Pool` takes them; None for processes here.
      accelerated: whether its jobs have accelerators; None for what this machine has.
    """

    number: int | None = None
    stays: bool = True
    since: float | None = None
    grace: float = GRACE
    pool: Callable[[int | None, Command, dict[str, str], int, float], JobPool] | None = None
    accelerated: bool | None = None


ALONE = Place()


class Tally(NamedTuple):
    """What became of the runs: how many failed or were interrupted by others, and how many are left to others."""

    failed: int = 0
    left: int = 0


def work(
    runs: Sequence[PlannedRun],
    groups: Sequence[Sequence[PlannedRun]],
    pool: JobPool,
    console: Console,
    retries: int,
    place: Place = ALONE,
    ended: Callable[[], None] = lambda: None,
) -> Tally:
    """Makes what is not done and returns what became of it.

    What others are at work on is left to them, and waited for: if one dies, its runs are taken over.

    Args:
      runs: all that were asked for.
      groups: those that are not done, in the order in which to start them; one job a group.
      pool: where they are made.
      console: where to show it.
      retries: how many times a run that failed is started again.
      place: of this worker.
      ended: is called after a job has ended, before its runs are judged.
    """
    queue = Queue(groups, retries, place.since, place.number or 0)
    failed = left = 0
    with View(runs, [run for group in groups for run in group], pool.running, console) as view, pool:
        while queue or pool.running:
            while pool.free and (group := queue.next()):
                view.started(pool.start(group))
            for run, became in queue.ended_elsewhere():
                failed += became.name != "done"
                view.elsewhere(run, became)
            view.held(queue.held())
            over = pool.finished()
            view.noted([*over, *pool.running])
            for job in over:
                ended()
                failed += _settle(job, queue, view)
            view.refresh()
            if not place.stays and queue.left_to_others and not pool.running:
                left = len(queue)
                view.left(left)
                break
            time.sleep(POLL)
    view.summary()
    return Tally(failed, left)


def _is_there(run):
    """Returns whether a run has a result, which no further try would change; another launch's, where it has failed."""
    return os.path.exists(run.folder.result)


def _settle(job: Job, queue: Queue, view: View) -> int:
    """Says what became of the runs of a job, and has those wait that go on; returns how many are given up."""
    failed = 0
    for run in job.runs:
        became = job.outcome(run)
        if became.name == "held":
            queue.put_back(run)
        elif became.name == "failed" and not _is_there(run) and queue.failed(run, became.error):
            view.again(job, run, became)
        else:
            queue.over(run)
            failed += became.name != "done"
            view.ended(job, run, became)
    return failed

"""Time left of a launch, from what its runs are seen to take, and how many are made at once.

A run takes its training, and what does not grow with that: start, compilation, translation. Training is seen in the
times of the log, the rest when a run is over; until one is, the time left is no less than is said. A step takes a time
of its own and one for its FLOPs: at scale smoke, big's have four times those of base and take 1.1 times as long.
"""

import collections
import dataclasses
import functools
import heapq
import time
from collections.abc import Iterable, Sequence

from launch.plan import PlannedRun
from launch.pool import Job
from tx.runs.metrics_log import newest, newest_lines
from tx.runs.run_dir import RunDir
from tx.runtime.clock import running_time

RIDGE = 0.2  # of least squares: the variance of relative errors, beside that of the half that a step is taken to be
NEWEST = 200  # paces that are looked at: of ten thousand runs every look would cost as much as all before it
SHORTEST = 1e-6  # seconds of what is divided by


@dataclasses.dataclass(frozen=True)
class Left:
    """Time left: seconds; `least` where it may be more, by what no run has shown yet."""

    seconds: float
    least: bool = False


@dataclasses.dataclass(frozen=True)
class _Pace:
    """Pace of a run: steps and FLOPs that its process has made, the seconds of those, and its others."""

    steps: float
    flops: float
    training: float
    others: float


class Clock:
    """Clock of a launch.

    Args:
      todo: the runs that are to be made, in the order in which they start.
    """

    def __init__(self, todo: Sequence[PlannedRun]):
        self._waiting = {run.label: run.flops for run in todo}  # a formula, which is not to be computed at every look
        self._sizes, self._at_once = dict(self._waiting), 1
        self._steps = {run.label: run.config.train.steps for run in todo}
        self._starts: dict[str, int] = {}  # the steps that runs had before this launch
        # Of jobs that ended; of trainings or not.
        self._seen: dict[bool, Sequence[_Pace]] = collections.defaultdict(lambda: collections.deque(maxlen=NEWEST))

    def started(self, job: Job, at_once: int) -> None:
        """Counts a job that starts, as one of `at_once`."""
        self._at_once = max(self._at_once, at_once)
        for run in job.runs:
            self._starts[run.label] = newest(run.folder).get("step", 0)

    def ended(self, job: Job | None, run: PlannedRun, done: bool) -> None:
        """Counts a run that is over; what it took, if it is done and a job of this launch has made it."""
        self._waiting.pop(run.label, None)
        if job and done:
            steps = run.config.train.steps - self._starts.get(run.label, 0)
            self._seen[self._sizes[run.label] > 0].append(self._pace(run, steps, job))

    def left(self, running: Sequence[Job]) -> Left | None:
        """Returns the time left, with the jobs that run now; None where nothing tells yet."""
        now = {run.label: (job, run) for job in running for run in job.runs if run.label in self._waiting}
        steps = {label: newest(run.folder).get("step", 0) for label, (_, run) in now.items()}
        paces = {
            label: self._pace(run, max(0, steps[label] - self._starts.get(label, 0)), job)
            for label, (job, run) in now.items()
        }
        kinds = {size > 0 for size in self._waiting.values()}
        prices = _prices([pace for pace in [*self._seen[True], *paces.values()] if pace.steps])
        others = {kind: self._others(kind, paces.values()) for kind in kinds}
        if (True in kinds and not prices) or (False in kinds and not self._seen[False]):
            return None

        @functools.cache  # of ten thousand runs that wait, few differ
        def whole_run(size, whole):
            train = [price * amount for price, amount in zip(prices, (whole, size), strict=True)] if size else []
            return sum(train), others[size > 0]

        def seconds(label):
            train, other = whole_run(self._waiting[label], self._steps[label])
            spent = paces[label].others if label in now else 0.0
            return train * (1 - steps.get(label, 0) / self._steps[label]) + max(0.0, other - spent)

        ends = [sum(seconds(run.label) for run in job.runs if run.label in now) for job in running]
        ends += [0.0] * (self._at_once - len(ends))
        heapq.heapify(ends)
        for label in self._waiting:
            if label not in now:
                heapq.heapreplace(ends, ends[0] + seconds(label))
        return Left(max(ends), least=any(not self._seen[kind] for kind in kinds))

    def _others(self, trains: bool, now: Iterable[_Pace]) -> float:
        """Returns the seconds of a run that do not grow with its training: their mean, else the most that were seen."""
        seen = [pace.others for pace in self._seen[trains]]
        if seen or not trains:
            return sum(seen) / max(1, len(seen))
        return max((pace.others for pace in now if pace.steps), default=0.0)

    def _pace(self, run: PlannedRun, steps: float, job: Job) -> _Pace:
        """Returns the pace of a run of a job that has made so many steps; it has an equal share of the seconds."""
        share, flops = job.seconds / len(job.runs), self._sizes[run.label]
        if not (steps and flops):
            return _Pace(0.0, 0.0, 0.0, share)
        training = share
        if speed := _steps_per_second(run.folder, time.time() - (running_time() - job.began)):
            training = min(share, steps / speed / len(job.runs))
        training = max(training, SHORTEST)
        return _Pace(steps, flops * steps / run.config.train.steps, training, share - training)


def _prices(paces: Sequence[_Pace]) -> tuple[float, float]:
    """Returns the seconds of a step and of a FLOP, by least squares of relative errors; () where nothing was seen.

    Where runs are too alike to tell the two apart, each has half of the time.
    """
    if not paces:
        return ()
    rows = [(pace.steps / pace.training, pace.flops / pace.training) for pace in paces]
    scale = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    rows = [(steps / scale[0], flops / scale[1]) for steps, flops in rows]
    a, b, c = (sum(row[i] * row[j] for row in rows) + (i == j) * RIDGE for i, j in ((0, 0), (0, 1), (1, 1)))
    d, e = (sum(column) + RIDGE / 2 for column in zip(*rows, strict=True))
    steps, flops = (c * d - b * e) / (a * c - b * b), (a * e - b * d) / (a * c - b * b)
    if steps < 0:
        steps, flops = 0.0, e / c
    elif flops < 0:
        steps, flops = d / a, 0.0
    return steps / scale[0], flops / scale[1]


def _steps_per_second(folder: RunDir, since: float) -> float | None:
    """Returns the steps a second between the newest lines of a run's log; None where they do not tell.

    Args:
      since: the time of day from which on lines count, in seconds since 1970.
    """
    lines = [one for one in newest_lines(folder) if one.get("time", 0.0) >= since and "step" in one]
    if len(lines) < 2 or not (took := lines[-1]["time"] - lines[0]["time"]) > 0:
        return None
    return max(0.0, (lines[-1]["step"] - lines[0]["step"]) / took) or None

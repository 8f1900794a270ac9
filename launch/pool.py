"""Pool of processes on this machine, each in a slot of its own, and the runs in them."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from launch.plan import PlannedRun
from launch.resources import Slot, slots
from tx.files import to_json, write_atomically
from tx.runs import run_config, state
from tx.runs.lease import HELD_STATUS, LOST_STATUS
from tx.runs.run_dir import OUTPUT
from tx.runtime.signals import PARENT, STATUS

Command = Callable[[Sequence[PlannedRun]], list[str]]
"""The command line of a process, given the runs that it makes side by side."""

GRACE = 10.0  # seconds that a process has to end after SIGTERM
TAIL = 50  # lines of log.txt kept in error.json


@dataclasses.dataclass
class Job:
    """Process in a slot, and the runs that it makes: one, or several side by side."""

    runs: Sequence[PlannedRun]
    slot: Slot
    process: subprocess.Popen
    began: float = dataclasses.field(default_factory=time.monotonic)
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds that it has run, or ran."""
        return (self.ended or time.monotonic()) - self.began

    @property
    def log(self) -> pathlib.Path:
        """The file of the process's standard output and error: log.txt in the folder of its first run."""
        return log_path(self.runs[0])


class Pool:
    """Pool that runs processes side by side, one a slot; use as a context manager, which ends what still runs.

    Args:
      jobs: how many at once.
      command: the command line of a process.
      defaults: environment variables for the processes where this process has none of that name.
      threads: the most in a process.
    """

    def __init__(self, jobs: int, command: Command, defaults: dict[str, str], threads: int = 1):
        self.free = slots(jobs, threads)
        self.running: list[Job] = []
        self._command, self._defaults = command, defaults

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for job in self.running:
            _signal(job.process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for job in self.running:
            try:
                job.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(job.process, signal.SIGKILL)
                job.process.wait()
            _take_back(job)
        self.running.clear()

    def start(self, runs: Sequence[PlannedRun]) -> Job:
        """Hands runs over to a process that starts in a free slot; UserError as `PlannedRun.hand_over`."""
        for run in runs:
            run.hand_over()
            run.folder.error.unlink(missing_ok=True)
            if run is not runs[0]:
                log_path(run).write_text(f"trained beside {runs[0].label}: see {log_path(runs[0])}\n", encoding="utf-8")
        slot = self.free.pop(0)
        with open(log_path(runs[0]), "a", encoding="utf-8") as log:  # another launch may be faster, and writing it
            process = subprocess.Popen(
                self._command(runs),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._defaults
                | dict(os.environ)
                | {"PYTHONUNBUFFERED": "1", PARENT: str(os.getpid()), **slot.variables},
                start_new_session=True,  # so that Ctrl-C reaches the launcher alone, which then ends its runs
            )
        job = Job(runs, slot, process)
        self.running.append(job)
        if slot.cores:
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                os.sched_setaffinity(process.pid, slot.cores)  # in time: no library has started a thread yet
        return job

    def finished(self) -> list[Job]:
        """Returns the jobs that have ended since the last call; their slots are free again."""
        ended = [job for job in self.running if job.process.poll() is not None]
        for job in ended:
            job.ended = time.monotonic()
            _take_back(job)
            self.running.remove(job)
            self.free.append(job.slot)
        return ended


def _signal(process: subprocess.Popen, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)  # the session that the process leads: its children too


def _take_back(job: Job) -> None:
    """Withdraws what was handed over to a process that ended before it began a run; its log stays."""
    for run in job.runs:
        run_config.take_back(run.folder)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of a run of an ended process.

    Attributes:
      name: done, failed, interrupted, or held (by another process, so that nothing was done).
      error: one line, where it is not done.
    """

    name: str
    error: str = ""


def outcome(job: Job, run: PlannedRun) -> Outcome:
    """Returns the outcome of a run of an ended job; where it failed, error.json holds the error too."""
    code = job.process.returncode
    if run.folder.result.exists() and (code == 0 or len(job.runs) > 1):  # of several, another may have failed
        return Outcome("done")
    if not run.folder.error.exists():
        lines = _tail(job.log)
        last = next((line.strip() for line in reversed(lines) if line.strip()), "").removeprefix("error: ")
        if code in (HELD_STATUS, LOST_STATUS):
            return Outcome("held", last)
        if code == STATUS:
            return Outcome("interrupted", "interrupted: the same command goes on from there")
        if code < 0:
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            last = f"killed by {signal.Signals(-code).name}{hint}"
        elif code == 0:
            last = "ended without a result.json"
        report = {"name": run.name, "seed": run.seed, "error": last or f"exit status {code}"}
        try:
            write_atomically(run.folder.error, to_json(report | {"traceback": "\n".join(lines)}))
        except OSError:  # a full disk fails a run, but must not fail the others
            return Outcome("failed", report["error"])
    return Outcome("failed", state.error_of(run.folder))


def log_path(run: PlannedRun) -> pathlib.Path:
    """Returns the file of a run's standard output and error."""
    return run.folder.path / OUTPUT


def _tail(path: pathlib.Path) -> Sequence[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]

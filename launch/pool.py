"""Pool of processes on this machine, each in a slot of its own, and the runs in them."""

import contextlib
import dataclasses
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from launch import plan
from launch.plan import PlannedRun
from launch.resources import Slot, slots
from launch.watchdog import Watch
from tx.errors import UserError, last_error
from tx.files import to_json, write_atomically
from tx.runs import lease, run_config, state
from tx.runs.lease import HELD_STATUS, LOST_STATUS
from tx.runs.run_dir import LEASE, OUTPUT
from tx.runtime import liveness
from tx.runtime.clock import running_time
from tx.runtime.signals import PARENT, STATUS

Command = Callable[[Sequence[PlannedRun]], list[str]]
"""The command line of a process, given the runs that it makes side by side."""

GRACE = 10.0  # seconds that a process has to end after SIGTERM
LOG_TAIL = 1 << 16  # bytes of log.txt that are looked through for what went wrong
NOTES = ("note: ", "warning: ")  # of lines that are passed on
TAIL = 50  # lines of log.txt kept in error.json


def train_command(runs: Sequence[PlannedRun]) -> list[str]:
    """Returns the command line of the process that makes runs side by side."""
    return [sys.executable, "-m", "tx.train", *plan.arguments(runs)]


@dataclasses.dataclass
class Job:
    """Process in a slot, and the runs that it makes: one, or several side by side.

    Attributes:
      process: None where it could not be started.
      error: why it could not, or why it was ended from here; one line.
      log_start: bytes that the log had before it: what earlier processes have said.
      watch: over the process.
      noted: what `new_notes` has returned.
      noted_until: bytes of the log that it has read.
    """

    runs: Sequence[PlannedRun]
    slot: Slot
    process: subprocess.Popen | None
    began: float = dataclasses.field(default_factory=running_time)
    ended: float | None = None
    error: str = ""
    log_start: int = 0
    watch: Watch | None = None
    noted: dict[str, None] = dataclasses.field(default_factory=dict)
    noted_until: int = 0

    @property
    def seconds(self) -> float:
        """Seconds that it has run, or ran."""
        return (self.ended or running_time()) - self.began

    def outcome(self, run: PlannedRun) -> "Outcome":
        """Returns the outcome of one of its runs, once it has ended; see `outcome`."""
        return outcome(self, run)

    @property
    def log(self) -> pathlib.Path:
        """The file of the process's standard output and error: log.txt in the folder of its first run."""
        return log_path(self.runs[0])

    def lines(self) -> list[str]:
        """Returns the last lines that the process has written, LOG_TAIL bytes at most; [] where they are gone."""
        try:
            with open(self.log, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self.log_start if self.log_start <= size else 0, size - LOG_TAIL))
                return file.read(LOG_TAIL).decode("utf-8", errors="replace").splitlines()
        except OSError:
            return []

    def new_notes(self) -> list[str]:
        """Returns what the process has noted or warned of since the last call, each line once."""
        try:
            with open(self.log, "rb") as file:
                file.seek(self.noted_until)
                text = file.read(LOG_TAIL)
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1] if len(text) < LOG_TAIL else text  # a line that goes on is no note
        self.noted_until += len(whole)
        lines = [line for line in whole.decode("utf-8", errors="replace").splitlines() if line.startswith(NOTES)]
        new = [line for line in dict.fromkeys(lines) if line not in self.noted]
        self.noted |= dict.fromkeys(new)
        return [line.partition(": ")[2] for line in new]


class Pool:
    """Pool that runs processes side by side, one a slot; use as a context manager, which ends what still runs.

    Args:
      jobs: how many at once.
      command: the command line of a process.
      defaults: environment variables for the processes where this process has none of that name.
      threads: the most in a process.
      stalled: seconds without progress after which a process is ended.
      grace: seconds that a process has to save and end after SIGTERM.
      devices: GPUs of a process, where there are any.
    """

    def __init__(
        self,
        jobs: int,
        command: Command,
        defaults: dict[str, str],
        threads: int = 1,
        stalled: float = math.inf,
        grace: float = GRACE,
        devices: int = 1,
    ):
        self.free = slots(jobs, threads, devices)
        self.running: list[Job] = []
        self._command, self._defaults, self._stalled, self._grace = command, defaults, stalled, grace

    def __enter__(self):
        return self

    def __exit__(self, *_):
        running = [job for job in self.running if job.process]
        for job in running:
            _signal(job.process, signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        for job in running:
            try:
                job.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(job.process, signal.SIGKILL)
                job.process.wait()
            _take_back(job)
        self.running.clear()

    def start(self, runs: Sequence[PlannedRun]) -> Job:
        """Hands runs over to a process that starts in a free slot; raises for no run's sake.

        Where that cannot be, the job has no process, but the reason, and is the next that `finished` returns.
        """
        job = Job(runs, self.free.pop(0), None)
        self.running.append(job)
        try:
            self._start(job)
        except UserError as error:
            job.error = str(error)
        except OSError as error:
            where = error.filename or runs[0].folder.path
            job.error = f"cannot start in {where}: {error.strerror}"
        return job

    def _start(self, job):
        first, *others = job.runs
        for run in job.runs:
            run.hand_over()
            run.folder.error.unlink(missing_ok=True)
        for run in others:
            log_path(run).write_text(f"trained beside {first.label}: see {job.log}\n", encoding="utf-8")
        with open(job.log, "a", encoding="utf-8") as log:  # another launch may be faster, and writing it
            job.log_start = job.noted_until = os.fstat(log.fileno()).st_size
            job.process = subprocess.Popen(
                self._command(job.runs),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._defaults
                | dict(os.environ)
                | {"PYTHONUNBUFFERED": "1", PARENT: str(os.getpid()), **job.slot.variables},
                start_new_session=True,  # so that Ctrl-C reaches the launcher alone, which then ends its runs
            )
        signs = [run.folder.path / LEASE / liveness.NAME for run in job.runs]
        job.watch = Watch(job.process, signs, self._stalled)
        if job.slot.cores:
            with contextlib.suppress(OSError):  # it has ended already, or may not be bound to them any more
                # In time: no library has started a thread yet.
                os.sched_setaffinity(job.process.pid, job.slot.cores)

    def finished(self) -> list[Job]:
        """Returns the jobs that have ended since the last call; their slots are free again.

        What shows no progress is ended, and among them soon after.
        """
        for job in self.running:
            if job.watch and job.process.poll() is None:
                job.watch.look()
                if job.watch.found and not job.error:
                    job.error = f"{job.watch.found}{_doing(job)}: ended; its stacks are in {job.log}"
        ended = [job for job in self.running if job.process is None or job.process.poll() is not None]
        for job in ended:
            job.ended = running_time()
            _take_back(job)
            self.running.remove(job)
            self.free.append(job.slot)
        return ended


def _signal(process: subprocess.Popen, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)  # the session that the process leads: its children too


def _doing(job):
    """Returns ", translating" where the first run of a job says that this is what is being done; "" for nothing."""
    with contextlib.suppress(UserError):
        if holder := lease.holder(job.runs[0].folder.path):
            return f", {holder.doing}"
    return ""


def _take_back(job: Job) -> None:
    """Withdraws what was handed over to a process that ended before it began a run; its log stays."""
    for run in job.runs:
        with contextlib.suppress(UserError):  # what another launch has handed over meanwhile is its own
            state.refuse_other_configuration(run.config, run.folder)
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
    """Returns the outcome of a run of an ended job; where its process failed, error.json holds the error too.

    A result, which is written last and whole, is one however the process has ended: it may have been killed before it
    was through with the runs beside, or with releasing its lease.
    """
    if os.path.exists(run.folder.result):
        return of_result(run)
    if job.process is None:
        return Outcome("failed", job.error)  # the folder may be another's
    if not os.path.exists(run.folder.error):
        lines, code = job.lines(), job.process.returncode
        last = last_error(lines)
        if job.error:
            last = job.error
        elif code in (HELD_STATUS, LOST_STATUS):
            return Outcome("held", last)
        elif code == STATUS:
            return Outcome("interrupted", "interrupted: the same command goes on from there")
        elif code < 0:
            last = describe_signal(-code)
        elif code == 0:
            last = "ended without a result.json"
        report = {"name": run.name, "seed": run.seed, "error": last or f"exit status {code}"}
        try:
            write_atomically(run.folder.error, to_json(report | {"traceback": "\n".join(lines[-TAIL:])}))
        except OSError:  # a full disk fails a run, but must not fail the others
            return Outcome("failed", report["error"])
    return Outcome("failed", state.error_of(run.folder))


def of_result(run: PlannedRun) -> Outcome:
    """Returns the outcome of a run whose result is there: failed where a launch with other arguments has made it."""
    try:
        if run.folder.read_if_whole("result"):  # a damaged one is for the report to say
            state.refuse_other_configuration(run.config, run.folder)
    except UserError as error:
        return Outcome("failed", str(error))
    return Outcome("done")


def log_path(run: PlannedRun) -> pathlib.Path:
    """Returns the file of a run's standard output and error."""
    return run.folder.path / OUTPUT


def describe_signal(number: int) -> str:
    """Returns what is said of a process that a signal has ended."""
    hint = " (out of memory?)" if number == signal.SIGKILL else ""
    try:
        return f"killed by {signal.Signals(number).name}{hint}"
    except ValueError:  # most of the real-time signals have no name
        return f"killed by signal {number}"

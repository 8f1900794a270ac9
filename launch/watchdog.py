"""Watchdog of a launch: ends what shows no progress, with its stacks."""

import contextlib
import faulthandler
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from tx.runtime import liveness
from tx.runtime.signals import STACKS

LOOKS = 20  # at a process in the time that it is given
LONGER = 4  # times as long is given to what computes meanwhile: a compilation shows nothing else of how far it is
BUSY = 0.1  # share of a core from which on a process computes
GRACE = 2.0  # seconds that a process has to write its stacks


class Watch:
    """Watch over a process that leads a session of its own.

    Args:
      process: the one that is watched.
      signs: files whose times are those of its last signs of progress (`tx.runtime.liveness`), where there are any.
      stalled: seconds that it may show none; infinity for ever.

    Attributes:
      found: what is said of it, one line, once it has shown none for so long; "" until then.
    """

    def __init__(self, process: subprocess.Popen, signs: Sequence[pathlib.Path], stalled: float):
        self._process, self._signs, self._stalled = process, signs, stalled
        self._looked, self._asked, self.found = time.monotonic(), 0.0, ""
        self._seen, self._quiet, self._cpu = self._times(), 0.0, 0.0

    def look(self) -> None:
        """Asks a process that has stalled for its stacks, and kills it soon after, with all that it has started."""
        now, each = time.monotonic(), self._stalled / LOOKS
        if self.found:
            if now - self._asked >= GRACE:
                self._kill()
            return
        if now - self._looked < each:
            return
        passed, self._looked = min(now - self._looked, 2 * each), now  # less where this process was stopped itself
        state, cpu = _usage(self._process.pid)
        if (seen := self._times()) != self._seen:
            self._seen, self._quiet, self._cpu = seen, 0.0, cpu or 0.0
        elif state not in "Tt":  # stopped by somebody, who will have it go on
            self._quiet += passed
            busy = cpu is None or cpu - self._cpu >= BUSY * self._quiet
            if self._quiet >= self._stalled * (LONGER if busy else 1):
                self.found = f"no progress for {describe_minutes(self._quiet)}"
                self._asked = now
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process.pid, STACKS)

    def _times(self):
        return [_time_of(path) for path in self._signs]

    def _kill(self):
        others = _descendants(self._process.pid)  # some lead sessions of their own
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def watched(doing: str, stalled: float) -> Iterator[None]:
    """Ends this process with status 1, its stacks and one line, where the body shows no progress.

    Args:
      doing: what the body does, for the line.
      stalled: seconds that it may show none, of either kind: a sign, or time of a processor.
    """
    over = threading.Event()

    def watch():
        began, cpu = time.monotonic(), time.process_time()
        while not over.wait(min(stalled / LOOKS, threading.TIMEOUT_MAX)):
            now, used = time.monotonic(), time.process_time()
            if liveness.last_progress() > began or used - cpu >= BUSY * (now - began):
                began, cpu = now, used
            elif now - began >= stalled:
                faulthandler.dump_traceback(sys.stderr)
                line = f"error: no progress for {describe_minutes(now - began)} while {doing}"
                print(f"{line}; ended here, the same command goes on", file=sys.stderr, flush=True)
                os._exit(1)

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def describe_minutes(seconds: float) -> str:
    """Returns a time for people: "30 minutes"."""
    minutes = float(f"{seconds / 60:.2g}")
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}"


def _time_of(path):
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _usage(pid: int) -> tuple[str, float | None]:
    """Returns the state of a process, "" for none, and the seconds that it and its ended children have computed."""
    try:
        fields = (
            pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        return fields[0], sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return "", None


def _descendants(pid: int) -> list[int]:
    """Returns the processes that a process has started, and those have; those of them that can be seen."""
    found = []
    for file in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, file.read_text().split()):
                found += [child, *_descendants(child)]
    return found

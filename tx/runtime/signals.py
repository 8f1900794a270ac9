"""Interruption of a run: SIGTERM and SIGINT let a training step finish and be saved."""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

PARENT = "TX_LAUNCHER"  # environment variable: the process that started this one, which ends when that is gone
STACKS = signal.SIGUSR1  # asks a process that was launched for the stacks of its threads
# Slurm's notice of a time limit reaches every process of a job; the launcher acts on it, and ends the others.
NOTICE = signal.SIGUSR2
LOOK = 1.0  # seconds between looks at it
STATUS = 75  # of a process that was interrupted and goes on when it is started again (sysexits.h: EX_TEMPFAIL)


def taken(*numbers: signal.Signals) -> dict[signal.Signals, Any]:
    """Returns {signal: its handler now} of those that are not ignored.

    Who starts a process with a signal ignored, as nohup does and a shell for what it runs in the background, wants it
    to stay so.
    """
    found = {number: signal.getsignal(number) for number in numbers}
    return {number: handler for number, handler in found.items() if handler != signal.SIG_IGN}


def write_stacks_when_asked() -> None:
    """Has a process that was launched write the stacks of all its threads to its log on STACKS, and go on.

    It does so from within a call that never returns, too; and once more where it crashes, as libraries may where they
    get no memory for a thread. NOTICE, which would kill it, is ignored.
    """
    if os.environ.get(PARENT):
        faulthandler.enable(file=sys.__stderr__)
        faulthandler.register(STACKS, file=sys.__stderr__, all_threads=True)
        signal.signal(NOTICE, signal.SIG_IGN)


class Interrupted(BaseException):
    """Raised where the process was asked to end; no error of the run, and so not caught with those."""


@contextlib.contextmanager
def launcher_watched() -> Iterator[None]:
    """Inside, a process whose launcher was killed gets SIGTERM from itself: it must not go on unseen."""
    over = threading.Event()
    if launcher := os.environ.get(PARENT):
        threading.Thread(target=_watch, args=(int(launcher), over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(launcher, over):
    while os.getppid() == launcher:
        if over.wait(LOOK):
            return
    os.kill(os.getpid(), signal.SIGTERM)


class Interruption:
    """Turns SIGTERM and SIGINT into Interrupted; use as a context manager, in the main thread.

    What was ignored before stays ignored; but a launcher ends its processes by SIGTERM, which those always take.

    Attributes:
      asked: whether such a signal came while `held`.
    """

    def __init__(self):
        self.asked, self._held, self._before = False, False, {}

    def __enter__(self) -> "Interruption":
        if os.environ.get(PARENT):
            self._before[signal.SIGTERM] = signal.getsignal(signal.SIGTERM)
        self._before |= taken(signal.SIGTERM, signal.SIGINT)
        for number in self._before:
            signal.signal(number, self._signalled)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal only sets `asked`: what is under way looks at it when it can end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def _signalled(self, number, _frame):
        self.asked = True
        if not self._held:
            raise Interrupted(signal.Signals(number).name)

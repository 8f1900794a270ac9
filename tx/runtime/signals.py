"""Interruption of a run: SIGTERM and SIGINT let a training step finish and be saved."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

PARENT = "TX_LAUNCHER"  # environment variable: the process that started this one, which ends when that is gone
LOOK = 1.0  # seconds between looks at it
STATUS = 75  # of a process that was interrupted and goes on when it is started again (sysexits.h: EX_TEMPFAIL)


class Interrupted(BaseException):
    """Raised where the process was asked to end; no error of the run, and so not caught with those."""


class Interruption:
    """Turns SIGTERM and SIGINT into Interrupted; use as a context manager, in the main thread.

    A process whose launcher was killed gets a SIGTERM from itself: it must not go on unseen.

    Attributes:
      asked: whether such a signal came while `held`.
    """

    def __init__(self):
        self.asked, self._held, self._before = False, False, {}
        self._over = threading.Event()

    def __enter__(self) -> "Interruption":
        if launcher := os.environ.get(PARENT):
            threading.Thread(target=self._watch, args=(int(launcher),), daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
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

    def _watch(self, launcher):
        while os.getppid() == launcher:
            if self._over.wait(LOOK):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    def _signalled(self, number, _frame):
        self.asked = True
        if not self._held:
            raise Interrupted(signal.Signals(number).name)

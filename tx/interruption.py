"""Being asked to end: SIGTERM and SIGINT let a training step finish and be saved."""

import contextlib
import signal
from collections.abc import Iterator

STATUS = 75  # of a process that was interrupted and goes on when it is started again (sysexits.h: EX_TEMPFAIL)


class Interrupted(BaseException):
    """The process was asked to end; no error of the run, and so not caught with those."""


class Interruption:
    """Turns SIGTERM and SIGINT into Interrupted; use as a context manager, in the main thread.

    Attributes:
      asked: whether such a signal came while `held`.
    """

    def __init__(self):
        self.asked, self._held, self._before = False, False, {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._signalled)
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

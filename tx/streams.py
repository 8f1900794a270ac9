"""Standard streams of a command: closed, of a locale that lacks signs, or read by nobody any more."""

import contextlib
import os
import select
import signal
import sys
import threading

CLOSED_STATUS = 128 + signal.SIGPIPE  # of a command whose reader has gone, as a shell shows it of others
_NUMBERS = {"stdin": 0, "stdout": 1, "stderr": 2}


def quiet_while_importing() -> None:
    """Lets Ctrl-C end a command `python -m tx...` at once while it imports, which takes seconds: see `prepare`."""
    if sys.argv[:1] == ["-m"]:  # as long as Python looks for the module
        end_at_once()


def end_at_once() -> None:
    """Lets Ctrl-C end this process at once, without a traceback, until `prepare`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def prepare() -> None:
    """Makes standard streams that can be used: a closed one is the null device, and no sign stops standard output.

    From here on Ctrl-C is KeyboardInterrupt, if it was not ignored.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _interrupt_again
    for name, number in _NUMBERS.items():
        stream = getattr(sys, name)
        if stream is None:  # whoever started the command closed it; the next file opened would take its number
            _to_null(number)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))
        elif name == "stdout" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _interrupt_again(unraisable):
    """Repeats a Ctrl-C that came within a finalizer or a callback of the garbage collector, where it ends nothing."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        return sys.__unraisablehook__(unraisable)
    with contextlib.suppress(RuntimeError):  # Python is ending
        again = signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
        threading.Timer(0.01, *again).start()  # once this has returned


def write_utf8() -> None:
    """Makes standard output UTF-8, whatever the locale: for text and JSON, which are read as such."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")


def flush() -> bool:
    """Writes what standard output holds; False where it takes no more, and then the rest goes nowhere."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            _to_null(sys.stdout.fileno())  # else Python tries again at its end, and says that it fails
        return False
    return True


def unread() -> bool:
    """Returns whether standard output is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # it is no file
        return False


def _to_null(number):
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)

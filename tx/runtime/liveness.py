"""Signs of progress: what the work itself leaves as it goes on, where a heartbeat goes on while the work hangs.

A launcher's watchdog goes by them (`launch.watchdog`), and `--status` says so where the last one is minutes old.
"""

import contextlib
import os
import pathlib
import threading
import time
from collections.abc import Iterator

NAME = "progress"  # of the file in a run's lease whose time is that of the last sign
EVERY = 1.0  # seconds between two that are worth writing down

_folders: list[pathlib.Path] = []
_lock = threading.Lock()
_last = time.monotonic()
_written = 0.0


def show_progress() -> None:
    """Notes that this process has got on: a step, a batch, a block of text, or a wait for another that is watched.

    Costs next to nothing, and raises nothing.
    """
    global _last, _written
    _last = time.monotonic()
    if _last - _written < EVERY:
        return
    _written = _last
    with _lock:
        folders = list(_folders)
    for folder in folders:
        with contextlib.suppress(OSError):  # a sign that is lost is made up for by the next
            file = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o666)
            os.utime(file)
            os.close(file)


def last_progress() -> float:
    """Returns when the last sign was given, in seconds of time.monotonic()."""
    return _last


@contextlib.contextmanager
def shown_in(folder: pathlib.Path) -> Iterator[None]:
    """Inside, signs of progress are left in a folder too."""
    with _lock:
        _folders.append(folder)
    try:
        yield
    finally:
        with _lock:
            _folders.remove(folder)

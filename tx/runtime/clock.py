"""Clock that stands still while this process is stopped: by SIGSTOP, as Slurm's suspension does, or a frozen container.

What a run took is told by it, and how fast training is. A machine that sleeps stops `time.monotonic` itself.
"""

import threading
import time

BEAT = 1.0  # seconds between two looks
LONGEST = 10.0  # between two looks on a busy machine; more, and next to no computing meanwhile, is a stop
IDLE = 0.1  # share of a core below which a process did not run

_lock = threading.Lock()
_looked, _computed = time.monotonic(), time.process_time()
_stopped = 0.0
_watched = False


def running_time() -> float:
    """Returns seconds of `time.monotonic` less those in which this process was stopped; only differences mean anything.

    A first call starts a thread that looks at the clocks, without which waiting could not be told from a stop.
    """
    global _watched
    with _lock:
        if not _watched:
            _watched = True
            threading.Thread(target=_watch, name="clock", daemon=True).start()
        return _look()


def _watch():
    while True:
        time.sleep(BEAT)
        with _lock:
            _look()


def _look():
    """Notes a stop since the last look; returns the running time. Called with the lock held."""
    global _looked, _computed, _stopped
    now, computed = time.monotonic(), time.process_time()
    gap = now - _looked
    if gap > LONGEST and computed - _computed < IDLE * gap:
        _stopped += gap
    _looked, _computed = now, computed
    return now - _stopped

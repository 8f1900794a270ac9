"""Commands with a deadline, and the diary that keeps what they say."""

import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from launch.pool import GRACE

POLL = 2.0  # seconds between looks
LINES = 20  # of the diary that are shown where a command failed


class Diary:
    """Diary: a file that commands write into; what this process has to say goes there and to standard output.

    Args:
      path: added to.
    """

    def __init__(self, path: pathlib.Path):
        self.path, self._began = path, time.monotonic()

    def write(self, line: str, more: str = "") -> None:
        """Writes a line with the minutes and seconds since the start, and further lines as they are."""
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        text = f"[{minutes}:{seconds:02}] {line}\n" + (f"{more.rstrip()}\n" if more.strip() else "")
        print(text, end="", flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)

    def tail(self) -> str:
        """Returns the last lines."""
        return "\n".join(self.path.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:])


def run_until(command: Sequence[str], deadline: float, diary: Diary, look: Callable[[], None]) -> int | None:
    """Runs a command, its output going to the diary; returns its exit status, None where it was ended at the deadline.

    Args:
      deadline: of time.monotonic.
      look: called every POLL seconds meanwhile, and once afterwards.
    """
    with diary.path.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(min(POLL, max(0.0, deadline - time.monotonic())))
            look()
        status = process.poll()
        if status is None:
            diary.write(f"time is over: {' '.join(command[1:4])} ... is ended")
        return status
    finally:
        _end(process)
        look()


def _end(process):
    """Ends a command and the processes of its session; one that launches runs has a while to end these."""
    for number, seconds in ((signal.SIGTERM, GRACE + 5), (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue

"""Failures of a run, counted in its folder, so that all who make a sweep share the retries.

RUN/failures.jsonl has a line for each: when, where, and the error. Who gives a run up and who tries it again goes by
those since the launch was asked for; an earlier launch's do not count, and none whose time is yet to come.
"""

import json
import socket
import time

from tx.files import from_json
from tx.runs import lease
from tx.runs.run_dir import RunDir

FILE = "failures.jsonl"


def add(folder: RunDir, error: str) -> None:
    """Adds a failure of a run; raises OSError where that cannot be written."""
    line = json.dumps({"time": time.time(), "host": socket.gethostname(), "error": error})
    with open(folder.path / FILE, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")  # in one piece: others may be adding theirs


def count(folder: RunDir, since: float) -> int:
    """Returns how many failures of a run there are since a time, in seconds since 1970; damaged lines are none.

    Nor is one whose time is well ahead: its clock was ahead, or has been set back since.
    """
    try:
        lines = (folder.path / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    found, latest = 0, time.time() + lease.EXPIRY  # the clocks of those who share the folder differ
    for line in lines:
        try:
            found += since <= from_json(line)["time"] <= latest
        except (ValueError, TypeError, KeyError):
            continue
    return found

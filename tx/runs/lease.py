"""Lease of a run's folder, the right to write it: one process holds it, on any of the machines that share the folder.

RUN/lease/ has a file for each time that the folder was claimed: 1, 2, ... The newest alone counts: its process holds
the lease, unless the file says that it was released, or the process is dead. To make the next file is to claim the
lease, and only one process can. No file is ever deleted: who decides by an old listing finds the next number taken, and
looks again. What stays is a few hundred bytes for each attempt, which tell who made the run.

Whether a holder is dead is known at once where its process can be seen. Elsewhere it is dead once it has given no sign
of life for a minute. If it was only cut off, it finds a newer file when it is back, and ends; until then, for at most
HEARTBEAT_SECONDS, both may write. So `check` comes before what must not be lost.
"""

import contextlib
import dataclasses
import datetime
import json
import math
import os
import pathlib
import re
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable

from tx.errors import UserError
from tx.files import to_json, write_atomically
from tx.runs.run_dir import LEASE
from tx.runtime import liveness

HEARTBEAT_SECONDS = 10.0  # seconds between a holder's signs of life
QUIET = 300.0  # seconds without a sign of progress that are worth a word
EXPIRY = 60.0  # seconds without one, after which a holder elsewhere is dead
HELD_STATUS = 77  # of a process that found its run held, and did nothing
LOST_STATUS = 76  # of a process that ended because another one has taken its lease over
ENGINE = "TX_ENGINE"  # environment variable: what started this process, and its number there ("slurm job 12_3")


class Held(UserError):
    """Error where another process has the lease; the message says which one, and since when."""

    status = HELD_STATUS


class Lost(UserError):
    """Error where another process has taken the lease over."""

    status = LOST_STATUS


@dataclasses.dataclass(frozen=True)
class Holder:
    """Process that has a lease.

    Attributes:
      host: its machine.
      pid: its number there; 0 where its file is damaged.
      doing: what it says that it does.
      since: when it claimed the lease, in seconds since 1970 by its own clock.
      beat: seconds since its last sign of life.
      quiet: seconds since its last sign of progress (`tx.runtime.liveness`).
      engine: what started it, such as "slurm job 12_3"; "" where that is a launch on its own machine, or a person.
    """

    host: str
    pid: int
    doing: str
    since: float
    beat: float
    quiet: float = 0.0
    engine: str = ""

    def __str__(self):
        since = datetime.datetime.fromtimestamp(self.since).isoformat(" ", "seconds")
        quiet = f", no progress for {self.quiet / 60:.0f} minutes" if self.quiet >= QUIET else ""
        engine = f" of {self.engine}" if self.engine else ""
        return f"process {self.pid}{engine} on {self.host} since {since} ({self.doing}{quiet})"


def holder(folder: pathlib.Path) -> Holder | None:
    """Returns who holds the lease of a folder, None where nobody does; raises UserError where it cannot be read."""
    try:
        now = _now(folder)
    except OSError:
        now = time.time()  # who cannot write here cannot claim it either, and only wants to see
    try:
        newest = _newest(folder)
    except OSError as error:
        raise UserError(f"cannot read {folder / LEASE}: {error.strerror}") from None
    if not newest or not newest.alive(now):
        return None
    found, shown = newest.holder(now), -math.inf
    with contextlib.suppress(OSError):  # of another file than the claim, which only its holder may write
        shown = (folder / LEASE / liveness.NAME).stat().st_mtime
    return dataclasses.replace(found, quiet=max(0.0, now - max(shown, found.since)))


def _end(lost: Lost) -> None:
    try:
        print(f"error: {lost}", file=sys.stderr, flush=True)
    finally:
        os._exit(LOST_STATUS)  # at once: another thread may be writing


class Lease:
    """Lease of a folder, claimed on entry and released on exit; use as a context manager.

    The folder is made if need be. Entering raises Held where another process has the lease, UserError where the folder
    cannot be written.

    Args:
      folder: the run's.
      lost: called in a thread when another process has taken the lease over; by default it ends this process, with
        status LOST_STATUS.
    """

    def __init__(self, folder: pathlib.Path, lost: Callable[[Lost], None] = _end):
        self._folder, self._lost = folder, lost

    def __enter__(self) -> "Lease":
        self._record = {
            "host": socket.gethostname(),
            "place": _place(),
            "pid": os.getpid(),
            "start": _process(os.getpid())[1],
            "since": time.time(),
            "doing": "starting",
            "engine": os.environ.get(ENGINE, ""),
            "released": False,
            "token": uuid.uuid4().hex,  # tells this claim from one of the same number, if the folder is made anew
        }
        try:
            (self._folder / LEASE).mkdir(parents=True, exist_ok=True)
            while not self._claim():
                pass  # another process was faster, so there is a new one to look at
        except OSError as error:
            raise UserError(f"cannot write to {self._folder}: {error.strerror}; choose another --workdir") from None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease of {self._folder}", daemon=True)
        self._thread.start()
        self._shown = contextlib.ExitStack()
        self._shown.enter_context(liveness.shown_in(self._folder / LEASE))
        return self

    def __exit__(self, *_) -> None:
        self._shown.close()
        self._stop.set()
        self._thread.join()  # or it could take who comes next for one that has taken this lease over
        self._record["released"] = True
        with contextlib.suppress(OSError, Lost):  # if the disk is full, it is free when this process is dead
            self._write()

    def set_status(self, doing: str) -> None:
        """Sets what others see that this process does, in a few words; raises Lost as `check` does."""
        liveness.show_progress()
        self._record["doing"] = doing
        with contextlib.suppress(OSError):  # nothing depends on it
            self._write()

    def check(self) -> None:
        """Raises Lost if another process has taken the lease over; OSError where the folder cannot be read."""
        with contextlib.suppress(OSError):
            _now(self._folder)  # a network file system lists a folder anew when its own machine has changed it
        newest = _newest(self._folder)
        if newest and (newest.number, newest.record.get("token", self._record["token"])) != self._mine:
            raise Lost(f"{self._folder} was taken over by {newest.holder(newest.touched)}; leave the run to it")

    def _claim(self) -> bool:
        """Makes the next file, and returns whether this process was the first to do so."""
        temporary = self._folder / LEASE / f".{self._record['token']}.tmp"
        try:
            temporary.write_text(to_json(self._record), encoding="utf-8")
            # The time is taken first, so that a pause of this process makes no other one look older.
            now, newest = temporary.stat().st_mtime, _newest(self._folder)
            if newest and newest.alive(now):
                raise Held(f"{self._folder} is held by {newest.holder(now)}; wait for its end, or end it")
            self._mine = (newest.number + 1 if newest else 1), self._record["token"]
            return _first(temporary, self._path)
        finally:
            temporary.unlink(missing_ok=True)

    @property
    def _path(self):
        return self._folder / LEASE / str(self._mine[0])

    def _write(self):
        self.check()
        write_atomically(self._path, to_json(self._record))

    def _beat(self):
        while True:
            try:
                self.check()
                os.utime(self._path)  # to the file system's own time
            except Lost as lost:
                self._lost(lost)
                return
            except OSError:
                pass  # a file system that is away may be back at the next beat
            if self._stop.wait(HEARTBEAT_SECONDS):
                return


@dataclasses.dataclass(frozen=True)
class _Claim:
    """File of a lease: its number, what it says ({} where it is damaged), when it was touched."""

    number: int
    record: dict
    touched: float

    def holder(self, now: float) -> Holder:
        known = {"host": "an unknown host", "pid": 0, "doing": "unknown", "since": self.touched} | self.record
        told = (known[name] for name in ("host", "pid", "doing", "since"))
        return Holder(*told, max(0.0, now - self.touched), engine=known.get("engine", ""))

    def alive(self, now: float) -> bool:
        if self.record.get("released"):
            return False
        gone = _gone(self.record) if self.record else None
        # A time well ahead was not written a moment ago: the clock was set back, and nobody has touched it since.
        return abs(now - self.touched) <= EXPIRY if gone is None else not gone


def _newest(folder: pathlib.Path) -> _Claim | None:
    try:
        numbers = [int(name) for name in os.listdir(folder / LEASE) if re.fullmatch("[1-9][0-9]*", name)]
        if not numbers:
            return None
        # Opening makes a network file system ask for the time anew; a mere stat may be a minute late.
        with open(folder / LEASE / str(max(numbers)), "rb") as file:
            return _Claim(max(numbers), _read(file.read()), os.fstat(file.fileno()).st_mtime)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read(text: bytes) -> dict:
    """Returns what a file says, {} where it is damaged."""
    kinds = {"host": str, "place": str, "pid": int, "start": int | None}
    kinds |= {"since": float, "doing": str, "released": bool, "token": str}
    try:
        record = json.loads(text)
        sound = all(isinstance(record[name], kind) for name, kind in kinds.items())
        sound = sound and isinstance(record.get("engine", ""), str)  # older files lack it
        return record if sound and 0 < record["pid"] < 1 << 31 and 0 <= record["since"] < 1e11 else {}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}


def _first(temporary: pathlib.Path, path: pathlib.Path) -> bool:
    """Gives a whole file its final name unless that is taken; returns whether it was free."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return os.path.samefile(temporary, path)  # over NFS, a link whose answer was lost is asked for twice
    except OSError:  # no such links here: others may see a part of the file, which holds the lease like a whole one
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(temporary.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def _now(folder: pathlib.Path) -> float:
    """Returns the time by the file system's clock, which on a network is not this machine's."""
    with tempfile.TemporaryFile(dir=folder / LEASE) as file:
        return os.fstat(file.fileno()).st_mtime


def _place() -> str:
    """Returns what names this boot of this machine and this container, where process numbers hold; "" without /proc."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process(pid: int) -> tuple[str, int | None, int]:
    """Returns state, start time (clock ticks) and number of threads of a process; the time is None if not known."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", None, 0
    fields = text.rpartition(")")[2].split()  # the name before them may hold spaces and parentheses
    return fields[0], int(fields[19]), int(fields[17])


def _gone(record: dict) -> bool | None:
    """Returns whether a holder's process has ended; None where that cannot be seen, and its signs of life decide."""
    if (record["host"], record["place"]) != (socket.gethostname(), _place()):
        return None
    try:
        os.kill(record["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # another user's
    state, start, threads = _process(record["pid"])
    if start is None or record["start"] is None:  # it may be another process of the same number
        return None
    if state in "ZX":  # the last of its threads may still be in a system call that writes
        return True if threads <= 1 else None
    return start != record["start"]

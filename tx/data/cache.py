"""The cache folder ($TX_CACHE_DIR, else ~/.cache/tx): entries are whole or absent, built by one process.

An entry is a folder KIND/KEY of files, with their checksums. Its key is a fingerprint of all that
the files depend on, so it never goes stale; one whose files fail their digests, or that was built for another key, as
where a folder is copied, is built again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterator

from tx import files
from tx.errors import UserError, writing
from tx.runtime.liveness import show_progress

_INCOMPLETE = ".incomplete."  # before the name of an entry that is being built
_LOOK = 0.05  # seconds between looks whether another process's lock is free


def root() -> pathlib.Path:
    """Returns the cache folder."""
    try:
        return files.expanded(os.environ.get("TX_CACHE_DIR") or "~/.cache/tx")
    except UserError as error:
        raise UserError(f"no place for the cache: {error}; or set TX_CACHE_DIR to a folder") from None


def fingerprint(*parts: object) -> str:
    """Returns the SHA-256 (hex) of JSON-representable parts."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock file beside `path` (its folder is made): other processes of this machine wait here."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock_of(path).open("w")
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent}: {error.strerror}; set TX_CACHE_DIR to a folder that can"
        ) from None
    with lock:
        _wait_for(lock, path.parent)
        yield


def _wait_for(lock, folder):
    """Takes a lock, once it is free; UserError where the folder's file system has no locks, as some network ones."""
    while True:
        try:
            if _take(lock):
                return
        except OSError as error:
            raise UserError(
                f"cannot lock a file in {folder}: {error.strerror}; set TX_CACHE_DIR to a folder where that is possible"
            ) from None
        show_progress()  # who has it is watched by its own launcher
        time.sleep(_LOOK)


def _lock_of(path):
    return path.with_name(f".{path.name}.lock")


def _take(lock):
    """Takes a lock if it is free; returns whether it was."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def temporary_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder beside `path`, whose lock is held; it is gone afterwards unless it was renamed.

    Who may enter it is as the umask says. What killed processes have left there is deleted.
    """
    _sweep(path)
    folder = path.with_name(f"{_INCOMPLETE}{path.name}.{secrets.token_hex(4)}")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(path):
    """Deletes the incomplete folders beside an entry, its own and those of entries that nobody has the lock of."""
    for left in path.parent.glob(f"{_INCOMPLETE}*"):
        name = left.name.removeprefix(_INCOMPLETE).rpartition(".")[0]
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as closing:
            if name == path.name or _take(closing.enter_context(_lock_of(path.with_name(name)).open())):
                shutil.rmtree(left, ignore_errors=True)


def entry(kind: str, key: str, build: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Returns the folder KIND/KEY, building it where it is missing, damaged, or another's.

    Args:
      kind: groups entries ("tokens", "vocabularies").
      key: names the entry; may hold slashes.
      build: writes the entry's files into the empty folder it is given.

    Raises UserError where the disk is full, or may not be written to.
    """
    path, whose = root() / kind / key, f"{kind}/{key}"
    if not files.find_corruption(path, key=whose):
        return path
    with locked(path), writing(path):
        if files.find_corruption(path, key=whose):  # nobody built it while we waited
            with temporary_folder(path) as folder:
                build(folder)
                files.write_checksums(folder, key=whose)
                shutil.rmtree(path, ignore_errors=True)
                os.replace(folder, path)
    return path

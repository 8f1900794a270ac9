"""The cache folder ($TX_CACHE_DIR, else ~/.cache/tx): entries are whole or absent, built by one process.

An entry is a folder KIND/KEY of files, with their checksums. Its key is a fingerprint of all that
the files depend on, so it never goes stale; one whose files fail their digests is built again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

from tx import files
from tx.errors import UserError, writing


def root() -> pathlib.Path:
    """Returns the cache folder."""
    return pathlib.Path(os.environ.get("TX_CACHE_DIR") or "~/.cache/tx").expanduser()


def fingerprint(*parts: object) -> str:
    """Returns the SHA-256 (hex) of JSON-representable parts."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock file beside `path` (its folder is made): other processes of this machine wait here."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock").open("w")
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent}: {error.strerror}; set TX_CACHE_DIR to a folder that can"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def temporary_folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder on the same file system as `parent`, gone afterwards unless it was renamed."""
    path = pathlib.Path(tempfile.mkdtemp(prefix=".incomplete.", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def entry(kind: str, key: str, build: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """Returns the folder KIND/KEY, building it where it is missing or damaged.

    Args:
      kind: groups entries ("tokens", "vocabularies").
      key: names the entry; may hold slashes.
      build: writes the entry's files into the empty folder it is given.

    Raises UserError where the disk is full, or may not be written to.
    """
    path = root() / kind / key
    if not files.find_corruption(path):
        return path
    with locked(path), writing(path):
        if files.find_corruption(path):  # nobody built it while we waited
            with temporary_folder(path.parent) as folder:
                build(folder)
                files.write_checksums(folder)
                shutil.rmtree(path, ignore_errors=True)
                os.replace(folder, path)
    return path

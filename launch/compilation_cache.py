"""Compilation cache that the runs of a work folder share, with checksums: a damaged program could compute anything.

JAX itself does not look whether a file of its cache is as it was written. Here each is digested when the process that
wrote it has ended, and before a launch what is not as it was then, or has no digest yet, is deleted: to compile once
more is all that costs. Runs can do without: where the folder cannot serve, the launch goes on.
"""

import contextlib
import pathlib
import tempfile

from tx.files import digest, from_json, read_text, to_json, write_atomically

FOLDER = ".jax_cache"  # in a work folder
NAME = "digests.json"


def why_unusable(folder: pathlib.Path) -> str:
    """Makes the folder, without what is corrupt in it; returns why it cannot serve, "" where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        delete_corrupt(folder)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:  # another user's, for instance: what is damaged there stays, so nothing is taken from it
        return f"cannot write to {folder}: {error.strerror}"


def variables(folder: pathlib.Path) -> dict[str, str]:
    """Returns the environment of processes that are to share the cache: seeds, and relaunches, compile once."""
    return {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}


def delete_corrupt(folder: pathlib.Path) -> list[str]:
    """Deletes the files that do not match their checksums, or have none; returns the names."""
    damaged = find_corrupt(folder)
    for path in damaged:
        path.unlink(missing_ok=True)
    return [path.name for path in damaged]


def find_corrupt(folder: pathlib.Path, growing: bool = False) -> list[pathlib.Path]:
    """Returns the files that do not match their checksums, or have none.

    Args:
      growing: whether a launch is at work, which gives them to its programs as jobs end: then having none is no fault.
    """
    checksums = _read_checksums(folder)
    files = [path for path in _files(folder) if path.name in checksums or not growing]
    return [path for path in files if checksums.get(path.name) != _digest(path)]


def write_checksums(folder: pathlib.Path) -> None:
    """Adds the checksums of the files that are new, unless the disk is full: what has none is compiled again."""
    with contextlib.suppress(OSError):
        checksums = _read_checksums(folder)
        if new := {path.name: _digest(path) for path in _files(folder) if path.name not in checksums}:
            write_atomically(folder / NAME, to_json(checksums | new))


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.glob("*-cache") if path.is_file()]


def _read_checksums(folder: pathlib.Path) -> dict[str, str]:
    try:
        checksums = from_json(read_text(folder / NAME))
    except (OSError, ValueError):
        return {}
    return checksums if isinstance(checksums, dict) else {}


def _digest(path: pathlib.Path) -> str:
    try:
        return digest(path)
    except OSError:  # another launch deletes, too
        return ""

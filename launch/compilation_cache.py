"""The compiled programs that the runs of a work folder share: a damaged one could compute anything.

JAX itself does not look whether a file of its cache is as it was written. Here each is digested when the process that
wrote it has ended, and before a launch what is not as it was then, or has no digest yet, is deleted: to compile once
more is all that costs.
"""

import hashlib
import pathlib

from tx.files import from_json, to_json, write_atomically

NAME = "digests.json"


def check(folder: pathlib.Path) -> list[str]:
    """Deletes what is not as it was sealed; returns the names."""
    sealed = _sealed(folder)
    damaged = [path for path in _files(folder) if sealed.get(path.name) != _digest(path)]
    for path in damaged:
        path.unlink(missing_ok=True)
    return [path.name for path in damaged]


def seal(folder: pathlib.Path) -> None:
    """Digests the files that are new."""
    sealed = _sealed(folder)
    if new := {path.name: _digest(path) for path in _files(folder) if path.name not in sealed}:
        write_atomically(folder / NAME, to_json(sealed | new))


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.glob("*-cache") if path.is_file()]


def _sealed(folder: pathlib.Path) -> dict[str, str]:
    try:
        sealed = from_json((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return sealed if isinstance(sealed, dict) else {}


def _digest(path: pathlib.Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # another launch deletes, too
        return ""

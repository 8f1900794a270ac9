"""Digests of every file of a folder, kept in it: what is not as it was written is found before it is used."""

import hashlib
import pathlib
from collections.abc import Collection

from tx.runs.run_dir import from_json, to_json, write_atomically

NAME = "digests.json"


def seal(folder: pathlib.Path, apart: Collection[str] = ()) -> None:
    """Writes the SHA-256 of every file of a folder, at any depth, into it; those `apart` may come afterwards."""
    write_atomically(folder / NAME, to_json({path: _digest(folder / path) for path in _files(folder, apart)}))


def damage(folder: pathlib.Path, apart: Collection[str] = ()) -> str:
    """Returns what is wrong with a folder that was sealed, in a few words; "" where nothing is."""
    try:
        sealed = from_json((folder / NAME).read_text(encoding="utf-8"))
        files = {path: str(digest) for path, digest in sealed.items()}
    except FileNotFoundError:
        return f"it has no {NAME}: writing it was cut off"
    except (OSError, ValueError, AttributeError):
        return f"{NAME} cannot be read"
    there = _files(folder, apart)
    if lost := sorted(files.keys() - set(there)):
        return f"{lost[0]} is missing"
    for path in there:
        if path not in files:
            return f"{path} does not belong to it"
        if not (folder / path).is_file():  # reading a pipe or a device may never end
            return f"{path} is no file"
        try:
            if _digest(folder / path) != files[path]:
                return f"{path} is not what was written"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
    return ""


def _files(folder, apart):
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in paths if path != NAME and path not in apart)


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

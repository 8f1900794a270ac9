"""Files on disk: atomic writes, JSON of one form, and checksums of a whole folder."""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Collection

DEEPEST = 100  # levels of JSON that is read; what this project writes has fewer than ten
NAME = "digests.json"  # of a folder's checksums
KEY = "key.txt"  # of what says, among a folder's files, which folder it is


def write_atomically(path: os.PathLike, text: str) -> None:
    """Writes a whole file or none of it, a power cut included: to a temporary name beside it, then renamed.

    Raises OSError (`tx.errors.writing` words it); then what was there is there still, and nothing beside it.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # left by a killed process that had our number
        with temporary.open("x", encoding="utf-8") as file:  # x: never through somebody's link of that name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # a rename may reach the disk before what it renames
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: object) -> str:
    """Returns the one JSON form of this project's files: sorted keys, indented, each list of numbers on a line."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    # No string holds a line break as such, so what starts with one is no string.
    return re.sub(r"\[\n([^\[\]{}\"]*)\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", text) + "\n"


def from_json(text: str) -> object:
    """Parses JSON that others may have written; raises ValueError alone, for nesting without end too."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        if depth > DEEPEST:  # what recurses over a configuration or a result need not look
            raise ValueError("nested too deeply")
        level = [child for one in level for child in (one.values() if isinstance(one, dict) else one)]
    return value


def write_checksums(folder: pathlib.Path, apart: Collection[str] = (), key: str = "") -> None:
    """Writes the SHA-256 of every file of a folder, at any depth, into it; those `apart` may come afterwards.

    Checksums say that a folder is whole, not which one it is: a `key` becomes a file of it.
    """
    if key:
        (folder / KEY).write_text(key, encoding="utf-8")
    write_atomically(folder / NAME, to_json({path: _digest(folder / path) for path in _files(folder, apart)}))


def find_corruption(folder: pathlib.Path, apart: Collection[str] = (), key: str = "") -> str:
    """Returns what is not as `write_checksums` found it in a folder, in a few words; "" where nothing is.

    That it was written with another `key`, or without, as where a whole folder lies under another's name, too.
    """
    try:
        checksums = from_json((folder / NAME).read_text(encoding="utf-8"))
        files = {path: str(digest) for path, digest in checksums.items()}
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
    if key and (KEY not in files or (folder / KEY).read_bytes() != key.encode()):
        return "it is another's, under this name"
    return ""


def _files(folder, apart):
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in paths if path != NAME and path not in apart)


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

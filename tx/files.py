"""Files on disk: paths, bounded reads, atomic writes, JSON of one form, and checksums of a whole folder."""

import errno
import hashlib
import itertools
import json
import os
import pathlib
import re
import stat
import tokenize
import uuid
from collections.abc import Collection

from tx.errors import UserError

LARGEST = 64 << 20  # bytes of a file that is read whole; what this project writes has a few MiB
DEEPEST = 100  # levels of JSON that is read; what this project writes has fewer than ten
NAME = "digests.json"  # of a folder's checksums
KEY = "key.txt"  # of what says, among a folder's files, which folder it is


def expanded(path: str | os.PathLike) -> pathlib.Path:
    """Returns a path of a user's with "~" or "~NAME" at its start replaced; UserError where that home is not known.

    So it is for a user without an entry among the users of the machine, as in some containers, where HOME is not set.
    """
    found = os.path.expanduser(path)
    if os.fspath(found).startswith("~"):
        raise UserError(f"{path}: no such home folder is known; set HOME, or give the whole path")
    return pathlib.Path(found)


def read_bytes(path: os.PathLike, most: int | None = LARGEST) -> bytes:
    """Returns the contents of a file; OSError where it is none, such as a pipe, or has more bytes than `most`."""
    with _opened(path) as file:
        if most is not None and os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most >> 20} MiB", os.fspath(path))
        return file.read()


def read_tail(path: os.PathLike, most: int) -> bytes:
    """Returns the last bytes of a file, at most so many; OSError where it is none."""
    with _opened(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most))
        return file.read()


def _opened(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would never end
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file", os.fspath(path))
    return os.fdopen(descriptor, "rb")


def read_text(path: os.PathLike, most: int | None = LARGEST) -> str:
    """Returns the text of a file as `read_bytes` does; ValueError, too, where it is not UTF-8."""
    return read_bytes(path, most).decode("utf-8")


def read_source(path: os.PathLike) -> str:
    """Returns the text of a Python file in the coding that it declares, as Python reads it; SyntaxError as Python's."""
    with tokenize.open(path) as file:
        return file.read()


def numbered(path: pathlib.Path) -> pathlib.Path:
    """Returns PATH.1, or the first of PATH.2, PATH.3 and so on where there is nothing; its folder is made."""
    path.parent.mkdir(exist_ok=True)
    return next(one for k in itertools.count(1) if not os.path.lexists(one := path.with_name(f"{path.name}.{k}")))


def write_atomically(path: os.PathLike, contents: str | bytes, mode: int | None = None) -> None:
    """Writes a whole file or none of it, a power cut included: to a temporary name beside it, then renamed.

    Its mode is that of any new file, or the one that is given.
    Raises OSError (`tx.errors.writing` words it); then what was there is there still, and nothing beside it.
    """
    path = pathlib.Path(path)
    # Not the number of the process: in containers two on one folder may have the same.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("xb") as file:  # x: never through somebody's link of that name
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(contents.encode("utf-8") if isinstance(contents, str) else contents)
            file.flush()
            os.fsync(file.fileno())  # a rename may reach the disk before what it renames
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(path: os.PathLike, text: str) -> None:
    """Writes a file of a user's anew, as `write_atomically`: where a link leads, and with the mode that it has."""
    path = pathlib.Path(os.path.realpath(path))
    write_atomically(path, text, mode=stat.S_IMODE(path.stat().st_mode))


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
    level, depth = _containers([value]), 0
    while level:
        depth += 1
        if depth > DEEPEST:  # what recurses over a configuration or a result need not look
            raise ValueError("nested too deeply")
        level = _containers(itertools.chain.from_iterable(one.values() if type(one) is dict else one for one in level))
    return value


def _containers(values):
    """Returns the lists and dicts among parsed values; most of the time there are none, in lists of a thousand."""
    kinds, values = {list, dict}, list(values)
    return [] if kinds.isdisjoint(map(type, values)) else [one for one in values if type(one) in kinds]


def write_checksums(folder: pathlib.Path, apart: Collection[str] = (), key: str = "") -> None:
    """Writes the SHA-256 of every file of a folder, at any depth, into it; those `apart` may come afterwards.

    Checksums say that a folder is whole, not which one it is: a `key` becomes a file of it.
    """
    if key:
        (folder / KEY).write_text(key, encoding="utf-8")
    write_atomically(folder / NAME, to_json({path: digest(folder / path) for path in _files(folder, apart)}))


def find_corruption(folder: pathlib.Path, apart: Collection[str] = (), key: str = "") -> str:
    """Returns what is not as `write_checksums` found it in a folder, in a few words; "" where nothing is.

    That it was written with another `key`, or without, as where a whole folder lies under another's name, too.
    """
    try:
        checksums = from_json(read_text(folder / NAME))
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
            if digest(folder / path) != files[path]:
                return f"{path} is not what was written"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
    if key and (KEY not in files or (folder / KEY).read_bytes() != key.encode()):
        return "it is another's, under this name"
    return ""


def _files(folder, apart):
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in paths if path != NAME and path not in apart)


def digest(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file; OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_if_readable(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file; "" where there is none that can be read."""
    try:
        return digest(path) if path.is_file() else ""
    except OSError:
        return ""

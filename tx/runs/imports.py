"""Files that launches imported (`--import`), remembered beside the runs, so that nobody has to name them again.

SWEEP@SCALE/launch.json names each with its SHA-256. A folder may come from anybody, and importing a file runs it. So
what a folder names is imported only where the user has launched with that very file before, at that path and with that
content; which those are is kept apart from the runs, in a folder of the cache that nobody else can write to. Everything
else is said in a line and left alone: `--import FILE` is then up to the user.
"""

import os
import pathlib
import stat
import sys
from collections.abc import Iterable, Sequence

from tx import plugins
from tx.data import cache
from tx.errors import UserError, printable
from tx.files import digest_if_readable, from_json, read_text, to_json, write_atomically

FILE = "launch.json"
MOST = 1000  # contents that are kept of what was imported
LARGEST = 16 << 20  # bytes of a file that is read


def remember(files: Sequence[pathlib.Path]) -> list[dict[str, str]]:
    """Returns {"file", "sha256"} of files that the user has imported, and notes them as the user's own.

    Where the cache cannot be written they are not noted: then `recall` leaves them alone.
    """
    found = [{"file": str(path), "sha256": sha256} for path in files if (sha256 := digest_if_readable(path))]
    pairs = [[one["file"], one["sha256"]] for one in found]
    own = _own()
    if new := [pair for pair in pairs if pair not in own]:
        folder = _folder()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(folder / "files.json", to_json({"files": [*own, *new][-MOST:]}))
        except OSError:
            pass
    return found


def recall(places: Iterable[pathlib.Path]) -> None:
    """Imports what the launches imported whose runs lie at some places, and says in a line each what is not.

    A file is passed over where this process has imported it, or another of its name: that was asked for instead. Where
    two register one name, as a file and its copy do, the newest launch's is imported and the other is said. Raises
    UserError where a file that was asked for cannot be imported.

    Args:
      places: workdirs, SWEEP@SCALE folders, or folders of runs in these.
    """
    plugins.load()
    there = {path.name for path in plugins.files()}
    folders = dict.fromkeys(folder for place in places for folder in _folders(place))
    own, reasons = _own(), {}
    for folder in sorted(folders, key=_written, reverse=True):
        for file, sha256 in _named(folder):
            path = pathlib.Path(file)
            if path.name in there or pathlib.Path(os.path.realpath(path)) in plugins.files():
                continue  # as it is now: of what was another then, the fingerprints say so
            if (file, sha256) not in reasons:
                reasons[file, sha256] = _why_not(path, sha256, own) or _failure(file)
            if why := reasons[file, sha256]:
                line = f"not imported: {file}, with which {folder} was launched, {why}; give {plugins.OPTION} FILE"
                print(printable(line), file=sys.stderr)


def _failure(file):
    """Imports a file; returns why it cannot be, in a line, or ""."""
    try:
        plugins.take([f"{plugins.OPTION}={file}"])
    except UserError as error:
        return str(error).removeprefix(f"{plugins.OPTION}: {file} ")
    return ""


def _why_not(path, sha256, own):
    """Returns why a file is not to be imported, in a few words; "" where it may be."""
    if not path.is_file():
        return "is gone"
    if digest_if_readable(path) != sha256:
        return "has changed since"
    return "" if [str(path), sha256] in own else "is not a file that you have launched with here"


def _folders(place: pathlib.Path) -> list[pathlib.Path]:
    """Returns the SWEEP@SCALE folders at, in or above a place."""
    place = pathlib.Path(os.path.abspath(place))
    folders = [one for one in (place, *place.parents) if "@" in one.name]
    if not folders and place.is_dir():
        folders = sorted(one for one in place.iterdir() if "@" in one.name)
    return folders


def _written(folder):
    """Returns when the last launch was noted in a folder."""
    try:
        return (folder / FILE).stat().st_mtime
    except OSError:
        return 0.0


def _named(folder: pathlib.Path) -> list[tuple[str, str]]:
    """Returns (file, SHA-256) of what the launches of a SWEEP@SCALE folder name, the newest launch's first."""
    try:
        told = from_json(read_text(folder / FILE, LARGEST))
        named = {str(one["file"]): str(one["sha256"]) for one in told["imports"]}
        launches = [[str(one["file"]) for one in launch["imports"]] for launch in reversed(told["launches"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # there is none, or it is damaged, which is said where its rows are read
    order = dict.fromkeys([*(file for launch in launches for file in launch if file in named), *named])
    return [(file, named[file]) for file in order]


def _folder() -> pathlib.Path:
    return cache.root() / f"imported.{os.getuid()}"


def _own() -> list[list[str]]:
    """Returns the (path, SHA-256) pairs that `remember` noted; none where others can write there."""
    folder = _folder()
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            return []
        pairs = from_json(read_text(folder / "files.json", LARGEST))["files"]
        return [[str(path), str(digest)] for path, digest in pairs]
    except (OSError, ValueError, KeyError, TypeError):
        return []

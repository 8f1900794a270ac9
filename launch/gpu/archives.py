"""Archives of results on their way between machines: the result.json of every run, packed as the runs end.

An archive is closed when it is full, so that a few files of bounded size hold everything, and what has just ended is
packed in a moment.
"""

import io
import os
import pathlib
import re
import shutil
import tarfile
from collections.abc import Collection, Iterator

from experiments import tuning
from tx.errors import UserError
from tx.files import numbered, read_bytes, write_atomically

PATTERN = "results-*.tar.gz"
TUNINGS = "tuning-*@*.json"  # what sweeps' tuning.json say, beside the archives, as they change until the end
FULL = 8 << 20  # bytes of an archive to which nothing is added any more
AT_ONCE = 20  # results between looks at the size: about half a megabyte packed
LARGEST = 16 << 20  # bytes of a result.json that is taken out of an archive
# SWEEP@SCALE/VARIANT/seedK/result.json, of the names that sweeps may have; no part of it leads up. A comma and a space
# are in no name that is registered, but the first in that of a point.
_PART = r"(?!\.\.?/)[^/\\@*?\[\]:\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+"
_MEMBER = re.compile(rf"{_PART}@[\w.-]+(?:/{_PART})+/seed\d+/result\.json")


class Packer:
    """Packer of a work folder's results.

    Args:
      runs: the work folder.
      folder: where the archives go; what `PATTERN` matches in it is written over, or deleted where the first `pack`
        does not need as many.
    """

    def __init__(self, runs: pathlib.Path, folder: pathlib.Path):
        self._runs, self._folder, self._before = runs, folder, set(folder.glob(PATTERN))
        self._packed: set[pathlib.Path] = set()
        self._number, self._open = 1, []  # the archive that is not full, and what is in it

    def pack(self) -> list[str]:
        """Adds the results that are new, and drops from the open archive what is gone.

        Returns SWEEP@SCALE/VARIANT/seedK of each that is new.
        """
        there = set(results(self._runs))
        self._packed &= there  # what is made anew is new
        self._open = [path for path in self._open if path in there]
        new = sorted(there - self._packed)
        for start in range(0, len(new), AT_ONCE):
            self._open += new[start : start + AT_ONCE]
            if self._write() >= FULL:
                self._number, self._open = self._number + 1, []
        self._packed.update(new)
        while self._before:  # of an earlier call: all that was in them and is there still has been packed
            self._before.pop().unlink(missing_ok=True)
        return [path.parent.relative_to(self._runs).as_posix() for path in new]

    def _write(self):
        """Writes the open archive, whole or not at all; returns its size."""
        path = self._folder / f"results-{self._number}.tar.gz"
        half = path.with_name(f".{path.name}")
        with tarfile.open(half, "w:gz") as archive:
            for result in self._open:
                archive.add(result, result.relative_to(self._runs).as_posix(), recursive=False)
        os.replace(half, path)
        self._before.discard(path)
        return path.stat().st_size


def results(runs: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the result.json of every run in a work folder."""
    return runs.glob("*@*/**/seed*/result.json")


def unpack(folder: pathlib.Path, runs: pathlib.Path) -> int:
    """Puts the results of all archives of a folder into a work folder, where it has none; returns how many.

    Raises UserError for a file that is no such archive.
    """
    count = 0
    for path in sorted(folder.glob(PATTERN)):
        for name, text in _members(path):
            if not (runs / name).exists():
                (runs / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(runs / name, text)
                count += 1
    return count


def set_aside(folder: pathlib.Path, names: Collection[str]) -> list[pathlib.Path]:
    """Moves the archives of a folder that hold any of these results into stale/ beneath it; returns where they are."""
    holding = [path for path in sorted(folder.glob(PATTERN)) if any(name in names for name, _ in _members(path))]
    return [path.rename(numbered(folder / "stale" / path.name)) for path in holding]


def _members(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields (name, contents) of the results in an archive; anything else in it is an error."""
    try:
        with tarfile.open(fileobj=io.BytesIO(read_bytes(path)), mode="r:gz") as archive:
            for member in archive:
                if not (member.isfile() and member.size <= LARGEST and _MEMBER.fullmatch(member.name)):
                    raise UserError(f"{path} holds {member.name!r}, which is no run's result; take another archive")
                yield member.name, archive.extractfile(member).read().decode()
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        raise UserError(f"{path} is no archive of results ({error}); fetch it again") from None


def copy_tunings(runs: pathlib.Path, folder: pathlib.Path) -> None:
    """Copies tuning.json of each sweep of a work folder beside the archives, where it is new."""
    for path in runs.glob(f"*@*/{tuning.FILE}"):
        copy = folder / f"tuning-{path.parent.name}.json"
        if not copy.exists() or read_bytes(copy) != read_bytes(path):
            write_atomically(copy, read_bytes(path))


def put_tunings(folder: pathlib.Path, runs: pathlib.Path) -> None:
    """Puts them into a work folder, where that has results of the sweep; UserError for one that is damaged."""
    for path in folder.glob(TUNINGS):
        sweep = runs / path.stem.removeprefix("tuning-")
        if sweep.is_dir():
            try:
                shutil.copyfile(path, sweep / tuning.FILE)
                tuning.read(sweep)
            except UserError:
                raise UserError(f"{path} is damaged; fetch it again, or delete it: results come without it") from None

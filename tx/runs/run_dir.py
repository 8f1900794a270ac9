"""Folder of one run: which file is what, read back by every command and report.

WORKDIR/SWEEP@SCALE/VARIANT/seedK/ holds config.json, vocabulary.model, metrics.jsonl, TensorBoard events, checkpoints/,
translations.SPLIT.txt and result.json. result.json is written last: it is there exactly when the run is done.
A failed run has error.json. lease/ says which process writes all this; stale/ and damaged/ hold what was set aside.
"""

import contextlib
import itertools
import os
import pathlib
import re
import tempfile

from tx.errors import UserError
from tx.files import from_json, read_text
from tx.renamed_fields import file_with_new_names
from tx.runs.result import RunResult

LEASE = "lease"  # see tx/runs/lease.py
OUTPUT = "log.txt"  # of the processes that a launcher has started; the one that runs is writing it
_KEPT = frozenset({"stale", "damaged", LEASE, OUTPUT})  # where the rest is set aside
_UNFINISHED = ".part."  # before the name of a folder in stale/ that files are still being moved to


def refuse_unusable_name(path: pathlib.Path) -> None:
    """Raises UserError where a folder's path has a name that libraries take for something else.

    The library that writes arrays takes a path for text, "\\" for "/" and what ends in ":" for the name of a protocol;
    metrics.jsonl's events and messages want text too.
    """
    for name in path.parts:
        if "\\" in name or name.endswith(":"):
            raise UserError(f"{str(path)!r}: checkpoints cannot lie below {name!r}; choose a --workdir without it")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!r} is no text in UTF-8; choose another --workdir") from None


class DamagedFile(UserError):
    """Error of a run's file that is not as a run writes it."""


def is_step(name: str) -> bool:
    """Returns whether a folder of this name holds a checkpoint; others' are left alone, "²" among them."""
    return name.isascii() and name.isdigit()


class RunDir:
    """Paths of one run's files.

    Args:
      path: the run's own folder (".../seed1").
    """

    def __init__(self, path: os.PathLike):
        self.path = pathlib.Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.vocabulary = self.path / "vocabulary.model"
        self.checkpoints = self.path / "checkpoints"
        self.result = self.path / "result.json"
        self.error = self.path / "error.json"

    @property
    def seed(self) -> int | None:
        """The seed that the folder's name says, K of "seedK"; None where it says none."""
        match = re.fullmatch(r"seed(\d+)", self.path.name)
        return int(match[1]) if match else None

    def translations(self, split: str) -> pathlib.Path:
        """Returns the file of a split's translations, a sentence a line."""
        return self.path / f"translations.{split}.txt"

    def checkpoint_steps(self) -> list[int]:
        """Returns the steps that there are checkpoints of, by the names of their folders, in order."""
        return sorted(int(path.name) for path in self.checkpoints.glob("*") if is_step(path.name))

    def create(self) -> None:
        """Makes the folder; raises UserError where that is impossible, or no run can lie in one of that name."""
        refuse_unusable_name(self.path.resolve())
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()  # of a name that nobody else has, if of any
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}; choose another --workdir") from None

    def tidy(self) -> None:
        """Deletes what killed processes had half written; only who holds the run may call it."""
        for path in self.path.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def set_aside(self, name: str) -> pathlib.Path:
        """Moves all files of the run to stale/NAME in its folder, and returns that; what is held, is held still.

        Only who holds the run may call it. They are one run's wherever it is killed: they go to a folder that gets its
        name by one rename when all are there, and `finish_setting_aside` goes on with one that has none yet.
        """
        self.finish_setting_aside()
        name = re.sub(r"\W", "", name)[:40] or "unknown"  # it was read from a file
        aside = next(
            path
            for number in itertools.count(1)
            if not (path := self.path / "stale" / f"{name}{f'.{number}' if number > 1 else ''}").exists()
        )
        aside.with_name(f"{_UNFINISHED}{aside.name}").mkdir(parents=True)
        self.finish_setting_aside()
        return aside

    def finish_setting_aside(self) -> None:
        """Goes on with what a killed process had begun to set aside, if anything, before anybody writes here."""
        for unfinished in self.path.glob(f"stale/{_UNFINISHED}*"):
            # The result first: without it nobody takes the rest for a run that is done.
            for path in sorted(self.path.iterdir(), key=lambda path: path != self.result):
                if path.name not in _KEPT:
                    with contextlib.suppress(FileNotFoundError):  # another process goes on with it, too
                        path.rename(unfinished / path.name)
            with contextlib.suppress(FileNotFoundError):
                unfinished.rename(unfinished.with_name(unfinished.name.removeprefix(_UNFINISHED)))

    def read(self, name: str) -> dict:
        """Reads one JSON file of the run ("config", "result" or "error"); UserError where missing or damaged.

        Where it is not as a run writes it, that is a DamagedFile.

        The first two hold the configuration, nested dicts, as "config", every field under the name that it has now;
        nothing else of them is checked.
        """
        path = getattr(self, name)
        # Checkpoints beside no config.json are nobody's: deleted, it costs what the run has trained.
        mend = "put it back as it was, or launch the run anew" if name == "config" else "delete it and run again"
        try:
            value = from_json(read_text(path))
        except FileNotFoundError:
            raise UserError(f"{path} does not exist; is {self.path} the folder of a run?") from None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        except ValueError as error:
            raise DamagedFile(f"{path} is not JSON ({error}); {mend}") from None
        if not isinstance(value, dict) or (name != "error" and not isinstance(value.get("config"), dict)):
            raise DamagedFile(f"{path} is not what a run writes; {mend}")
        return value if name == "error" else file_with_new_names(value)

    def read_if_whole(self, name: str) -> dict | None:
        """Reads as `read` does; None where the file is missing or damaged."""
        if not getattr(self, name).exists():
            return None
        try:
            return self.read(name)
        except DamagedFile:
            return None

    def read_result(self) -> RunResult:
        """Reads result.json; UserError where it is missing, damaged, or not what this version can read."""
        value = self.read("result")
        try:
            return RunResult.from_dict(value)
        except UserError as error:
            raise UserError(f"{self.result} is no result of this version ({error}); delete it and run again") from None

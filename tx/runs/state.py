"""What has become of a run, read from its folder; and its error.json where it has failed."""

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from tx import config as config_lib
from tx.errors import Diverged, UserError
from tx.files import to_json, write_atomically
from tx.runs import fingerprint, lease
from tx.runs.run_dir import RunDir

Run = tuple[ConfigDict, RunDir]
NAMES = ("pending", "running", "done", "failed", "interrupted", "stale")


def is_done(config: ConfigDict, run: RunDir) -> bool:
    """Returns whether the folder holds the result; raises UserError where it holds a run of another configuration."""
    if run.config.exists():
        refuse_other_configuration(config, run)
        if run.result.exists():
            print(f"{run.result} is there: nothing to do")
            return True
    return False


def refuse_other_configuration(config: ConfigDict, run: RunDir) -> None:
    """Raises UserError where the folder holds a run of another configuration, with the fields that differ."""
    differing = [
        f"{name}: {there!r} there, {wanted!r} asked for"
        for name, (there, wanted) in config_lib.differences(run.read("config")["config"], config.to_dict()).items()
    ]
    if differing:
        raise UserError(
            f"{run.path} holds a run of another configuration ({'; '.join(differing)}); "
            "choose another --workdir or delete that folder"
        )


@contextlib.contextmanager
def recorded(runs: Sequence[Run]):
    """Leaves error.json in the folders of runs that an error keeps from being done; what a user has to mend aside."""
    try:
        yield
    except (UserError, Diverged):  # the latter is recorded where it happens
        raise
    except Exception as error:
        for config, run in runs:
            if run.path.is_dir() and not run.result.exists() and not run.error.exists():
                record(config, run, error)
        raise


def record(config: ConfigDict, run: RunDir, error: Exception) -> None:
    """Writes error.json."""
    last_line = (str(error).splitlines() or [""])[0]
    report = {"name": config.name, "seed": config.train.seed, "error": f"{type(error).__name__}: {last_line}"}
    report["traceback"] = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):  # a full disk must not hide what happened
        write_atomically(run.error, to_json(report | getattr(error, "report", {})))


@dataclasses.dataclass(frozen=True)
class State:
    """The state of a run.

    Attributes:
      name: one of NAMES. "interrupted": it was begun, and goes on where it is launched. "stale": made, or begun, by
        code that computes something else, or with another configuration.
      why: who runs it, what failed, what is not as it was.
      finished: result.json is there.
      clash: "stale" because of the configuration.
    """

    name: str
    why: str = ""
    finished: bool = False
    clash: bool = False


def of(folder: RunDir, changes: Callable[[dict], str]) -> State:
    """Returns the state of a run; UserError where one of its files is damaged.

    Args:
      changes: says how a configuration, as it was written, differs from the one that the run is to have; "" for not.
    """
    finished, other = folder.result.exists(), ""
    if begun := finished or folder.config.exists():
        found = folder.read("result" if finished else "config")
        if changed := changes(found.get("config", {})):
            return State("stale", changed, finished, clash=True)
        now = fingerprint.numerics(found.get("config", {}))
        if (made := found.get("numerics", now)) != now:
            other = f"other code made it: the fingerprint was {made}, is now {now}"
    if finished:
        return State("stale" if other else "done", other, finished)
    if holder := lease.holder(folder.path):
        return State("running", str(holder))
    if folder.error.exists():
        return State("failed", folder.read("error").get("error", ""))
    if other:
        return State("stale", other)
    return State("interrupted") if begun else State("pending")

"""State of a run, read from its folder, and its error.json where it has failed."""

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from tx import config as config_lib
from tx.errors import Diverged, UserError
from tx.files import to_json, write_atomically
from tx.runs import fingerprint, lease
from tx.runs.result import RunResult
from tx.runs.run_dir import DamagedFile, RunDir

Run = tuple[ConfigDict, RunDir]
NAMES = ("pending", "running", "done", "failed", "interrupted", "stale")
NO_JSON = "not JSON of a run"  # what a result.json is that was cut off


def is_done(config: ConfigDict, run: RunDir) -> bool:
    """Returns whether the folder holds the result; raises UserError where it holds a run of another configuration."""
    refuse_other_configuration(config, run)
    if run.result.exists():
        print(f"{run.result} is there: nothing to do")
        return True
    return False


def refuse_other_configuration(config: ConfigDict, run: RunDir) -> None:
    """Raises UserError where the folder holds a run of another configuration, with the fields that differ."""
    wording = "{field}: {stored!r} there, {current!r} asked for"
    for there in _stored(run):
        if differing := config_lib.describe_differences(there, config.to_dict(), wording, "(absent)"):
            raise UserError(
                f"{run.path} holds a run of another configuration ({'; '.join(differing)}); "
                "choose another --workdir or delete that folder"
            )


def _stored(run):
    """Yields the configurations that config.json, unless it is damaged, and result.json hold: either may be a copy."""
    if (begun := run.read_if_whole("config")) is not None:
        yield begun["config"]
    if run.result.exists():
        yield run.read("result")["config"]


@contextlib.contextmanager
def recorded(runs: Sequence[Run]):
    """Writes error.json for the runs that an error of the body ends; not for what a user has to mend."""
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
class RunState:
    """State of a run.

    Attributes:
      name: one of NAMES. "interrupted": it was begun, and goes on where it is launched. "stale": made, or begun, by
        code that computes something else, or with another configuration.
      reason: who runs it, what failed, what is not as it was; one line.
      finished: result.json is there, if only in part.
      clash: "stale" because of the configuration.
      numerics: the fingerprint of the code that made or began it, where `of` finds one.
    """

    name: str
    reason: str = ""
    finished: bool = False
    clash: bool = False
    numerics: str = ""

    @property
    def diverged(self) -> bool:
        """Whether it failed because its loss was not finite."""
        return self.name == "failed" and self.reason.startswith(f"{Diverged.__name__}:")  # as `record` writes it

    @property
    def damaged(self) -> bool:
        """Whether it failed by what its result.json is now: a launch leaves that to the user."""
        return self.name == "failed" and self.finished


def of(folder: RunDir, changes: Callable[[dict], str], result: RunResult | None = None) -> RunState:
    """Returns the state of a run beside what a launch would make of it today.

    Of result.json no more is read than what says how it was made; one without that has failed, as in `read`. Raises
    UserError where a file cannot be read.

    Args:
      changes: says how a configuration, as it was written, differs from the one that the run is to have; "" for not.
      result: its result, where that is at hand and need not be read.
    """
    found, made, other = of_files(folder), "", ""
    if found.finished or folder.config.exists():
        try:
            head = _head(result) if result else folder.read("result" if found.finished else "config")
        except DamagedFile:
            return _damaged(NO_JSON) if found.finished else _of_damaged(folder)
        if changed := changes(head["config"]):
            return dataclasses.replace(found, name="stale", reason=changed, clash=True)
        now = fingerprint.numerics(head["config"])
        made = str(head.get("numerics", now))
        other = describe_other_code(made, now)
    stale = RunState("stale", f"other code made it: {other}", found.finished, numerics=made)
    if found.finished:
        return stale if other else dataclasses.replace(found, numerics=made)
    if holder := lease.holder(folder.path):
        return RunState("running", str(holder), numerics=made)
    return stale if other and found.name != "failed" else dataclasses.replace(found, numerics=made)


def _head(result):
    """Returns of a result what says how it was made."""
    return {"config": result.config} | ({} if result.numerics is None else {"numerics": result.numerics})


def _of_damaged(folder):
    """Returns the state of a run whose config.json says no more of it: it is begun anew."""
    if holder := lease.holder(folder.path):
        return RunState("running", str(holder))
    return RunState("stale", f"{folder.config.name} is damaged: it begins anew")


def of_files(folder: RunDir) -> RunState:
    """Returns the state of a run as far as which files it has shows it: done, failed, interrupted or pending."""
    if folder.result.exists():
        return RunState("done", finished=True)
    if folder.error.exists():
        return RunState("failed", error_of(folder))
    return RunState("interrupted" if folder.config.exists() else "pending")


def read(folder: RunDir) -> tuple[RunState, RunResult | None]:
    """Returns what `of_files` does, and the result of a run that is done.

    One whose result is damaged, or of another seed than the folder's name says, has failed.
    """
    found = of_files(folder)
    if not found.finished:
        return found, None
    try:
        value = folder.read("result")
    except UserError:
        return _damaged(NO_JSON), None
    try:
        result = RunResult.from_dict(value)
    except UserError as error:
        return _damaged(f"no result of this version: {error}"), None
    seed = result.seed if folder.seed is None else folder.seed
    for said in (result.seed, config_lib.fields(result.config).get("train.seed", seed)):
        if said != seed:
            return misplaced(f"seed {said}", f"seed {seed}"), None
    return found, result


def misplaced(what: str, where: str) -> RunState:
    """Returns the state of a run whose result.json is another's, copied: nothing of it counts."""
    return RunState("failed", f"result.json is of {what}, not of {where}; delete it, run again", finished=True)


def describe_other_code(made: str | None, now: str) -> str:
    """Returns how the fingerprint of the code that made a run differs from that of today's; "" where it does not."""
    return "" if made == now else f"the fingerprint was {made}, is now {now}"


def error_of(folder: RunDir) -> str:
    """Returns what error.json says went wrong, in one line."""
    try:
        return " ".join(str(folder.read("error")["error"]).split())
    except (UserError, KeyError):
        return "error.json is damaged"


def _damaged(what):
    return RunState("failed", f"result.json is damaged ({what}); delete it, run again", finished=True)

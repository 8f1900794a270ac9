"""What has become of a run, read from its folder."""

import dataclasses
from collections.abc import Callable

from tx.runs import fingerprint, lease
from tx.runs.run_dir import RunDir

NAMES = ("pending", "running", "done", "failed", "interrupted", "stale")


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

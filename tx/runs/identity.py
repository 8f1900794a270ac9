"""Identity of checkpoints: whose they are. Checksums say that a file is whole, not which run it belongs to."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence

from ml_collections import ConfigDict

from tx import config as config_lib
from tx import files
from tx.errors import UserError, printable
from tx.renamed_fields import NEW_NAMES
from tx.runs.checkpoint_files import APART, describe_step, read_progress
from tx.runs.metrics_log import holds
from tx.runs.run_dir import RunDir


@dataclasses.dataclass(frozen=True)
class Identity:
    """Identity of a run: what it computes, wherever that is; so all that decides the numbers of its training.

    Threads, devices and library versions are no part of it. They decide last digits alone, but under pmap, where
    another number of devices draws other dropout masks.

    Attributes:
      config: the fields that its parameters depend on, the seed among them, by dotted name.
      numerics: the fingerprint of the code; "" where it is not known, as the next two.
      text, vocabulary: those of the sentences, and of the subwords that they were cut into.
    """

    config: dict[str, object]
    numerics: str
    text: str
    vocabulary: str

    @classmethod
    def of(cls, config: ConfigDict, head: dict) -> "Identity":
        """Returns the identity of a run.

        Args:
          config: whole.
          head: "numerics" and "data" as config.json has them.
        """
        data = head["data"]
        return cls(fields(config), head["numerics"], data["fingerprint"], data["vocabulary_fingerprint"])

    @classmethod
    def begun(cls, config: ConfigDict, run: RunDir) -> "Identity":
        """Returns the identity of a run that was begun, with what config.json says of its code and data.

        Args:
          config: whole.
          run: its folder.
        """
        head = run.read_if_whole("config") or {}
        data = head.get("data") if isinstance(head.get("data"), dict) else {}
        found = head.get("numerics"), data.get("fingerprint"), data.get("vocabulary_fingerprint")
        return cls(fields(config), *(str(value or "") for value in found))

    def describe_other(self, saved: object) -> str:
        """Returns in what the identity that a checkpoint holds is not this one, in a few words; "" for nothing.

        Args:
          saved: what `dataclasses.asdict` gave, read from JSON, unchecked.
        """
        if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
            return "says of no run that it is its own"
        if differing := describe_other_fields(saved["config"], self.config):
            return f"is of another configuration ({differing})"
        for name in ("numerics", "text", "vocabulary"):
            if (mine := getattr(self, name)) and saved.get(name) != mine:
                what = {"numerics": "code", "text": "text", "vocabulary": "subwords"}[name]
                return f"is of other {what} (fingerprint {saved.get(name)}, now {mine})"
        return ""


def fields(config: ConfigDict) -> dict[str, object]:
    """Returns the fields that decide the numbers of a training, wherever it is computed and its text lies.

    With data.vocab=fit not how many subwords were asked for: there are as many as there are, and those count as such.
    """
    found = config_lib.training_fields(config)
    size = {"model.vocab_size"} if config.data.vocab == "fit" else set()
    return {name: value for name, value in found.items() if name not in size and not config_lib.says_where(name)}


def describe_other_fields(saved: Mapping[str, object], current: Mapping[str, object]) -> str:
    """Returns how the `fields` of a checkpoint differ from those of a run; "" where they do not."""
    there = {NEW_NAMES.get(name, name): value for name, value in saved.items()}
    return "; ".join(config_lib.describe_differences(there, dict(current), absent="(absent)"))


def set_aside_others(run: RunDir, identity: Identity) -> None:
    """Sets aside what is there of another run, so that this one begins anew, with a line that says so.

    Gone on with, its end would be nobody's result. Checkpoints beside no config.json that a run has written are
    nobody's; those that metrics.jsonl has not the lines of any more are set aside alone, where one before them is left.
    What is damaged is left to `Checkpoints.verify`. Only who holds the run may call it.
    """
    run.finish_setting_aside()
    made = _code_of(run)
    steps = run.checkpoint_steps()
    why = _describe_others(run, identity, made, steps)
    if not why:
        lacking = [step for step in steps if not _log_agrees(run, step)]
        if lacking and len(lacking) < len(steps):
            _set_aside_checkpoints(run, lacking)
        elif lacking:
            why = f"{run.metrics.name} has not the lines that checkpoint {lacking[0]} was saved after"
    if why:
        aside = run.set_aside(made or "")
        print(printable(f"note: {why}: begun anew; see {aside}"))


def refuse_others(run: RunDir, config: ConfigDict, steps: Sequence[int]) -> None:
    """Raises UserError where a checkpoint of a trained run is not its own.

    What is damaged is left to `Checkpoints`. Where none of the run's says whose it is, as those of before they did,
    they are taken on trust, and that is said.

    Args:
      run: its config.json says on what and by which code it was trained.
      config: of it, but for decoding.
      steps: of the checkpoints that its parameters are taken from, the newest of all last.
    """
    identity = Identity.begun(config, run)
    if not any(read_progress(folder).get("identity") for folder in run.checkpoints.glob("*")):
        print(printable(f"note: none of {run.checkpoints} says which run it is of"), file=sys.stderr)
    elif other := _describe_first_other(run, identity, steps):
        step, why = other
        folder = run.checkpoints / str(step)
        raise UserError(f"{folder} {why}: it is not this run's; put its own back, or train it anew")


def find_others(run: RunDir, config: ConfigDict, steps: Sequence[int]) -> Iterator[str]:
    """Yields what of some checkpoints is not of their run, or has not its lines in metrics.jsonl; nothing is changed.

    Args:
      run: its config.json says on what and by which code it was trained.
      config: of it.
      steps: of checkpoints that match their checksums, in order.
    """
    identity = Identity.begun(config, run)
    if any(read_progress(run.checkpoints / str(step)).get("identity") for step in steps):  # else of before they did
        for step in steps:
            if why := identity.describe_other(read_progress(run.checkpoints / str(step)).get("identity")):
                yield f"checkpoint {step} {why}"
    for step in steps:
        if not _log_agrees(run, step):
            yield f"{run.metrics.name} has not the lines that checkpoint {step} was saved after"


def _origins(run, step):
    """Returns what a checkpoint says that each stretch was computed with; [] where nothing that can be read.

    Not its seconds: one that goes on has more of them at every checkpoint.
    """
    match read_progress(run.checkpoints / str(step)).get("origins"):
        case [*found] if all(isinstance(each, dict) and isinstance(each.get("step"), int) for each in found):
            return [{name: value for name, value in each.items() if name != "seconds"} for each in found]
    return []


def _code_of(run):
    """Returns the fingerprint of the code that has begun a run; None where its config.json says of none."""
    found = (run.read_if_whole("config") or {}).get("numerics")
    return None if found is None else str(found)


def _describe_others(run, identity, made, steps):
    if made not in (None, identity.numerics):
        return f"other code has begun this run (fingerprint {made}, now {identity.numerics})"
    if steps and made is None:
        return f"{run.path} holds checkpoints, but no {run.config.name} of a run that has saved them"
    other = _describe_first_other(run, identity, steps)
    return f"checkpoint {other[0]} {other[1]}" if other else ""


def _describe_first_other(run, identity, steps):
    """Returns (step, in what it is another's) of the first checkpoint that is whole and not the run's own, or None.

    Args:
      steps: in order; what the last one's stretches were computed with, those of the others were, too.
    """
    for step in steps:
        progress = read_progress(run.checkpoints / str(step))
        other = describe_step(progress, step) or identity.describe_other(progress.get("identity"))
        if progress and other and _is_whole(run, step):
            return step, other
    origins = _origins(run, steps[-1]) if steps else []
    for step in steps[:-1]:
        before = [each for each in origins if each["step"] <= step]
        if _origins(run, step) != before and _is_whole(run, step) and _is_whole(run, steps[-1]):
            return step, f"was not computed on what checkpoint {steps[-1]} says"
    return None


def _is_whole(run, step):
    """Returns whether a checkpoint matches its checksums: what one says that does not may be the damage."""
    return not files.find_corruption(run.checkpoints / str(step), apart=APART)


def _log_agrees(run, step):
    match read_progress(run.checkpoints / str(step)).get("log"):
        case {"lines": int(lines), "sha256": str(digest)}:
            return holds(run, lines, digest)
    return True  # of one that is damaged nothing is known


def _set_aside_checkpoints(run, steps):
    for step in steps:
        (run.checkpoints / str(step)).rename(files.numbered(run.path / "damaged" / str(step)))
    said = ", ".join(map(str, steps))
    print(
        f"note: {run.metrics.name} has not the lines that checkpoints were saved after (step {said}): "
        f"an earlier one is taken; see {run.path / 'damaged'}"
    )

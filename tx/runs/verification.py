"""Verification of a run's folder, as after a copy: every checksum and identity, and what should be there and is not.

Nothing is changed, no device is started, and the code of today has no say: a run is held against what it says itself.
"""

import dataclasses
import math
from collections.abc import Iterator

from ml_collections import ConfigDict

from tx import config as config_lib
from tx.errors import UserError
from tx.files import read_bytes
from tx.runs import lease, state
from tx.runs.checkpoint_files import find_corruption
from tx.runs.identity import find_others
from tx.runs.metrics_log import read_metrics
from tx.runs.result import RunResult
from tx.runs.run_config import handed_over
from tx.runs.run_dir import RunDir

NAMES = ("whole", "unfinished", "running", "damaged", "missing")
ROUNDING = 1e-6  # relative, of a number that result.json says twice


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Verdict on a run's folder.

    Attributes:
      name: one of NAMES: "unfinished" is whole as far as it is, "running" is not looked into.
      reasons: what is damaged or missing, who runs it, what is there alone.
    """

    name: str
    reasons: tuple[str, ...] = ()


def verify(run: RunDir, name: str = "") -> Verdict:
    """Returns the verdict on a run's folder.

    Args:
      run: the folder; it need not be there.
      name: SWEEP/VARIANT@SCALE of the run that is to lie in it; "" for any.
    """
    if not any(path.exists() for path in (run.config, run.result, run.error, run.checkpoints, run.metrics)):
        return Verdict("missing")
    try:
        if holder := lease.holder(run.path):
            return Verdict("running", (str(holder),))
        if not any(path.exists() for path in (run.config, run.result, run.checkpoints, run.metrics)):
            return Verdict("unfinished")  # it failed before it began
        faults = tuple(_faults(run, name))
    except (OSError, UserError) as error:
        faults = (str(error),)
    if faults:
        return Verdict("damaged", faults)
    if not run.result.exists():
        return Verdict("unfinished")
    return Verdict("whole", ("result.json alone",) if _is_result_alone(run) else ())


def _is_result_alone(run):
    """Returns whether a run was brought here as its result, which suffices for tables, without what trained it."""
    return not any(path.exists() for path in (run.config, run.checkpoints))


def _faults(run: RunDir, name: str) -> Iterator[str]:
    found, result = state.read(run)
    if found.finished and result is None:
        yield found.reason
    if result:
        yield from _disagreements(result)
        yield from _misplaced(run, result.config, name)
        if _is_result_alone(run):
            return
    try:
        config, _, trainer = handed_over(run)
    except UserError as error:
        yield str(error)
        yield from _corrupt_checkpoints(run).values()
        return
    yield from _misplaced(run, config.to_dict(), name)
    if result and (changed := config_lib.describe_differences(config.to_dict(), result.config)):
        yield f"{run.config.name} is not of {run.result.name}: {', '.join(changed)}"
    if result:
        yield from _translation_faults(run, result)
    if trainer is None:
        yield from _training_faults(run, config, result)
    elif result and not trainer.path.is_dir():
        yield f"the run that it takes parameters of is missing: {trainer.path}"


def _disagreements(result: RunResult) -> Iterator[str]:
    """Yields where what a result says twice is not the same: nothing else tells of a digit that has changed."""
    for where in ("dev", "dev_last", "dev_best"):
        dev = getattr(result, where)
        if dev and not math.isclose(math.exp(min(dev.nll, 700.0)), dev.ppl, rel_tol=ROUNDING) and dev.nll < 700.0:
            yield f"result.json: {where}.ppl {dev.ppl} is not exp of {where}.nll {dev.nll}"
    for split, scores in result.tests.items():
        if scores.stats and scores.sentences not in (None, len(scores.stats)):
            yield f"result.json: tests.{split} has statistics of {len(scores.stats)} of {scores.sentences} sentences"


def _misplaced(run: RunDir, config: dict, name: str) -> Iterator[str]:
    """Yields in what a configuration is not that of the run that a folder's path names."""
    seed = config_lib.fields(config).get("train.seed")
    if name and config.get("name") not in (name, None):
        yield f"is of {config['name']}, not of {name}"
    elif run.seed not in (seed, None):
        yield f"is of seed {seed}, not of seed {run.seed}"


def _translation_faults(run: RunDir, result: RunResult) -> Iterator[str]:
    for split, scores in result.tests.items():
        path = run.translations(split)
        if not path.exists():
            yield f"{path.name} is missing"
        elif scores.sentences is not None and (lines := read_bytes(path, most=None).count(b"\n")) != scores.sentences:
            yield f"{path.name} has {lines} lines, not {scores.sentences}"


def _corrupt_checkpoints(run: RunDir) -> dict[int, str]:
    """Returns {step: what is wrong} of the checkpoints that do not match their checksums."""
    found = {step: find_corruption(run.checkpoints / str(step)) for step in run.checkpoint_steps()}
    return {step: f"checkpoint {step}: {why}" for step, why in found.items() if why}


def _training_faults(run: RunDir, config: ConfigDict, result: RunResult | None) -> Iterator[str]:
    """Yields what is wrong with checkpoints and metrics.jsonl of a run that was trained itself."""
    steps, corrupt = run.checkpoint_steps(), _corrupt_checkpoints(run)
    yield from corrupt.values()
    try:
        logged = max((line["step"] for line in read_metrics(run)), default=0)
    except UserError as error:
        yield str(error)
        return
    if (steps or result) and not run.metrics.exists():
        yield f"{run.metrics.name} is missing"
        return
    yield from find_others(run, config, [step for step in steps if step not in corrupt])
    for step in sorted(_needed(run, config, result, logged) - set(steps)):
        yield f"checkpoint {step} is missing"


def _needed(run: RunDir, config: ConfigDict, result: RunResult | None, logged: int) -> set[int]:
    """Returns the steps of checkpoints that have to be there: those that are kept, and the best that was translated.

    Of a run that is not done those that were surely written, since the log has gone on long enough after them. What was
    set aside as damaged is not missing.
    """
    recipe = config.train
    saved = recipe.steps if result else (logged // recipe.checkpoint_every - 1) * recipe.checkpoint_every
    regular = {*range(recipe.checkpoint_every, saved + 1, recipe.checkpoint_every), *([recipe.steps] if result else [])}
    # One that was saved at an interruption takes the place of an older one.
    needed = set(sorted(regular.union(run.checkpoint_steps()))[-recipe.keep_checkpoints :])
    if result and result.dev.parameters == "best" and result.dev.step is not None:
        needed.add(result.dev.step)
    aside = {path.name.partition(".")[0] for path in run.path.glob("damaged/*")}
    return {step for step in needed if str(step) not in aside}

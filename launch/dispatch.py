"""Dispatch of small models on an accelerator: updates in one call of it, and runs side by side, where nobody has said.

A small model's step takes a card less time than its host takes to ask for it, and fills a part of the card only. What
is chosen is where and how a run is computed (`tx.config.says_where`), and no part of what it is.
"""

import collections
import math
from collections.abc import Collection, Iterable

from ml_collections import ConfigDict

from tx.model import flops
from tx.runs.run_dir import RunDir

FIELD = "train.steps_per_dispatch"
SMALL = 1e12  # FLOPs of a step: an H100 takes 4 ms for them at a quarter of its peak, its host about one to ask for it
UPDATES = 50  # in one call at most, as the rows of Multi30k were trained on an H100; and so were
TOGETHER = 8  # runs side by side
CHOSEN = 0  # of --stack, where it is not given: `together` says


def updates(config: ConfigDict, asked: Collection[str], folder: RunDir) -> int:
    """Returns how many updates an accelerator makes in one call.

    They are as many as lead to every line of the log, evaluation and checkpoint. A run that has checkpoints goes on as
    it was begun, to the very same numbers.

    Args:
      config: of the run, resolved.
      asked: the fields that the user has set; what is set is left as it is, and so is what a variant sets.
      folder: of the run.
    """
    train = config.train
    if FIELD in asked or train.steps_per_dispatch != 1 or not _is_small(config):
        return train.steps_per_dispatch
    if folder.checkpoint_steps() and (begun := _begun_with(folder)):
        return begun
    each = math.gcd(train.steps, train.log_every, train.eval_every, train.checkpoint_every)
    return max(count for count in range(1, UPDATES + 1) if each % count == 0)


def together(config: ConfigDict, runs: int, devices: int) -> int:
    """Returns how many runs of a configuration train side by side on an accelerator at most.

    Args:
      config: of one of them.
      runs: how many are to be made in all; none of the devices is left without one.
      devices: how many there are.
    """
    if not _is_small(config):
        return 1
    return max(1, min(TOGETHER, runs // max(1, devices)))


def describe(configs: Iterable[ConfigDict]) -> str:
    """Returns how many updates are made in one call, where it is more than one: "50 (8 runs)"; "" where nowhere."""
    counts = collections.Counter(config.train.steps_per_dispatch for config in configs)
    return ", ".join(f"{count} ({runs} runs)" for count, runs in sorted(counts.items()) if count > 1)


def _is_small(config):
    alone = config.parallel.devices == 1 and config.parallel.mode == "jit"  # others can do neither
    return alone and flops.training_flops(config) < SMALL * config.train.steps


def _begun_with(folder):
    """Returns the updates in one call of a run that was begun; None where its config.json does not say."""
    match folder.read_if_whole("config"):
        case {"config": {"train": {"steps_per_dispatch": int(found)}}}:
            return found
    return None

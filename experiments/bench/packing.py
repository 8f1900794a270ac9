"""`python -m experiments.bench packing`: target tokens that the host packs a second, for a device that is not there."""

import contextlib
import functools
import pathlib
import tempfile

from ml_collections import ConfigDict

from experiments.bench.harness import rounds, sentences
from experiments.bench.harness.contestant import Contestant
from experiments.bench.training import OURS
from tx.model.flops import parameter_count

ALONE = "tx, one host thread"
FIGURES = ("target_tokens_per_s", "target_tokens_per_cpu_s")
UPDATES = 1000  # of a round: many more than the other process has planned while this one waited for its turn


def measure_packing(config: ConfigDict, *, count: int, turns: int, threads: int) -> dict:
    """Returns the result of `packing`: the speed of the training loop's batches, planned ahead and by one thread.

    A round is the batches of UPDATES updates, or of a few more: of whole calls of an accelerator,
    train.steps_per_dispatch batches each.

    Args:
      config: whose data, rows and dispatches they are.
      count: sentences, drawn from the training text.
      turns: rounds.
      threads: of the one that plans ahead, which takes a process of its own for that.
    """
    dispatches = -(-UPDATES // config.train.steps_per_dispatch)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        split, text = sentences.choose(config, count, rounds.say)
        sentences.save(split, pathlib.Path(folder))
        contestants = {}
        for label, ahead, cores in ((OURS, True, threads), (ALONE, False, 1)):
            arguments = {"config": config.to_dict(), "folder": folder, "ahead": ahead}
            one = stack.enter_context(Contestant(label, "contestants.tx_packing:Packing", arguments, cores))
            one("draw", dispatches=dispatches)  # the first pools are planned, the file is read
            contestants[label] = functools.partial(one, "draw", dispatches=dispatches)
        measured = rounds.take_turns(contestants, turns)
    measured = {label: [_per_second(one) for one in taken] for label, taken in measured.items()}
    return {
        "kind": "packing",
        "what": config.name,
        "config": config.to_dict(),
        "parameters": parameter_count(config.model),
        "sentences": text,
        "contestants": {
            label: {"settings": {}, "rounds": taken, "median": rounds.medians(taken)}
            for label, taken in measured.items()
        },
        "ratios": {
            ALONE: {figure: rounds.ratio(measured[OURS], measured[ALONE], figure) for figure in FIGURES},
        },
    }


def _per_second(one):
    times = zip(FIGURES, (one["seconds"], one["cpu_seconds"]), strict=True)
    return one | {figure: one["target_tokens"] / seconds for figure, seconds in times}

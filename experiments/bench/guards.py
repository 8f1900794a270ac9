"""`python -m experiments.bench guards`: cost of what guards a run, in its training loop and at its start."""

import contextlib

from ml_collections import ConfigDict

from experiments.bench.harness import rounds
from experiments.bench.harness.contestant import Contestant
from experiments.bench.training import OURS
from tx.model.flops import parameter_count

BARE, UNCHECKED = "tx, unguarded", "tx, unchecked"
KEPT = {OURS: ["files", "checks"], UNCHECKED: ["files"], BARE: []}  # as `Loop` takes it
TURN = 10  # steps: a few seconds, in which a machine's speed hardly drifts
# Steps before the first round: the first one compiles, and a checkpoint, which is written while the steps go on, falls
# into the middle of a turn.
WARM = 25


def measure_guards(config: ConfigDict, *, turns: int, threads: int) -> dict:
    """Returns the result of `guards`: the speed of the training loop with its guards and without, and of a start.

    A round is as many steps of each as there are from one checkpoint to the next, in turns of TURN; and a start of a
    run that was stopped, with the checks of whose its files are and of its text, and without.

    Args:
      config: what is trained; its dev perplexity is left out.
      turns: rounds.
      threads: of the computation.
    """
    config = config.copy_and_resolve_references()
    steps = config.train.checkpoint_every
    with config.unlocked():
        config.train.steps = config.train.eval_every = WARM + turns * steps + 1
        config.train.select = "last"  # nothing is evaluated that a best one could be chosen by
        config.train.steps_per_dispatch = 1
        config.parallel.threads = threads
    with contextlib.ExitStack() as stack:
        loops = {}
        for label, kept in KEPT.items():
            arguments = {"config": config.to_dict(), "kept": kept}
            loops[label] = stack.enter_context(Contestant(label, "contestants.tx_loop:Loop", arguments, threads))
            loops[label]("advance", steps=WARM)
        measured = {label: [] for label in loops}
        for number in range(1, turns + 1):
            for label, one in _round(loops, steps).items():
                measured[label].append(one)
            rounds.say(f"round {number} of {turns}")
    starts = _starts(config, turns, threads)
    for label, taken in starts.items():
        measured[label] = [one | start for one, start in zip(measured[label], taken, strict=True)]
    return {
        "kind": "guards",
        "what": config.name,
        "config": config.to_dict(),
        "parameters": parameter_count(config.model),
        "contestants": {
            label: {"settings": {}, "rounds": taken, "median": rounds.medians(taken)}
            for label, taken in measured.items()
        },
        "ratios": {
            label: {"target_tokens_per_s": rounds.ratio(measured[OURS], measured[label], "target_tokens_per_s")}
            for label in (UNCHECKED, BARE)
        },
    }


def _starts(config, turns, threads):
    """Returns {label: figures of each of so many starts}, in turns, after one of each that is not counted.

    Which comes first changes from round to round: what the one before has left to close slows a start down.
    """
    with Contestant("tx, started", "contestants.tx_start:Start", {"config": config.to_dict()}, threads) as one:
        labels, taken = (OURS, UNCHECKED), []
        for number in range(turns + 1):
            order = labels[:: 1 if number % 2 else -1]
            taken.append({label: one("start", checked=label == OURS) for label in order})
    return {label: [each[label] for each in taken[1:]] for label in labels}


def _round(loops, steps):
    """Advances all loops by so many steps in turns; returns {label: figures}.

    Which comes first changes from turn to turn: one finds the caches as the one before has left them.
    """
    sums = {label: {"seconds": 0.0, "target_tokens": 0} for label in loops}
    for turn, start in enumerate(range(0, steps, TURN)):
        for label in list(loops)[:: -1 if turn % 2 else 1]:
            for figure, value in loops[label]("advance", steps=min(TURN, steps - start)).items():
                sums[label][figure] += value
    return {label: one | {"target_tokens_per_s": one["target_tokens"] / one["seconds"]} for label, one in sums.items()}

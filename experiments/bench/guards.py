"""`python -m experiments.bench guards`: what it costs that nothing is lost and nothing goes wrong unseen."""

import contextlib
import functools
import pathlib
import tempfile
import time
from unittest import mock

from ml_collections import ConfigDict

from experiments.bench import rounds
from experiments.bench.contestant import cores
from experiments.bench.training import OURS
from tx import determinism
from tx.errors import UserError
from tx.flops import parameter_count
from tx.memory import keep_freed_memory, one_step_at_a_time

BARE = "tx, unguarded"
WARM = 10  # steps before the clock starts: the first one compiles


def measure_guards(config: ConfigDict, *, steps: int, turns: int, threads: int) -> dict:
    """Returns the result of `guards`: the speed of the training loop with its guards and without.

    Args:
      config: what is trained; its dev perplexity is left out.
      steps: of each turn; UserError where they hold no checkpoint.
      turns: rounds.
      threads: of the computation.
    """
    if steps <= config.train.checkpoint_every + WARM:
        raise UserError(f"--steps={steps} is over before a checkpoint (--set train.checkpoint_every) is through")
    cores(threads)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.steps = config.train.eval_every = steps
        config.parallel.threads = threads
    keep_freed_memory()
    determinism.fix(config.parallel)
    one_step_at_a_time()
    from tx.data import tokens

    data = tokens.prepare(config.data, config.model.vocab_size)
    each = {label: functools.partial(_train, config, data, label == OURS) for label in (OURS, BARE)}
    measured = rounds.take_turns(each, turns)
    return {
        "kind": "guards",
        "what": config.name,
        "config": config.to_dict(),
        "parameters": parameter_count(config.model),
        "steps": steps,
        "contestants": {
            label: {"settings": {}, "rounds": taken, "median": rounds.medians(taken)}
            for label, taken in measured.items()
        },
        "ratios": {BARE: {"target_tokens_per_s": rounds.ratio(measured[OURS], measured[BARE], "target_tokens_per_s")}},
    }


def _train(config, data, guarded):
    """Trains once; returns the speed from the step WARM to the last one's start."""
    from tx import train as training
    from tx.lease import Lease
    from tx.members import Member
    from tx.run import RunDir

    began, counts, make = [], [], training.make_train_step

    def timed(*configs):
        step = make(*configs)

        def clocked(state, batch):
            began.append(time.perf_counter())
            counts.append(int((batch["tgt"] != 0).sum()))
            return step(state, batch)

        return clocked

    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(contextlib.redirect_stdout(None))
        stack.enter_context(mock.patch.object(training, "make_train_step", timed))
        lease = stack.enter_context(Lease(folder)) if guarded else None
        if not guarded:
            _remove_guards(stack)
        training.train([Member(config, RunDir(folder), data, lease)])
    seconds = began[-1] - began[WARM]
    return {"seconds": seconds, "target_tokens_per_s": sum(counts[WARM:-1]) / seconds}


def _remove_guards(stack):
    import jax.numpy as jnp

    from tx import step
    from tx import train as training
    from tx.logs import Log
    from tx.members import Member

    blind = mock.Mock(look=mock.Mock(return_value=()), settle=mock.Mock(return_value=()))
    for target, name, value in (
        (training, "Sentinel", blind),
        (step.optax.tree, "norm", jnp.zeros(())),
        (Member, "save", None),
        (Log, "write", None),
    ):
        stack.enter_context(mock.patch.object(target, name, return_value=value))

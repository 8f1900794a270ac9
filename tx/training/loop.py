"""The loop over training steps, for a group of runs side by side."""

import contextlib
import functools
import time
from collections.abc import Sequence

import jax
import numpy as np

from tx.errors import Diverged
from tx.evaluation.perplexity import dev_batches, make_eval
from tx.runs.metrics_log import Log, progress_bar
from tx.runs.state import record
from tx.runtime.memory import named_training
from tx.runtime.signals import Interrupted, Interruption
from tx.runtime.trees import member, stack
from tx.training.loss_monitor import Sentinel
from tx.training.metrics import SIDES, Window
from tx.training.sharding import Layout, gather, make_train_step
from tx.training.step import TrainState
from tx.training.training_run import Member


def train(members: Sequence[Member], interruption: Interruption | None = None) -> tuple[TrainState, list[dict | None]]:
    """Trains a group to the last step, from the newest checkpoint that all its members have, if there is one.

    Returns the final state (a `stack` of its members'), on one device, and what each one's result.json says of the
    training. A member that diverges is `lost`: it gets its error.json at once, None for a result, and leaves the others
    undisturbed. Raises Diverged where all are lost; Interrupted, with a checkpoint of the last step that was made,
    where it is asked to end.
    """
    interruption = interruption or Interruption()
    count, config, data = len(members), members[0].config, members[0].data
    dispatch, last = config.train.steps_per_dispatch, config.train.steps
    if members[0].batches.too_long:
        limit = f"data.row_length={config.data.row_length}"
        print(f"{members[0].batches.too_long} training sentences are longer than {limit}: left out")
    dev = dev_batches(config, data)
    layout = Layout(config)
    if not layout.one:
        print(layout)
    evaluate, step_function = make_eval(config, dev, count), make_train_step(*(m.config for m in members))
    common = _newest_checkpoint(members)
    state = layout.place(stack([m.start(common) for m in members]))
    first = common or 0
    began = time.monotonic()

    def share():
        return (time.monotonic() - began) / count

    with contextlib.ExitStack() as closing:
        for m in members:
            closing.callback(m.checkpoints.close)
            closing.callback(m.batches.close)
        bar = progress_bar()
        logs = [closing.enter_context(Log(m.run, last, first, m.label if count > 1 else "", bar)) for m in members]
        window, sentinel = Window(count, [m.progress.unread for m in members]), Sentinel(members, state.params)
        closing.enter_context(interruption.held())
        closing.enter_context(named_training(config))
        _tell(members, f"training after step {first}")
        for step in range(first + dispatch, last + 1, dispatch):
            batch = stack([m.draw() for m in members], np.stack)
            state, metrics = step_function(state, batch)
            window.add(metrics, batch)
            due = functools.partial(_due, step, last)
            asked = interruption.asked
            _note(sentinel.look(step, metrics, batch), members, logs)
            if asked or due(config.train.log_every) or due(config.train.checkpoint_every):
                _note(sentinel.settle(), members, logs)
            alive = [(i, m, logs[i]) for i, m in enumerate(members) if not m.lost]
            if not alive:
                raise members[0].lost
            if due(config.train.log_every):
                lines = window.read()
                for i, m, log in alive:
                    values, timing = lines[i]
                    log.write(step, values | {"lr": float(m.rate(step - 1))}, timing)
                    m.progress.losses = values
                    for side in SIDES:
                        m.progress.tokens[side] += int(window.tokens[side][i])
                window = Window(count)
            if due(config.train.eval_every):
                jax.block_until_ready(state)  # steps under way are training's time
                paused = time.monotonic()
                _tell(members, f"evaluating after step {step}")
                devs = evaluate(gather(state.params))
                for i, m, log in alive:
                    m.progress.evaluated(step, devs[i])
                    log.write(step, {"dev_ppl": devs[i]["ppl"], "dev_nll": devs[i]["nll"]}, {})
                window.start += time.monotonic() - paused
            if asked or due(config.train.checkpoint_every):
                whole, unread = gather(state), window.losses()
                for i, m, _ in alive:
                    seen = {side: int(window.tokens[side][i]) for side in SIDES}
                    m.save(step, member(whole, i, count), seen, unread[i], share())
                _tell(members, f"training after step {step}")
            if asked:
                raise Interrupted(f"after step {step}")
    seconds = share()
    return gather(state), [None if m.lost else m.told(seconds) for m in members]


def _tell(members, doing):
    for m in members:
        m.tell(doing)


def _note(findings, members, logs):
    """Takes what the sentinel found: a spike is logged, divergence recorded in error.json."""
    for i, step, found in findings:
        if not isinstance(found, Diverged):
            logs[i].write(step, found, {})
        elif not members[i].lost:
            members[i].lost = found
            record(members[i].config, members[i].run, found)


def _newest_checkpoint(members):
    """The step of the newest sound checkpoint that all members have, or None."""
    while common := set.intersection(*(set(m.checkpoints.steps()) for m in members)):
        if all([m.checkpoints.sound(max(common)) for m in members]):
            return max(common)
    return None


def _due(step, last, every):
    return step % every == 0 or step == last

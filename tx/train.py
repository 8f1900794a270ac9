"""Trains a configuration, or several side by side, from text to result.json.

The command line names a configuration and may change its fields:

    python -m tx.train --config=experiments/config.py:table3/A/h=1@multi30k --workdir=DIR [--config.train.steps=500 ...]

Runs that differ in nothing but numbers (`tx.training.stacking.program`), such as seeds, train side by side as a group,
in one compiled program, when --and stands between their arguments. A run alone is a group of one.

SIGTERM and SIGINT let the step finish and save it; the exit status is then 75, and the same command goes on from there.
"""

import argparse
import contextlib
import functools
import gc
import itertools
import pathlib
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np

from tx import cli, plugins
from tx.errors import Diverged, UserError, one_line_errors, writing
from tx.evaluation.perplexity import dev_batches, make_eval
from tx.runs.lease import HELD_STATUS, LOST_STATUS, Held, Lost
from tx.runs.metrics_log import Log, progress_bar
from tx.runs.run_dir import RunDir
from tx.runs.state import Run, record, recorded
from tx.runtime import determinism, distributed
from tx.runtime.memory import keep_freed_memory, named_training, one_step_at_a_time
from tx.runtime.signals import STATUS, Interrupted, Interruption
from tx.runtime.trees import member, stack
from tx.training.experiment import finish_all, select_all, take_up
from tx.training.loss_monitor import Sentinel
from tx.training.memory_check import rehearse
from tx.training.metrics import SIDES, Window
from tx.training.reevaluation import translate_again
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
        window, sentinel = Window(count, [m.unread for m in members]), Sentinel(members, state.params)
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
                    m.losses = values
                    m.tokens = {side: m.tokens[side] + int(window.tokens[side][i]) for side in SIDES}
                window = Window(count)
            if due(config.train.eval_every):
                jax.block_until_ready(state)  # steps under way are training's time
                paused = time.monotonic()
                _tell(members, f"evaluating after step {step}")
                devs = evaluate(gather(state.params))
                for i, m, log in alive:
                    m.evaluated(step, devs[i])
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


def run_experiments(runs: Sequence[Run], interruption: Interruption | None = None) -> None:
    """Trains runs side by side, evaluates each and writes every file; what is done already is not done again.

    Where one fails after training, the others go on; the first error is raised when all are through. Raises UserError
    for runs that cannot train side by side.
    """
    with contextlib.ExitStack() as held:
        with recorded(runs):
            members, heads = take_up(runs, held)
            if not members:
                return
            state, told = train(members, interruption)
            chosen = select_all(members, state)
        if distributed.part():
            finish_all(members, heads, chosen, told)


@one_line_errors
def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tx.train",
        description=__doc__.splitlines()[0],
        epilog="--config=FILE.py:NAME names the configuration, --config.FIELD=VALUE changes a field of it; "
        "--and comes before the arguments of one more run, to train beside it.",
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="the run's own folder")
    parser.add_argument(
        "--trained_in", type=pathlib.Path, help="train nothing: take the parameters of that run, which was trained so"
    )
    parser.add_argument("--rehearse", action="store_true", help="only try whether the memory suffices; leave nothing")
    parser.add_argument(plugins.OPTION, metavar="FILE", help=plugins.HELP)
    argv = plugins.take(argv)
    asked, parts = [], [list(part) for among, part in itertools.groupby(argv, "--and".__ne__) if among]
    for part in parts or [[]]:
        _, _, rest = cli.split_config_arguments(part)
        arguments = parser.parse_args(rest)
        asked.append((cli.config_from(part)[0], arguments.workdir, arguments.trained_in))
    keep_freed_memory()
    gc.freeze()  # the imports' objects stay: looking through them again and again took half a second of a short run
    determinism.fix(asked[0][0].parallel)
    one_step_at_a_time()
    distributed.join()
    if arguments.rehearse:
        rehearse(*(config for config, _, trained_in in asked if trained_in is None))
        return
    with contextlib.ExitStack() as closing:
        runs, others = [], []
        for config, workdir, trained_in in asked:
            run = RunDir(closing.enter_context(distributed.one_voice(workdir)))
            if trained_in is None:
                runs.append((config, run))
            else:
                others.append((config, run, RunDir(trained_in)))
        if others and jax.process_count() > 1:
            raise UserError("--trained_in: one process is enough, and several cannot")
        if jax.process_count() > 1:  # they would stop at different steps, and wait for one another
            run_experiments(runs)
            return
        interruption = closing.enter_context(Interruption())
        try:
            with writing((runs or others)[0][1].path):
                if runs:
                    run_experiments(runs, interruption)
                for other in others:
                    translate_again(*other)
                    if interruption.asked:
                        raise Interrupted("between two runs")
        except Interrupted as where:
            print(f"interrupted ({where}): the same command goes on from here", file=sys.stderr)
            sys.exit(STATUS)
        except (Held, Lost) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(HELD_STATUS if isinstance(error, Held) else LOST_STATUS)


if __name__ == "__main__":
    main(sys.argv[1:])

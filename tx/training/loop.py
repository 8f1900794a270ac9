"""The loop over training steps: one step, then the hooks that are due."""

import functools
from collections.abc import Sequence

from tx.evaluation.perplexity import dev_batches, make_eval
from tx.runtime.memory import named_training
from tx.runtime.signals import Interrupted, Interruption
from tx.training.hooks import Hook, StepEnd
from tx.training.run_group import RunGroup
from tx.training.sharding import Layout, gather, make_train_step
from tx.training.step import TrainState
from tx.training.training_run import TrainingRun


def train(
    members: Sequence[TrainingRun], interruption: Interruption | None = None
) -> tuple[TrainState, list[dict | None]]:
    """Trains a group to the last step, from the newest checkpoint that all its members have, if there is one.

    Returns the final state (a `stack` of its members'), on one device, and the `training_summary` of each. A member
    that diverges is `lost`: it gets its error.json at once, None for a summary, and leaves the others undisturbed.
    Raises Diverged where all are lost; Interrupted, with a checkpoint of the last step that was made, where it is asked
    to end.
    """
    run, interruption = RunGroup(members), interruption or Interruption()
    recipe, layout = run.config.train, Layout(run.config)
    _announce(run, layout)
    evaluate = make_eval(run.config, dev_batches(run.config, run.data), len(members))
    train_step = make_train_step(*(m.config for m in members))
    # The order counts. No line and no checkpoint is of a step whose loss has not been looked at; a line's speed is that
    # of training, before what is not training; a checkpoint holds the dev loss of its step, which may be the best; and
    # who is asked to end has saved that step.
    hooks = (
        Hook(run.add, every=1),
        Hook(run.observe_loss, every=1),
        Hook(run.flush_loss, every=recipe.log_every),
        Hook(run.flush_loss, every=recipe.checkpoint_every, when_asked=True),
        Hook(run.log, every=recipe.log_every),
        Hook(functools.partial(run.measure_dev, evaluate), every=recipe.eval_every),
        Hook(run.save, every=recipe.checkpoint_every, when_asked=True),
        Hook(_end_if_asked, every=1),
    )
    state, first = run.start()
    state = layout.shard_state(state)
    with run.recording(first, state.params), interruption.held(), named_training(run.config):
        run.set_status(f"training after step {first}")
        for step in range(first + recipe.steps_per_dispatch, recipe.steps + 1, recipe.steps_per_dispatch):
            batch = run.draw()
            state, metrics = train_step(state, batch)
            end = StepEnd(step, state, metrics, batch, last=step == recipe.steps, asked=interruption.asked)
            for hook in hooks:
                if hook.due(end):
                    hook.act(end)
    summaries = run.training_summaries()
    return gather(state), summaries


def _announce(run, layout):
    if skipped := run.members[0].batches.num_skipped:
        limit = f"data.row_length={run.config.data.row_length}"
        print(f"{skipped} training sentences are longer than {limit}: left out")
    if not layout.one:
        print(layout)


def _end_if_asked(end):
    if end.asked:
        raise Interrupted(f"after step {end.step}")

"""The loop over training steps: one step, then the hooks that are due."""

import functools
from collections.abc import Sequence

from tx.evaluation.perplexity import dev_batches, make_eval
from tx.runtime import distributed
from tx.runtime.memory import named_training
from tx.runtime.signals import Interrupted, Interruption
from tx.training.hooks import Hook, StepEnd
from tx.training.run_group import RunGroup
from tx.training.sharding import Layout, gather, make_step_over_devices
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
    group, interruption = RunGroup(members), interruption or Interruption()
    recipe, layout = group.config.train, Layout(group.config)
    _announce(group, layout)
    evaluate = make_eval(group.config, dev_batches(group.config, group.data), len(members))
    train_step = make_step_over_devices(*(m.config for m in members))
    hooks = (  # in this order
        Hook(group.add, every=1),
        Hook(group.observe_loss, every=1),
        # Losses still on their way are looked at before a line or a checkpoint is written of their steps.
        Hook(group.flush_loss, every=recipe.log_every),
        Hook(group.flush_loss, every=recipe.checkpoint_every, when_asked=True),
        Hook(group.log, every=recipe.log_every),  # before evaluation, whose seconds are no part of the speed
        Hook(functools.partial(group.measure_dev, evaluate), every=recipe.eval_every),
        Hook(group.save, every=recipe.checkpoint_every, when_asked=True),  # after it: this step may be the best
        Hook(_end_if_asked, every=1),  # with this step saved
    )
    state, first = group.start()
    state = layout.shard_state(state)
    # `held` is the outermost: a further signal must not end the wait for what is being saved.
    with interruption.held(), group.recording(first, state.params), named_training(group.config):
        group.set_status(f"training after step {first}")
        for step in range(first + recipe.steps_per_dispatch, recipe.steps + 1, recipe.steps_per_dispatch):
            drawn = group.draw()
            state, metrics = train_step(state, drawn.batch)
            asked = interruption.asked or distributed.asked_to_end()
            end = StepEnd(step, state, metrics, drawn, last=step == recipe.steps, asked=asked)
            for hook in hooks:
                if hook.due(end):
                    hook.act(end)
    if interruption.asked:  # while the last step's hooks were at work, or after them
        raise Interrupted(f"after step {recipe.steps}")
    summaries = group.training_summaries()
    return gather(state), summaries


def _announce(group, layout):
    if skipped := group.members[0].batches.num_skipped:
        limit = f"data.row_length={group.config.data.row_length}"
        print(f"{skipped} training sentences are longer than {limit}: left out")
    if empty := group.members[0].batches.num_empty:
        print(f"{empty} training sentences are empty on a side: left out")
    if not layout.one:
        print(layout)


def _end_if_asked(end):
    if end.asked:
        raise Interrupted(f"after step {end.step}")

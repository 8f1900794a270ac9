"""Checkpoints as tests make and read them."""

import jax

from tx.runs.checkpoints import Checkpoint, Checkpoints
from tx.training.progress import Progress
from tx.training.step import init_state


def checkpoint(state, step, data=None):
    """A checkpoint of a state, as of a step that nothing is said of but its number."""
    progress = Progress().saved(step, {"source": 0, "target": 0}, {}, 0.0)
    return Checkpoint(state.params, state.opt_state, data or {"epoch": step}, progress, state.ema)


def restored(run, config, step=None):
    """What a run's checkpoint of a step holds, by default of the newest."""
    checkpoints, like = Checkpoints(run.checkpoints), jax.eval_shape(lambda: init_state(config))
    found = checkpoints.restore(like.params, like.opt_state, step or checkpoints.newest(), like.ema)
    checkpoints.close()
    return found


def arrays(found):
    """The arrays of a checkpoint."""
    return found.params, found.opt_state, found.ema

"""Selection of a trained run's parameters: the last, the best on dev, or an average of checkpoints (section 6.1)."""

from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from tx.model.transformer import init_params
from tx.runs.checkpoints import Checkpoints
from tx.runs.identity import refuse_others
from tx.runs.run_dir import RunDir
from tx.runtime import distributed


class Selected(NamedTuple):
    """Selected parameters of a run, and which they are.

    Attributes:
      params: the model's.
      step: the last one that they have learned from.
      name: "last", "best" or "average of N", for result.json.
    """

    params: Any
    step: int
    name: str


def select_parameters(config: ConfigDict, run: RunDir, last: dict | None = None) -> Selected:
    """Returns the parameters of a trained run that its configuration selects.

    With decode.average_last > 1 they are the mean of the newest checkpoints (section 6.1), whatever train.select says;
    else the last, or, with train.select=best, those of the evaluation with the lowest dev loss. With train.ema the
    parameters of a checkpoint are its moving average. Of several processes every one must call it.

    Args:
      config: train.select and decode.average_last say which; the model's shapes are the run's.
      run: its checkpoints are read.
      last: such parameters after the last step, where they are at hand, so that they need not be read.

    Raises UserError where a checkpoint is missing, damaged, or another run's.
    """
    checkpoints = Checkpoints(run.checkpoints, every=config.train.checkpoint_every)
    item = "ema" if config.train.ema else "params"
    try:
        like = jax.eval_shape(lambda: init_params(config.model, config.train.seed))
        newest = checkpoints.newest()
        if config.decode.average_last > 1:
            _refuse_others(config, run, checkpoints.averaged_steps(config.decode.average_last))
            params = checkpoints.average(like, config.decode.average_last, item)
            return Selected(params, newest, f"average of {config.decode.average_last}")
        _refuse_others(config, run, [newest])
        best = checkpoints.best_of(newest) if config.train.select == "best" else None
        step = newest if best is None else best  # no dev loss was a number: there is no best
        if step != newest:
            _refuse_others(config, run, [step, newest])
        name = "last" if best is None else "best"
        params = last if last is not None and step == newest else checkpoints.parameters(like, [step], item)
        return Selected(params, step, name)
    finally:
        checkpoints.close()


def _refuse_others(config, run, steps):
    distributed.broadcast_value(lambda: refuse_others(run, config, steps))

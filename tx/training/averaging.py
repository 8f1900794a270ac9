"""Moving average of the parameters over the steps of a training (train.ema)."""

import math
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


def update_average(average: Any, params: Any, decay: float, step: Int[Array, ""]) -> Any:
    """Returns the exponential moving average of the parameters after a step, corrected for its bias.

    That is sum_i decay^(step - i) params_i / sum_i decay^(step - i) over the steps so far, as Adam corrects its means
    (Kingma and Ba 2015, section 3): the initial parameters, from which a short training does not come far, have no
    weight, and after the first step it is that step's parameters. It is kept corrected, so that who reads it need not
    know the step.

    Args:
      average: after the step before; before the first step, anything of finite numbers.
      params: after the step.
      decay: in (0, 1).
      step: the number of the step, from 1.
    """
    # (1 - decay) / (1 - decay^step), whose differences float32 would lose where decay is nearly 1.
    weight = (1.0 - decay) / -jnp.expm1(jnp.float32(math.log(decay)) * step.astype(jnp.float32))
    return optax.incremental_update(params, average, jnp.minimum(weight, 1.0))

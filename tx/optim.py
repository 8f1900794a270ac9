"""Adam and the paper's learning rate (section 5.3)."""

from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def schedule(optim: ConfigDict, d_model: int, lr_factor: Any = None, warmup_steps: Any = None) -> optax.Schedule:
    """Returns lr(step) = lr_factor * d_model^-0.5 * min(step^-0.5, step * warmup_steps^-1.5) (equation 3).

    Optax counts from 0 and the paper's formula from 1: the first update has step 1.

    Args:
      optim: `config.optim`.
      d_model: d_model.
      lr_factor, warmup_steps: instead of those of `optim`; may be traced.
    """
    lr_factor = optim.lr_factor if lr_factor is None else lr_factor
    warmup_steps = optim.warmup_steps if warmup_steps is None else warmup_steps

    def rate(count):
        step = jnp.asarray(count, jnp.float32) + 1.0
        warmup = step * jnp.maximum(jnp.asarray(warmup_steps, jnp.float32), 1.0) ** -1.5
        return lr_factor * d_model**-0.5 * jnp.minimum(step**-0.5, warmup)

    return rate


def optimizer(
    optim: ConfigDict, d_model: int, lr_factor: Any = None, warmup_steps: Any = None
) -> optax.GradientTransformation:
    """Returns Adam with the paper's constants under `schedule`, whose arguments these are; no decay, no clipping."""
    rate = schedule(optim, d_model, lr_factor, warmup_steps)
    return optax.adam(rate, b1=optim.beta1, b2=optim.beta2, eps=optim.epsilon)

"""Adam and the paper's learning rate (section 5.3)."""

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def schedule(optim: ConfigDict, d_model: int) -> optax.Schedule:
    """Returns lr(step) = lr_factor * d_model^-0.5 * min(step^-0.5, step * warmup_steps^-1.5) (equation 3).

    Optax counts from 0 and the paper's formula from 1: the first update has step 1.
    """

    def rate(count):
        step = jnp.asarray(count, jnp.float32) + 1.0
        warmup = step * max(optim.warmup_steps, 1) ** -1.5
        return optim.lr_factor * d_model**-0.5 * jnp.minimum(step**-0.5, warmup)

    return rate


def optimizer(optim: ConfigDict, d_model: int) -> optax.GradientTransformation:
    """Returns Adam with the paper's constants under `schedule`; no weight decay, no clipping."""
    return optax.adam(schedule(optim, d_model), b1=optim.beta1, b2=optim.beta2, eps=optim.epsilon)

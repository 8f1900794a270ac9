"""Adam and the learning rate (section 5.3); `@schedules.register(NAME)` adds a schedule."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from tx.registry import Registry

schedules = Registry("optim.schedule")
PAPER_WIDTH = 512  # d_model of the paper's base


@schedules.register("inverse_sqrt")
def inverse_sqrt(step: Float[Array, ""], warmup: Float[Array, ""], steps: int) -> Float[Array, ""]:
    """Returns step^-0.5, the paper's schedule (equation 3).

    A schedule is a function of step (from 1), warmup_steps (at least 1) and the number of steps of the training. It
    gives the rate after the warm-up, which leads up to it in a straight line; at its end all are warmup^-0.5.
    """
    return step**-0.5


@schedules.register("constant")
def constant(step: Float[Array, ""], warmup: Float[Array, ""], steps: int) -> Float[Array, ""]:
    """Returns the rate at the end of the warm-up, whatever the step."""
    return warmup**-0.5


@schedules.register("cosine")
def cosine(step: Float[Array, ""], warmup: Float[Array, ""], steps: int) -> Float[Array, ""]:
    """Returns a rate that falls to 0 at the last step along half a cosine (Loshchilov and Hutter 2017, no restarts)."""
    progress = jnp.clip((step - warmup) / jnp.maximum(steps - warmup, 1.0), 0.0, 1.0)
    return warmup**-0.5 * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))


def schedule(config: ConfigDict, lr_factor: Any = None, warmup_steps: Any = None) -> optax.Schedule:
    """Returns lr(step) = lr_factor * d_model^-0.5 * min(step^-0.5, step * warmup_steps^-1.5) (equation 3).

    optim.schedule puts another function in the place of step^-0.5; without optim.linear_warmup the rate has, until the
    warm-up would have ended, the height that it would have reached; without optim.scale_by_width it is that of a model
    of the paper's width, whatever d_model is.

    Optax counts from 0 and the paper's formula from 1: the first update has step 1.

    Args:
      config: a whole configuration.
      lr_factor, warmup_steps: instead of those of `config.optim`; may be traced.
    """
    optim, after = config.optim, schedules[config.optim.schedule]
    lr_factor = optim.lr_factor if lr_factor is None else lr_factor
    warmup_steps = optim.warmup_steps if warmup_steps is None else warmup_steps
    width = config.model.d_model if optim.scale_by_width else PAPER_WIDTH

    def rate(count):
        step = jnp.asarray(count, jnp.float32) + 1.0
        warmup = jnp.maximum(jnp.asarray(warmup_steps, jnp.float32), 1.0)
        before = step * warmup**-1.5 if optim.linear_warmup else warmup**-0.5
        return lr_factor * width**-0.5 * jnp.minimum(after(step, warmup, config.train.steps), before)

    return rate


def optimizer(config: ConfigDict, lr_factor: Any = None, warmup_steps: Any = None) -> optax.GradientTransformation:
    """Returns Adam with the paper's constants under `schedule`, whose arguments these are; no decay, no clipping."""
    optim, rate = config.optim, schedule(config, lr_factor, warmup_steps)
    return optax.adam(rate, b1=optim.beta1, b2=optim.beta2, eps=optim.epsilon)

"""Optimizers and the learning rate (section 5.3): `@optimizers.register(NAME)`, `@schedules.register(NAME)` add one.

The fields of those that are here are in tx/components.py; one of your own has them in the call of `register`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from tx.registry import Registry

schedules = Registry("optim.schedule", positional=3)
optimizers = Registry("optim.optimizer", positional=1)
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
    optim, after = config.optim, schedules.of(config.optim)
    lr_factor = optim.lr_factor if lr_factor is None else lr_factor
    warmup_steps = optim.warmup_steps if warmup_steps is None else warmup_steps
    width = config.model.d_model if optim.scale_by_width else PAPER_WIDTH

    def rate(count):
        step = jnp.asarray(count, jnp.float32) + 1.0
        warmup = jnp.maximum(jnp.asarray(warmup_steps, jnp.float32), 1.0)
        before = step * warmup**-1.5 if optim.linear_warmup else warmup**-0.5
        return lr_factor * width**-0.5 * jnp.minimum(after(step, warmup, config.train.steps), before)

    return rate


def _matrices(params):
    """Says of each parameter whether its weights decay: those of matrices do, norms, biases and scalars do not."""
    return jax.tree.map(lambda parameter: parameter.ndim > 1, params)


@optimizers.register("adam")
def adam(rate: optax.Schedule, *, beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Returns Adam (Kingma and Ba 2015), the paper's (section 5.3).

    An optimizer is a function of the rate, itself a function of the number of updates so far, and of its fields.
    """
    return optax.adam(rate, b1=beta1, b2=beta2, eps=epsilon)


@optimizers.register("adamw")
def adamw(
    rate: optax.Schedule, *, beta1: float, beta2: float, epsilon: float, weight_decay: float
) -> optax.GradientTransformation:
    """Returns AdamW: Adam, and matrices that decay by themselves (Loshchilov and Hutter 2019)."""
    return optax.adamw(rate, b1=beta1, b2=beta2, eps=epsilon, weight_decay=weight_decay, mask=_matrices)


@optimizers.register("lion")
def lion(rate: optax.Schedule, *, b1: float, b2: float, weight_decay: float) -> optax.GradientTransformation:
    """Returns Lion, whose updates are signs (Chen et al. 2023); it wants a rate 3 to 10 times lower than Adam's."""
    return optax.lion(rate, b1=b1, b2=b2, weight_decay=weight_decay, mask=_matrices)


@optimizers.register("adafactor")
def adafactor(
    rate: optax.Schedule,
    *,
    decay_rate: float,
    clipping_threshold: float,
    multiply_by_parameter_scale: bool,
    min_dim_size_to_factor: int,
    weight_decay: float,
) -> optax.GradientTransformation:
    """Returns Adafactor (Shazeer and Stern 2018), which keeps the mean squares of a matrix by row and column."""
    return optax.adafactor(
        rate,
        decay_rate=decay_rate,
        clipping_threshold=clipping_threshold or None,
        multiply_by_parameter_scale=multiply_by_parameter_scale,
        min_dim_size_to_factor=min_dim_size_to_factor,
        weight_decay_rate=(lambda count: weight_decay * rate(count)) if weight_decay else None,
        weight_decay_mask=_matrices,
    )


@optimizers.register("sgd")
def sgd(rate: optax.Schedule, *, momentum: float, nesterov: bool, weight_decay: float) -> optax.GradientTransformation:
    """Returns stochastic gradient descent with momentum (Sutskever et al. 2013); a momentum of 0 keeps none."""
    decay = optax.add_decayed_weights(weight_decay, _matrices)
    return optax.chain(decay, optax.sgd(rate, momentum=momentum or None, nesterov=nesterov))


@optimizers.register("muon")
def muon(
    rate: optax.Schedule,
    *,
    momentum: float,
    nesterov: bool,
    ns_steps: int,
    consistent_rms: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> optax.GradientTransformation:
    """Returns Muon (Jordan et al. 2024; Liu et al. 2025) for hidden matrices, AdamW for all other parameters.

    Hidden matrices are the kernels of `tx.model.layers.Dense`; embeddings, positions, norms and biases are no such. The
    update of a matrix is its momentum made orthogonal.
    """
    hidden = optax.contrib.muon(
        rate,
        ns_steps=ns_steps,
        beta=momentum,
        nesterov=nesterov,
        consistent_rms=consistent_rms or None,
        weight_decay=weight_decay,
    )
    others = adamw(rate, beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay)
    return optax.partition({"hidden": hidden, "other": others}, _hidden_or_other)


def _hidden_or_other(params):
    def label(path, parameter):
        return "hidden" if path[-1].key == "kernel" and parameter.ndim == 2 else "other"

    return jax.tree_util.tree_map_with_path(label, params)


_OF_ELEMENTS = ("adam", "adamw", "lion", "sgd")


def treats_elements_alone(optim: ConfigDict) -> bool:
    """Returns whether the optimizer does to each element what depends on no other (`tx.kernels.update`)."""
    return optim.optimizer in _OF_ELEMENTS and not optim.clip_norm


def optimizer(config: ConfigDict, lr_factor: Any = None, warmup_steps: Any = None) -> optax.GradientTransformation:
    """Returns the optimizer that `config.optim` chooses under `schedule`, whose arguments these are.

    With optim.clip_norm the gradients are clipped by their norm over all parameters first (Pascanu et al. 2013). Random
    keys of its state are there as their data.
    """
    chosen = _with_key_data(optimizers.of(config.optim)(schedule(config, lr_factor, warmup_steps)))
    if not config.optim.clip_norm:
        return chosen
    return optax.chain(optax.clip_by_global_norm(config.optim.clip_norm), chosen)


def _with_key_data(made):
    """Returns an optimizer in whose state numbers stand for random keys: checkpoints and devices take no others."""

    def unwrapped(state):
        return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, state)

    def init(params):
        return unwrapped(made.init(params))

    def update(grads, state, params=None):
        kinds = []  # of key, for each leaf

        def note(params):
            kinds.extend(jax.random.key_impl(x) if _is_key(x) else None for x in jax.tree.leaves(made.init(params)))

        jax.eval_shape(note, params)
        if any(kinds):
            leaves, structure = jax.tree.flatten(state)
            pairs = zip(leaves, kinds, strict=True)
            leaves = [jax.random.wrap_key_data(leaf, impl=kind) if kind else leaf for leaf, kind in pairs]
            state = jax.tree.unflatten(structure, leaves)
        updates, state = made.update(grads, state, params)
        return updates, unwrapped(state)

    return optax.GradientTransformation(init, update)


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)

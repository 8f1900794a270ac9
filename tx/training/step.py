"""Training step: loss, gradient, the optimizer's update (section 5.3), and the state that they change."""

import functools
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from tx.data.packing import Batch
from tx.kernels.update import update_elements
from tx.model import kernel_params, prng
from tx.model.loss import batch_loss, count_targets
from tx.model.transformer import init_params
from tx.runtime import backend
from tx.runtime.trees import stack
from tx.training.averaging import update_average
from tx.training.optimizer import optimizer, optimizers, schedule, treats_elements_alone
from tx.training.stacking import TracedHyperparameters


@flax.struct.dataclass
class TrainState:
    """Everything a step changes; its leaves are arrays, or what stands for them (shapes, shardings).

    Attributes:
      step: int32 (), the number of updates so far.
      params: the model's parameters.
      opt_state: the optimizer's: Adam's moments and its count.
      ema: with train.ema, the moving average of the parameters; else None, which has no leaves.
    """

    step: Any
    params: Any
    opt_state: Any
    ema: Any = None

    @property
    def eval_params(self) -> Any:
        """The parameters that dev loss and translation are of: the moving average, where there is one."""
        return self.params if self.ema is None else self.ema


def init_state(config: ConfigDict) -> TrainState:
    """Returns the state before the first step; a function of the seed alone."""
    params = init_params(config.model, config.train.seed)
    # A copy: the step takes the memory of both.
    ema = jax.tree.map(jnp.copy, params) if config.train.ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer(config).init(params), ema)


def train_step(
    config: ConfigDict,
    state: TrainState,
    batch: dict[str, jax.Array],
    hyperparameters: TracedHyperparameters,
    *,
    parts: int = 1,
    axis: str | None = None,
) -> tuple[TrainState, dict]:
    """Returns (state after one update, its metrics): a pure function of its arrays.

    In order: random key, loss and gradient (added over micro-batches and devices), the update, the moving average
    of the parameters, metrics: "loss" and "nll", in nats; "grad_norm", the gradient's Euclidean norm,
    "layer_grad_norms", those of each of `layers`.

    Args:
      config: shapes and structure.
      state: before the update.
      batch: packed sentences.
      hyperparameters: the traced ones.
      parts: how many equal parts of the batch lie on different devices.
      axis: a mapped axis over which the batch is the union of what each device is given. Each draws dropout
        masks of its own; loss and update are those of the whole batch, the same everywhere.
    """
    rng = jax.random.fold_in(_key(config, hyperparameters.seed), state.step)
    tokens = count_targets(batch)
    if axis is not None:
        rng = jax.random.fold_in(rng, jax.lax.axis_index(axis))
        tokens = jax.lax.psum(tokens, axis)

    by_kernels = config.model.kernels == "pallas"
    given = (state.params, None)
    if by_kernels:
        rows = batch["tgt"].size // config.train.micro_batches
        given = kernel_params.prepare(state.params, config.model.dtype, rows)
    sums = _sums_and_gradients(config, given, batch, hyperparameters, rng, tokens, parts)
    if axis is not None:
        sums = jax.lax.psum(sums, axis)
    (value, nll), (grads, vectors) = sums
    if by_kernels:
        grads = kernel_params.gather(grads, vectors)
    after, norms = _updated(config, state, grads, hyperparameters)
    metrics = {"loss": value, "nll": nll, "grad_norm": jnp.linalg.norm(norms), "layer_grad_norms": norms}
    return after, metrics


def _sums_and_gradients(config, given, batch, hyperparameters, rng, tokens, parts):
    """Returns (the batch's sums, gradients of the first), added over micro-batches.

    The sums are of loss and nll, each token's share of `tokens`; `given` is (parameters, what the gradients of vectors
    come as: see `tx.model.kernel_params`, or None).
    """

    @functools.partial(jax.value_and_grad, has_aux=True)
    def weighted_loss(given, rows, rng):
        """The rows' mean loss times their share of the batch's target tokens: these add up to the batch's mean."""
        params, vectors = given
        means = batch_loss(config, params, rows, hyperparameters, rng, parts, vectors=vectors)
        loss, nll = (count_targets(rows) / jnp.maximum(tokens, 1.0) * mean for mean in means)
        return loss, nll

    count = config.train.micro_batches
    if count == 1:
        return weighted_loss(given, batch, rng)
    # Every count-th row: so each device keeps the rows that it has.
    rows = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(sums, piece):
        rows, index = piece
        more = weighted_loss(given, rows, jax.random.fold_in(rng, index))
        return jax.tree.map(lambda total, part: total + part.astype(total.dtype), sums, more), None

    zero = jnp.zeros((), jnp.float32)
    start = ((zero, zero), jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), given))
    return jax.lax.scan(add, start, (rows, jnp.arange(count)))[0]


def _updated(config, state, grads, hyperparameters) -> tuple[TrainState, jax.Array]:
    """Returns the state after an update along gradients and a step of the average, and the norms of `layers`."""
    varied = (config, hyperparameters.lr_factor, hyperparameters.warmup_steps)
    if config.model.kernels == "pallas" and treats_elements_alone(config.optim):
        names = layers(state.params)
        labels = [names.index(path[0].key) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)]
        params, opt_state, norms = update_elements(
            optimizers.of(config.optim), schedule(*varied), state.params, grads, state.opt_state, labels
        )
    else:
        grads = jax.tree.map(lambda grad, param: grad.astype(param.dtype), grads, state.params)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 and float32 in its bias correction
            updates, opt_state = optimizer(*varied).update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norms = jnp.stack([optax.tree.norm(grads[layer]) for layer in layers(grads)])
    ema = update_average(state.ema, params, config.train.ema, state.step + 1) if config.train.ema else None
    return TrainState(state.step + 1, params, opt_state, ema), norms


def _key(config, seed):
    """Returns the key of the dropout's masks; with model.kernels=pallas without Threefry's kernels for each."""
    return prng.key(seed) if config.model.kernels == "pallas" else jax.random.key(seed)


def layers(params: dict) -> list[str]:
    """Returns the names of a model's layers, as its parameters are grouped."""
    return sorted(params)


def make_train_step(*configs: ConfigDict) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """Returns the jitted step: (state, batch) -> (state after one update, its metrics); the state is donated.

    Several configurations (of one `compile_key`) are updated side by side: state, batch and metrics are then those of
    each, in one `stack`. With train.steps_per_dispatch > 1 a call makes so many updates: every leaf of a batch, and
    every metric, has an axis for them, behind that of the members.
    """
    step = jit_train_step(configs[0], len(configs))
    hyperparameters = stack([TracedHyperparameters.of(config) for config in configs], np.stack)
    return lambda state, batch: step(state, batch, hyperparameters)


def jit_train_step(config: ConfigDict, members: int) -> Callable:
    """Returns the jitted step of so many runs: (state, batch, hyperparameters) -> (state, metrics), on one device."""
    step = functools.partial(train_step, config)
    if config.train.steps_per_dispatch > 1:
        step = functools.partial(_scan_train_steps, config)
    if members > 1:
        step = jax.vmap(step)
    return jax.jit(step, donate_argnums=0, compiler_options=backend.training_options())


def _scan_train_steps(config, state, batches, hyperparameters):
    """Makes an update with each of some stacked batches."""
    return jax.lax.scan(lambda state, batch: train_step(config, state, batch, hyperparameters), state, batches)

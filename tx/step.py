"""One update of the parameters: the state it changes, the loss it descends, and the dev perplexity."""

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
from tx.loss import cross_entropy
from tx.model import Transformer
from tx.optim import optimizer


@flax.struct.dataclass
class TrainState:
    """Everything a step changes; its leaves are arrays, or what stands for them (shapes, shardings).

    Attributes:
      step: int32 (), the number of updates so far.
      params: the model's parameters.
      opt_state: Adam's moments and its count.
    """

    step: Any
    params: Any
    opt_state: Any


def init_state(config: ConfigDict) -> TrainState:
    """Returns the state before the first step; a function of the seed alone."""
    empty = jnp.zeros((1, 1), jnp.int32)
    params = Transformer(**config.model).init(jax.random.key(config.train.seed), empty, empty)["params"]
    opt_state = optimizer(config.optim, config.model.d_model).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


def batch_loss(
    config: ConfigDict,
    params: dict,
    batch: dict[str, jax.Array],
    rng: jax.Array | None,
    label_smoothing: float,
) -> tuple[jax.Array, jax.Array]:
    """Returns (loss, negative log-likelihood), means over the batch's target tokens; dropout if there is an rng."""
    hidden = Transformer(**config.model).apply(
        {"params": params},
        **batch,
        train=rng is not None,
        rngs=None if rng is None else {"dropout": rng},
        method="hidden",
    )
    return cross_entropy(
        hidden.reshape(-1, config.model.d_model),
        params["embedding"],
        batch["tgt"].reshape(-1),
        label_smoothing=label_smoothing,
        smooth_over=config.loss.smooth_over,
    )


def make_train_step(config: ConfigDict) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """Returns the jitted step: (state, batch) -> (state after one update, {"loss", "nll"}); the state is donated."""
    update = optimizer(config.optim, config.model.d_model).update

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state, batch):
        rng = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
        loss = functools.partial(batch_loss, config, batch=batch, rng=rng, label_smoothing=config.loss.label_smoothing)
        (value, nll), grads = jax.value_and_grad(lambda params: loss(params), has_aux=True)(state.params)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 and float32 in its bias correction
            updates, opt_state = update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), {"loss": value, "nll": nll}

    return train_step


def make_eval(config: ConfigDict, batches: list[Batch]) -> Callable[[dict], dict]:
    """Returns a function of parameters: {"nll", "ppl", "tokens"} over the batches.

    ppl is exp of the mean negative log-likelihood per target subword, end of sentence included, without smoothing.
    """

    @jax.jit
    def nll(params, batch):
        return batch_loss(config, params, batch, None, 0.0)[1] * (batch["tgt"] != 0).sum().astype(jnp.float32)

    count = sum(int((batch["tgt"] != 0).sum()) for batch in batches)

    def evaluate(params):
        mean = float(np.sum([float(nll(params, batch)) for batch in batches], dtype=np.float64)) / count
        return {"nll": mean, "ppl": float(np.exp(mean)), "tokens": count}

    return evaluate

"""One update of the parameters: the state it changes, the loss it descends, and the dev perplexity."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict, FrozenConfigDict

from tx import config as config_lib
from tx.data.packing import Batch
from tx.model import prng
from tx.model.loss import cross_entropy
from tx.model.transformer import Transformer, projection
from tx.training.optimizer import optimizer


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


@flax.struct.dataclass
class Values:
    """The numbers of a configuration that shape nothing: a step takes them as arguments.

    So configurations that differ in these alone share one compiled step, or train side by side in it. A dropout of 0
    is not among them: it is left out of the program.
    """

    seed: Any
    dropout: Any
    attention_dropout: Any
    relu_dropout: Any
    label_smoothing: Any
    lr_factor: Any
    warmup_steps: Any

    @classmethod
    def of(cls, config: ConfigDict) -> "Values":
        """Reads them off a configuration, as scalars of NumPy."""
        fields = config_lib.fields(config)
        return cls(
            **{
                name: np.asarray(fields[path], np.uint32 if name == "seed" else np.float32)
                for name, path in VALUE_FIELDS.items()
            }
        )


VALUE_FIELDS = {
    "seed": "train.seed",
    "dropout": "model.dropout",
    "attention_dropout": "model.attention_dropout",
    "relu_dropout": "model.relu_dropout",
    "label_smoothing": "loss.label_smoothing",
    "lr_factor": "optim.lr_factor",
    "warmup_steps": "optim.warmup_steps",
}


def program(config: ConfigDict) -> dict[str, object]:
    """Returns the fields that make runs different programs; where they are equal, runs can train side by side.

    A dropout is replaced by whether there is one, the other `Values` and the name are left out.
    """
    fields = config_lib.fields(config)
    del fields["name"]
    for name, path in VALUE_FIELDS.items():
        value = fields.pop(path)
        if "dropout" in name:
            fields[path] = value > 0
    return fields


def init_state(config: ConfigDict) -> TrainState:
    """Returns the state before the first step; a function of the seed alone."""
    params = _parameters(Transformer(**config.model), np.uint32(config.train.seed))
    opt_state = optimizer(config).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state)


@functools.partial(jax.jit, static_argnums=0)
def _parameters(model, seed):
    empty = jnp.zeros((1, 1), jnp.int32)
    return model.init(prng.key(seed), empty, empty)["params"]


def batch_loss(
    config: ConfigDict,
    params: dict,
    batch: dict[str, jax.Array],
    values: Values | None = None,
    rng: jax.Array | None = None,
    parts: int = 1,
    source: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns (loss, negative log-likelihood), means over the batch's target tokens.

    Args:
      config: shapes and structure.
      params: the model's parameters.
      batch: packed sentences.
      values: dropout and label smoothing; None for neither, as in evaluation.
      rng: of the dropout; not used without values.
      parts: how many equal parts of the batch lie on different devices.
      source: what the encoder's output is multiplied by, as in `Transformer.hidden`.
    """
    model = dict(config.model)
    if values is not None:
        model |= {name: getattr(values, name) for name in model if "dropout" in name and model[name] > 0}
    hidden = Transformer(**model).apply(
        {"params": params},
        **batch,
        source=source,
        train=values is not None,
        rngs=None if values is None else {"dropout": rng},
        method="hidden",
    )
    return cross_entropy(
        hidden.reshape(-1, config.model.d_model),
        projection(params),
        batch["tgt"].reshape(-1),
        label_smoothing=0.0 if values is None else values.label_smoothing,
        smooth_over=config.loss.smooth_over,
        parts=parts,
    )


def update(
    config: ConfigDict,
    state: TrainState,
    batch: dict[str, jax.Array],
    values: Values,
    *,
    parts: int = 1,
    axis: str | None = None,
) -> tuple[TrainState, dict]:
    """Returns (state after one update, its metrics): the step itself, a pure function of its arrays.

    The metrics are "loss" and "nll", in nats; "grad_norm", the Euclidean norm of the gradient, and "layer_grad_norms",
    those of each layer's, in the order of `layers`.

    Args:
      config: shapes and structure.
      state: before the update.
      batch: packed sentences.
      values: the numbers that are arguments.
      parts: how many equal parts of the batch lie on different devices.
      axis: a mapped axis over which the batch is the union of what each place is given. Each place draws dropout
        masks of its own; loss and update are those of the whole batch, the same everywhere.
    """
    rng = jax.random.fold_in(jax.random.key(values.seed), state.step)
    if axis is not None:
        rng = jax.random.fold_in(rng, jax.lax.axis_index(axis))
    tokens = _tokens(batch)
    if axis is not None:
        tokens = jax.lax.psum(tokens, axis)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def share(params, rows, rng):
        """A mean over all target tokens, of which rows have more or fewer: not the mean of their means."""
        means = batch_loss(config, params, rows, values, rng, parts)
        loss, nll = (_tokens(rows) / jnp.maximum(tokens, 1.0) * mean for mean in means)
        return loss, nll

    count = config.train.micro_batches
    if count == 1:
        sums = share(state.params, batch, rng)
    else:
        # Every count-th row: so each device keeps the rows that it has.
        rows = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)

        def add(sums, piece):
            rows, index = piece
            return jax.tree.map(jnp.add, sums, share(state.params, rows, jax.random.fold_in(rng, index))), None

        zero = jnp.zeros((), jnp.float32)
        start = ((zero, zero), jax.tree.map(jnp.zeros_like, state.params))
        sums, _ = jax.lax.scan(add, start, (rows, jnp.arange(count)))
    if axis is not None:
        sums = jax.lax.psum(sums, axis)
    (value, nll), grads = sums
    adam = optimizer(config, values.lr_factor, values.warmup_steps)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 and float32 in its bias correction
        updates, opt_state = adam.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    norms = jnp.stack([optax.tree.norm(grads[layer]) for layer in layers(grads)])
    metrics = {"loss": value, "nll": nll, "grad_norm": jnp.linalg.norm(norms), "layer_grad_norms": norms}
    return TrainState(state.step + 1, params, opt_state), metrics


def layers(params: dict) -> list[str]:
    """Returns the names of a model's layers, as its parameters are grouped."""
    return sorted(params)


def _tokens(batch):
    """The target tokens of rows."""
    return (batch["tgt"] != 0).sum().astype(jnp.float32)


def stack(trees: Sequence[Any], join: Callable = jnp.stack) -> Any:
    """Joins trees of one structure on a new leading axis of every leaf; a single tree stays as it is."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: join(leaves), *trees)


def member(tree: Any, index: int, members: int) -> Any:
    """Returns one of the `members` trees that `stack` joined."""
    return tree if members == 1 else _take(tree, np.int32(index))


@jax.jit
def _take(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def make_train_step(*configs: ConfigDict) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """Returns the jitted step: (state, batch) -> (state after one update, its metrics); the state is donated.

    Several configurations (of one `program`) are updated side by side: state, batch and metrics are then those of
    each, in one `stack`. With train.steps_per_dispatch > 1 a call makes so many updates: every leaf of a batch, and
    every metric, has an axis for them, behind that of the members.
    """
    step = functools.partial(update, configs[0])
    if configs[0].train.steps_per_dispatch > 1:
        step = functools.partial(_updates, configs[0])
    if len(configs) > 1:
        step = jax.vmap(step)
    step, values = jax.jit(step, donate_argnums=0), stack([Values.of(config) for config in configs], np.stack)
    return lambda state, batch: step(state, batch, values)


def _updates(config, state, batches, values):
    """One update a batch; batches are stacked."""
    return jax.lax.scan(lambda state, batch: update(config, state, batch, values), state, batches)


def make_eval(config: ConfigDict, batches: list[Batch], members: int = 1) -> Callable[..., list[dict]]:
    """Returns a function of parameters: for each member {"nll", "ppl", "tokens"} over the batches.

    ppl is exp of the mean negative log-likelihood per target subword, end of sentence included, without smoothing. With
    `source=0.0` it is that of a model of the target language alone, for which the encoder's output is zero.

    Args:
      config: of any of the members.
      batches: the same for all.
      members: how many there are; the parameters are a `stack` of so many.
    """
    nll = _nll(FrozenConfigDict({"model": config.model.to_dict(), "loss": config.loss.to_dict()}), members > 1)
    count = sum(int((batch["tgt"] != 0).sum()) for batch in batches)

    def evaluate(params: Any, source: float = 1.0) -> list[dict]:
        scale = np.float32(source)
        sums = [np.asarray(nll(params, batch, scale), np.float64).reshape(members) for batch in batches]
        means = [row.sum() / count for row in np.stack(sums, axis=1)]
        with np.errstate(over="ignore"):  # what has diverged may have an infinite perplexity
            return [{"nll": float(mean), "ppl": float(np.exp(mean)), "tokens": count} for mean in means]

    return evaluate


@functools.lru_cache
def _nll(config: FrozenConfigDict, stacked: bool) -> Callable:
    """Returns the jitted sum over a batch; one for all runs of equal `config` (frozen: "model" and "loss")."""

    def nll(params, batch, source):
        return batch_loss(config, params, batch, source=source)[1] * _tokens(batch)

    return jax.jit(jax.vmap(nll, in_axes=(0, None, None)) if stacked else nll)

"""Smoothed cross-entropy (section 5.4), fused with the projection to the vocabulary and taken in chunks.

All logits of a batch are (tokens, V): with a large vocabulary they cost more to write and read than to compute. Here a
chunk's logits are used, for the loss and for its gradient at once, and dropped; so they are for every other loss of a
token's logits (tx/model/losses.py).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from tx.errors import UserError
from tx.kernels.cross_entropy import cross_entropy_with_gradient
from tx.model.kernel_params import PARTS
from tx.model.layers import DROPOUTS, scaled
from tx.model.losses import Labels, losses
from tx.model.transformer import Transformer, projection
from tx.runtime.backend import loss_chunk


def smoothing(label_smoothing: Any, vocab_size: int, smooth_over: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (low, peak, entropy) of the smoothed target distribution q = low + peak * [class is the target].

    With smooth_over "others" the probability eps goes to the V - 1 other classes (the June 2017 code), with "all" to
    all V. `entropy` is that of q, the least value of the cross-entropy, which the loss subtracts. The amount may be
    traced.
    """
    eps = jnp.asarray(label_smoothing, jnp.float32)
    low = eps / (vocab_size - 1 if smooth_over == "others" else vocab_size)
    peak = 1.0 - eps - (low if smooth_over == "others" else 0.0)
    top = low + peak
    entropy = -(xlogy(top, top) + (vocab_size - 1) * xlogy(low, low))
    return low, peak, entropy


def cross_entropy(
    hidden: Float[Array, "tokens d"],
    table: Float[Array, "vocab d"],
    targets: Int[Array, " tokens"],
    *,
    label_smoothing: Any,
    smooth_over: str,
    loss: Callable | None = None,
    chunk: int | None = None,
    parts: int = 1,
    kernels: str = "xla",
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the mean over target tokens of (smoothed loss, negative log-likelihood), float32, in nats.

    With `loss`, as tx/model/losses.py has them, the first is the mean of that one.

    Logits are hidden @ table.T; target 0 is padding and counts nothing. The loss is the cross-entropy with the
    smoothed targets minus their entropy; only it has a gradient.

    The tokens may lie on several devices, in `parts` equal parts, one after the other. Each part is then cut into
    chunks by itself, so that every device works on its own: a loop over all chunks would bring each to all devices.

    `kernels` "pallas" makes the loss and its gradient in one kernel (tx/kernels/cross_entropy.py).
    """
    chunk = chunk or loss_chunk(hidden.shape[0] // parts, table.shape[0], kernels)
    low, peak, entropy = smoothing(label_smoothing, table.shape[0], smooth_over)
    count = jnp.maximum((targets != 0).sum(), 1).astype(jnp.float32)

    def sums(h, y):
        if loss is None:
            return _sums(h, table, y, low, peak, chunk, kernels)
        return _sums_of_any(h, table, y, low, peak, entropy, loss, chunk)

    if parts == 1:
        total, nll = sums(hidden, targets)
    else:
        hidden, targets = (x.reshape(parts, -1, *x.shape[1:]) for x in (hidden, targets))
        total, nll = (x.sum() for x in jax.vmap(sums)(hidden, targets))
    return total / count - (entropy if loss is None else 0.0), jax.lax.stop_gradient(nll / count)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _sums(hidden, table, targets, low, peak, chunk, kernels):
    """Sums over tokens of the smoothed cross-entropy and of the negative log-likelihood."""

    def body(sums, part):
        h, y = part
        logits = _logits(h, table, jnp.float32)
        return jax.tree.map(jnp.add, sums, _chunk_sums(h, table, y, logits, low, peak)[0]), None

    zero = jnp.zeros((), jnp.float32)
    return jax.lax.scan(body, (zero, zero), _chunks(hidden, targets, chunk))[0]


def _sums_forward(hidden, table, targets, low, peak, chunk, kernels):
    """Also leaves the gradients of the loss sum behind: the logits are at hand here and nowhere else."""

    def of_chunk(h, y):
        logits = _logits(h, table, h.dtype)  # written once and read three times: half the width is half the time
        chunk_sums, log_normaliser = _chunk_sums(h, table, y, logits, low, peak)
        hit = (jnp.arange(table.shape[0])[None, :] == y[:, None]).astype(jnp.float32)
        d_logits = jnp.exp(logits - log_normaliser[:, None]) - low - peak * hit
        return chunk_sums, jnp.where((y != 0)[:, None], d_logits, 0.0).astype(h.dtype)

    def of_chunk_by_kernel(h, y):
        logits = _product(h, table, h.dtype)
        log_normaliser, at_target, d_logits = cross_entropy_with_gradient(logits, y, low, peak)
        return _weighted_sums(h, table, y, log_normaliser, at_target, low, peak), d_logits

    of_each = of_chunk_by_kernel if kernels == "pallas" else of_chunk
    return _sums_and_gradients(of_each, hidden, table, targets, chunk)


def _sums_and_gradients(of_chunk, hidden, table, targets, chunk):
    """Adds the sums that `of_chunk` gives, and turns the gradients of its logits into those of hidden and table."""

    def body(carry, part):
        sums, d_table = carry
        h, y = part
        chunk_sums, d_logits = of_chunk(h, y)
        d_hidden = jnp.matmul(d_logits, table.astype(h.dtype), preferred_element_type=jnp.float32)
        d_table += jnp.matmul(h.T, d_logits, preferred_element_type=jnp.float32)  # transposed: faster on a CPU
        return (jax.tree.map(jnp.add, sums, chunk_sums), d_table), d_hidden.astype(h.dtype)

    zero = jnp.zeros((), jnp.float32)
    start = ((zero, zero), jnp.zeros(table.shape[::-1], jnp.float32))
    (sums, d_table), d_hidden = jax.lax.scan(body, start, _chunks(hidden, targets, chunk))
    return sums, (d_hidden.reshape(-1, hidden.shape[-1])[: hidden.shape[0]], d_table)


def _sums_backward(chunk, kernels, residuals, cotangents):
    d_hidden, d_table = residuals
    scale = cotangents[0]
    return (scaled(d_hidden, scale), (d_table * scale).T, None, None, None)


_sums.defvjp(_sums_forward, _sums_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _sums_of_any(hidden, table, targets, low, peak, entropy, loss, chunk):
    """Sums over tokens of a loss of tx/model/losses.py, and of the negative log-likelihood."""

    def body(sums, part):
        h, y = part
        logits = _logits(h, table, jnp.float32)
        return jax.tree.map(jnp.add, sums, _chunk_sums_of_any(logits, Labels(y, low, peak, entropy), loss)), None

    zero = jnp.zeros((), jnp.float32)
    return jax.lax.scan(body, (zero, zero), _chunks(hidden, targets, chunk))[0]


def _sums_of_any_forward(hidden, table, targets, low, peak, entropy, loss, chunk):
    def of_chunk(h, y):
        def sums(logits):
            return _chunk_sums_of_any(logits, Labels(y, low, peak, entropy), loss)

        chunk_sums, d_logits = jax.value_and_grad(sums, has_aux=True)(_logits(h, table, h.dtype))
        # Of padding a loss may have no slope, as a deviation of logits that are all equal: 0 times NaN is NaN.
        return chunk_sums, jnp.where((y != 0)[:, None], d_logits, 0.0).astype(h.dtype)

    return _sums_and_gradients(of_chunk, hidden, table, targets, chunk)


def _sums_of_any_backward(loss, chunk, residuals, cotangents):
    return *_sums_backward(chunk, "xla", residuals, cotangents), None


_sums_of_any.defvjp(_sums_of_any_forward, _sums_of_any_backward)


def _chunk_sums_of_any(logits, labels, loss):
    real = labels.tokens != 0
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels.tokens[:, None], axis=-1)[:, 0]
    values = loss(logits, labels)
    if jnp.shape(values) != real.shape:  # which would be stretched to that of `real`, or this to it
        name = getattr(getattr(loss, "func", loss), "__name__", "of loss.name")
        raise UserError(
            f"the loss {name} gives values of shape {jnp.shape(values)} for {real.size} tokens; a loss gives one a "
            f"token, of shape {real.shape}: reduce the last axis alone, without keepdims"
        )
    return tuple(jnp.where(real, each, 0.0).sum() for each in (values, nll))


def _chunks(hidden, targets, chunk):
    """Cuts tokens into chunks of one size; what is added at the end has target 0."""
    chunk = min(chunk, hidden.shape[0])
    missing = -hidden.shape[0] % chunk
    hidden = jnp.pad(hidden, ((0, missing), (0, 0)))
    return hidden.reshape(-1, chunk, hidden.shape[-1]), jnp.pad(targets, (0, missing)).reshape(-1, chunk)


def _logits(h, table, dtype):
    """Written in this width; what is computed from them is float32."""
    return _product(h, table, dtype).astype(jnp.float32)


def _product(h, table, dtype):
    return jax.lax.dot_general(
        h, table.astype(h.dtype), (((1,), (1,)), ((), ())), preferred_element_type=jnp.dtype(dtype)
    )


def _chunk_sums(h, table, y, logits, low, peak):
    log_normaliser = jax.nn.logsumexp(logits, axis=-1)
    at_target = jnp.take_along_axis(logits, y[:, None], axis=-1)[:, 0]
    return _weighted_sums(h, table, y, log_normaliser, at_target, low, peak), log_normaliser


def _weighted_sums(h, table, y, log_normaliser, at_target, low, peak):
    """-sum q log p = log Z - peak * z_target - low * sum z, as q sums to 1; sum z = h . (sum of the table's rows)."""
    total = h.astype(jnp.float32) @ table.sum(0)
    real = (y != 0).astype(jnp.float32)
    loss = (real * (log_normaliser - peak * at_target - low * total)).sum()
    return loss, (real * (log_normaliser - at_target)).sum()


def count_targets(batch: dict[str, jax.Array]) -> Float[Array, ""]:
    """Returns the number of target tokens of a batch, padding aside."""
    return (batch["tgt"] != 0).sum().astype(jnp.float32)


def batch_loss(
    config: ConfigDict,
    params: dict,
    batch: dict[str, jax.Array],
    hyperparameters: Any = None,
    rng: jax.Array | None = None,
    parts: int = 1,
    source: jax.Array | None = None,
    vectors: dict | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns (loss, negative log-likelihood), means over the batch's target tokens.

    Args:
      config: shapes and structure.
      params: the model's parameters.
      batch: packed sentences.
      hyperparameters: dropout and label smoothing (`tx.training.stacking`); None for neither, as in evaluation, where
        the loss is the cross-entropy whatever loss.name is.
      rng: of the dropout; not used without them.
      parts: how many equal parts of the batch lie on different devices.
      source: what the encoder's output is multiplied by, as in `Transformer.hidden`.
      vectors: what the gradients of vectors are to come as (`tx.model.kernel_params.prepare`).
    """
    model = dict(config.model)
    if hyperparameters is not None:
        model |= {name: getattr(hyperparameters, name) for name in DROPOUTS if model[name] > 0}
    hidden = Transformer(**model).apply(
        {"params": params} if vectors is None else {"params": params, PARTS: vectors},
        **batch,
        source=source,
        train=hyperparameters is not None,
        remat=hyperparameters is not None and config.train.remat,
        rngs=None if hyperparameters is None else {"dropout": rng},
        method="hidden",
    )
    by_formula = hyperparameters is None or config.loss.name == "label_smoothed"
    return cross_entropy(
        hidden.reshape(-1, config.model.d_model),
        projection(params),
        batch["tgt"].reshape(-1),
        label_smoothing=0.0 if hyperparameters is None else hyperparameters.label_smoothing,
        smooth_over=config.loss.smooth_over,
        loss=None if by_formula else losses.of(config.loss),
        parts=parts,
        kernels=config.model.kernels,
    )

"""Smoothed cross-entropy of logits with its gradient, as one kernel: logits are read from memory once."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from tx.kernels import triton
from tx.runtime import backend

WIDTH = 8192  # classes at a time, at most: they are held in registers
_LEAST = -1e30  # below every logit, and no infinity, whose difference with itself would be no number


def cross_entropy_with_gradient(
    logits: Float[Array, "tokens vocab"],
    targets: Int[Array, " tokens"],
    low: Float[Array, ""],
    peak: Float[Array, ""],
) -> tuple[Float[Array, " tokens"], Float[Array, " tokens"], Float[Array, "tokens vocab"]]:
    """Returns (log Z, logit of the target, gradient by the logits) of each token, the last as wide as the logits.

    The loss is log Z - peak * z_target - low * sum z (`tx.model.loss.smoothing`); a target of 0 has no gradient. The
    gradient is written where the logits lay. Off a GPU the kernel is interpreted, for tests.
    """
    tokens, vocab = logits.shape
    width = min(WIDTH, pl.next_power_of_2(vocab))
    row, one = pl.BlockSpec((None, vocab), lambda i: (i, 0)), pl.BlockSpec((1,), lambda i: (i,))
    value = jax.ShapeDtypeStruct((tokens,), jnp.float32)
    return pl.pallas_call(
        functools.partial(_kernel, vocab, width),
        out_shape=(value, value, jax.ShapeDtypeStruct(logits.shape, logits.dtype)),
        grid=(tokens,),
        in_specs=[row, one, pl.BlockSpec((2,), lambda i: (0,))],
        out_specs=(one, one, row),
        input_output_aliases={0: 2},
        compiler_params=triton.CompilerParams(num_warps=8),
        interpret=backend.on_cpu(),
        name="cross_entropy",
    )(logits, targets, jnp.stack([low, peak]))


def _kernel(vocab, width, logits, target, smoothing, log_normaliser, at_target, d_logits):
    """One token: its logits are passed over twice, the second time from the cache."""
    wanted, low, peak = target[0], smoothing[0], smoothing[1]
    blocks = pl.cdiv(vocab, width)

    def part(j):
        """The block's classes, which of them there are, and their logits."""
        classes = j * width + jax.lax.broadcasted_iota(jnp.int32, (width,), 0)
        there = classes < vocab
        read = triton.load(logits.at[pl.ds(j * width, width)], mask=there, other=_LEAST)
        return classes, there, read.astype(jnp.float32)

    def sums(j, so_far):
        largest, total, found = so_far
        classes, there, z = part(j)
        new = jnp.maximum(largest, z.max())
        total = total * jnp.exp(largest - new) + jnp.where(there, jnp.exp(z - new), 0.0).sum()
        return new, total, found + jnp.where(classes == wanted, z, 0.0).sum()

    zero = jnp.float32(0.0)
    largest, total, found = jax.lax.fori_loop(0, blocks, sums, (jnp.float32(_LEAST), zero, zero))
    normaliser = largest + jnp.log(total)
    log_normaliser[0], at_target[0] = normaliser, found

    def gradient(j, _):
        classes, there, z = part(j)
        d = jnp.exp(z - normaliser) - low - jnp.where(classes == wanted, peak, 0.0)
        d = jnp.where(wanted != 0, d, 0.0).astype(d_logits.dtype)
        triton.store(d_logits.at[pl.ds(j * width, width)], d, mask=there)
        return 0

    jax.lax.fori_loop(0, blocks, gradient, 0)


def reference(
    logits: Float[Array, "tokens vocab"],
    targets: Int[Array, " tokens"],
    low: Float[Array, ""],
    peak: Float[Array, ""],
) -> tuple[Float[Array, " tokens"], Float[Array, " tokens"], Float[Array, "tokens vocab"]]:
    """Returns what the kernel has to, in plain JAX."""
    z = logits.astype(jnp.float32)
    normaliser = jax.nn.logsumexp(z, axis=-1)
    hit = jnp.arange(z.shape[1])[None, :] == targets[:, None]
    d = jnp.exp(z - normaliser[:, None]) - low - jnp.where(hit, peak, 0.0)
    d = jnp.where((targets != 0)[:, None], d, 0.0).astype(logits.dtype)
    return normaliser, jnp.take_along_axis(z, targets[:, None], axis=-1)[:, 0], d

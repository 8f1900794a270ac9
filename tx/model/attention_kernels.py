"""Kernels of attention (equation 1): over all keys at once, or over a block of keys at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from tx.errors import UserError
from tx.kernels.attention import attend
from tx.runtime import backend

MASKED = -1e9  # finite, so that a row with nothing to attend to stays free of NaN; exp() of it is exactly 0


def dot_product_attention(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b m h k"],
    value: Float[Array, "b m h v"],
    mask: Bool[Array, " b #n m"],
    kernel: str = "xla",
    causal: bool = False,
) -> Float[Array, "b n h v"]:
    """Returns softmax(Q K^T / sqrt(d_k)) V (equation 1), softmax in float32.

    mask is true where a query may attend; with `causal` that is nowhere after the query, and need not be looked at.
    What a query gives that may attend to nothing is finite, and means nothing. The kernel "cudnn" never writes the
    weights out; it is for bfloat16 on NVIDIA GPUs. Raises UserError elsewhere.
    """
    if kernel == "cudnn":
        if (on := backend.name()) != "gpu":
            raise UserError(f"model.attention_backend=cudnn needs an NVIDIA GPU; on {on} set it to xla")
        mask = jnp.broadcast_to(mask, (mask.shape[0], query.shape[1], mask.shape[2]))
        return attend(query, key, value, mask, causal)
    scaled = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    return attend_heads(*(x.transpose(0, 2, 1, 3) for x in (scaled, key, value)), mask).transpose(0, 2, 1, 3)


def masked(logits: Float[Array, "b h n m"], mask: Bool[Array, " b #n m"]) -> Float[Array, "b h n m"]:
    """Returns logits, MASKED where the mask is false."""
    return jnp.where(mask[:, None, :, :], logits, MASKED)


@jax.custom_vjp
def attend_heads(
    query: Float[Array, "b h n k"],
    key: Float[Array, "b h m k"],
    value: Float[Array, "b h m v"],
    mask: Bool[Array, " b #n m"],
    bias: Float[Array, "#b #h #n m"] | None = None,
) -> Float[Array, "b h n v"]:
    """Returns softmax(query key^T + bias) value, head by head (equation 1).

    (b, h, n, m) is the largest shape of a layer, and passes over it are what attention costs: so the weights are
    normalised after they have met the values, in both directions.
    """
    return _attend_forward(query, key, value, mask, bias)[0]


def _attend_forward(query, key, value, mask, bias=None):
    logits = jnp.einsum("bhnk,bhmk->bhnm", query, key, preferred_element_type=jnp.float32)
    logits = masked(logits if bias is None else logits + bias, mask)
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    scale = 1.0 / weights.sum(-1, keepdims=True)  # (b, h, n, 1)
    weights = weights.astype(value.dtype)
    heads = (weights @ value) * scale.astype(value.dtype)
    return heads, (query, key, value, mask, bias, weights, scale, heads)


def _attend_backward(residuals, cotangent):
    query, key, value, mask, bias, weights, scale, heads = residuals
    # Of the softmax: dS = P * (dP - sum_m P dP), and that sum is the product of the output with its cotangent.
    total = (cotangent * heads).astype(jnp.float32).sum(-1, keepdims=True) * scale
    cotangent = cotangent * scale.astype(cotangent.dtype)
    d_weights = jnp.einsum("bhnv,bhmv->bhnm", cotangent, value, preferred_element_type=jnp.float32)
    # A weight that is masked is 0, but for the even ones of a query that may attend to nothing.
    d_sums = jnp.where(mask[:, None], weights * (d_weights - total), 0.0)
    d_logits = d_sums.astype(query.dtype)
    d_bias = None
    if bias is not None:
        shared = tuple(axis for axis in range(4) if bias.shape[axis] == 1 < d_sums.shape[axis])
        d_bias = (d_sums.sum(shared, keepdims=True) if shared else d_sums).astype(bias.dtype)
    d_key, d_value = _transposed_product(d_logits, query), _transposed_product(weights, cotangent)
    return d_logits @ key, d_key, d_value, None, d_bias


def _transposed_product(x, y):
    """Returns x^T y, as (y^T x)^T: on a CPU twice as fast, since the large x is then read as it lies."""
    small = jax.lax.optimization_barrier(y.swapaxes(2, 3))  # else the compiler undoes it
    return (small @ x).swapaxes(2, 3)


attend_heads.defvjp(_attend_forward, _attend_backward)


def online_softmax_update(
    sums: tuple[Array, Array, Array], logits: Array, means: Callable
) -> tuple[Array, Array, Array]:
    """Returns the sums of a softmax with further keys taken in (online softmax: Milakov and Gimelshein 2018).

    `sums` are the largest logit so far, and relative to it the sum of the weights and that of the weighted values.

    `means` maps the weights of these keys, which are not normalised, to the sum of the values so weighted.
    """
    largest, total, heads = sums
    new = jnp.maximum(largest, logits.max(-1, keepdims=True))
    weights, shrink = jnp.exp(logits - new), jnp.exp(largest - new)
    return new, total * shrink + weights.sum(-1, keepdims=True), heads * shrink + means(weights)

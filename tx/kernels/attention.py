"""cuDNN's attention, with a gradient of our own and members folded into the batch.

JAX's also asks cuDNN for the gradient of what is added to the logits, as large as all of a row's weights, which of a
mask nobody needs; and its `vmap` wants a mask for each head. Its two calls are wrapped here: there is no gradient of
the mask, and what is mapped over is further rows of the batch.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from tx.runtime import backend

BLOCK = 128  # lengths are padded to its multiples: of 64, with empty rows, gradients on an H100 were not finite
_NEVER = -float(2 << 40)  # what JAX adds to a logit that is masked: cuDNN cannot subtract infinities


def attend(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b m h k"],
    value: Float[Array, "b m h k"],
    mask: Bool[Array, "b n m"],
    causal: bool,
    block: int = BLOCK,
) -> Float[Array, "b n h k"]:
    """Returns softmax(Q K^T / sqrt(d_k)) V (equation 1), in bfloat16; `mask` is true where a query may attend.

    With `causal` it is false after the query. A query that may attend to nothing gives something finite that means
    nothing, and so do the gradients by what it gives. Lengths are padded to multiples of `block`. Off a GPU plain JAX
    computes what cuDNN's calls return, for tests.
    """
    (length, keys), width = mask.shape[1:], query.shape[-1]
    missing, keys_missing = -length % block, -keys % block
    query = _padded(query, missing)
    key, value = (_padded(each, keys_missing) for each in (key, value))
    mask = jnp.pad(mask, ((0, 0), (0, missing), (0, keys_missing)))
    mask |= ~mask.any(-1, keepdims=True)  # it is not known what cuDNN makes of nothing
    bias = jnp.where(mask, 0.0, _NEVER).astype(query.dtype)[:, None]
    return _attend(query, key, value, bias, causal, width**-0.5)[:, :length]


def _padded(x, missing):
    return jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))) if missing else x


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(query, key, value, bias, causal, scale):
    return _attend_forward(query, key, value, bias, causal, scale)[0]


def _attend_forward(query, key, value, bias, causal, scale):
    out, log_sums = _folded(_forward, causal, scale)(query, key, value, bias)
    return out, (query, key, value, bias, log_sums, out)


def _attend_backward(causal, scale, residuals, d_out):
    return *_folded(_backward, causal, scale)(*residuals, d_out), None


_attend.defvjp(_attend_forward, _attend_backward)


def _folded(function, causal, scale):
    """Returns a function of arrays whose first axis is the batch; what it is mapped over becomes part of that."""

    @jax.custom_batching.custom_vmap
    def folded(*arrays):
        return function(*arrays, causal, scale)

    @folded.def_vmap
    def _(size, mapped, *arrays):
        whole = (
            each if is_mapped else jnp.broadcast_to(each, (size, *each.shape))
            for each, is_mapped in zip(arrays, mapped, strict=True)
        )
        made = folded(*(each.reshape(-1, *each.shape[2:]) for each in whole))
        return tuple(each.reshape(size, -1, *each.shape[1:]) for each in made), (True,) * len(made)

    return folded


def _forward(query, key, value, bias, causal, scale):
    """Returns (the heads, the logarithm of the sum of each row's exponentials, (b, h, n))."""
    if backend.on_cpu():
        return _plain_forward(query, key, value, bias, causal, scale)
    cudnn = _library()
    kind = cudnn.MaskType.CAUSAL if causal else cudnn.MaskType.NO_MASK
    made = cudnn.dot_product_attention(query, key, value, bias=bias, scale=scale, mask_type=kind, return_residual=True)
    return tuple(made)


def _backward(query, key, value, bias, log_sums, out, d_out, causal, scale):
    """Returns the gradients by query, key and value."""
    if backend.on_cpu():
        return _plain_backward(query, key, value, bias, log_sums, out, d_out, causal, scale)
    cudnn = _library()
    nothing = jnp.zeros(0, query.dtype)
    made = cudnn._dot_product_attention_bwd_p_wrapper.bind(
        *(query, key, value, bias),
        *[nothing] * 6,  # lengths, offsets and pages
        *(log_sums, out, d_out),
        scale=scale,
        seed=0,
        dropout_rate=0.0,
        variadic_args=(True, False),  # there is a bias; its gradient is not wanted
        mask_type=cudnn.MaskType.CAUSAL if causal else cudnn.MaskType.NO_MASK,
        layout=cudnn.AttentionLayout.BTNH.value,
        sliding_window_length=None,
    )
    return tuple(made[:3])


def _library():
    import jax._src.cudnn.fused_attention_stablehlo as cudnn  # nothing of it is public but with the mask's gradient

    return cudnn


def _logits(query, key, bias, causal, scale):
    logits = jnp.einsum("bnhk,bmhk->bhnm", query, key, preferred_element_type=jnp.float32) * scale
    logits += bias.astype(jnp.float32)
    earlier = jnp.tri(*logits.shape[-2:], dtype=bool)[None, None]
    return jnp.where(earlier, logits, _NEVER) if causal else logits


def _plain_forward(query, key, value, bias, causal, scale):
    logits = _logits(query, key, bias, causal, scale)
    log_sums = jax.nn.logsumexp(logits, axis=-1)
    weights = jnp.exp(logits - log_sums[..., None]).astype(value.dtype)
    return jnp.einsum("bhnm,bmhk->bnhk", weights, value), log_sums


def _plain_backward(query, key, value, bias, log_sums, out, d_out, causal, scale):
    weights = jnp.exp(_logits(query, key, bias, causal, scale) - log_sums[..., None])
    d_weights = jnp.einsum("bnhk,bmhk->bhnm", d_out, value, preferred_element_type=jnp.float32)
    total = (d_out * out).astype(jnp.float32).sum(-1).transpose(0, 2, 1)[..., None]
    d_logits = (weights * (d_weights - total) * scale).astype(query.dtype)
    return (
        jnp.einsum("bhnm,bmhk->bnhk", d_logits, key),
        jnp.einsum("bhnm,bnhk->bmhk", d_logits, query),
        jnp.einsum("bhnm,bnhk->bmhk", weights.astype(d_out.dtype), d_out),
    )

"""Attention by cuDNN's calls beside plain attention in float32, where both can be held to account."""

import functools

MEMBERS, BATCH, HEADS = 2, 3, 4


class AttentionCells:
    """Compares values and gradients of `tx.kernels.attention.attend` with those of plain attention in float32."""

    def cell(self, length: int, width: int, empty: bool, causal: bool, magnitude: float, block: int) -> dict:
        """Returns {array: {"finite", "error"}} of the heads and the gradients by query, key and value.

        The error is the greatest difference as a share of the greatest number that there should be.

        Args:
          length: of rows of queries and keys.
          width: of a head.
          empty: whether there are queries that may attend to nothing: all of one row, the last quarter of the others.
          causal: whether no query sees a later key.
          magnitude: standard deviation of the logits.
          block: what the length is padded to a multiple of; 1 for none.
        """
        import jax
        import jax.numpy as jnp
        import numpy as np

        from tx.kernels.attention import attend

        arrays, mask, d_out = _arrays(length, width, empty, causal, magnitude)
        each = functools.partial(attend, causal=causal, block=block)
        plain = functools.partial(_plain, scale=width**-0.5)

        def both(function, mask, d_out, *given):
            out, pull = jax.vjp(lambda *parts: jax.vmap(function)(*parts, mask), *given)
            return out, *pull(d_out.astype(out.dtype))

        found = jax.jit(functools.partial(both, each))(mask, d_out, *arrays)
        wanted = jax.jit(functools.partial(both, plain))(mask, d_out, *(part.astype(jnp.float32) for part in arrays))
        live = np.asarray(mask.any(-1))[..., None, None]  # what else there is means nothing, but has to be finite
        result = {}
        for name, one, other in zip(("heads", "d_query", "d_key", "d_value"), found, wanted, strict=True):
            one, other = (np.asarray(part, np.float32) for part in (one, other))
            finite = bool(np.isfinite(one).all())
            difference = np.abs(one - other) * (live if name == "heads" else 1.0)
            error = float(difference.max() / np.abs(other).max()) if finite else None
            result[name] = {"finite": finite, "error": error}
        return result


def _arrays(length, width, empty, causal, magnitude):
    """Returns (query, key, value), the mask and the cotangent of the heads, of some members."""
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (MEMBERS, BATCH, length, HEADS, width)
    query, key, value, d_out = (rng.normal(size=shape) for _ in range(4))
    segments = np.ones((MEMBERS, BATCH, length), np.int32)
    segments[..., length // 2 :] = 2
    if empty:
        segments[..., -(length // 4) :] = 0
        segments[:, 0] = 0
    mask = (segments[..., :, None] == segments[..., None, :]) & (segments[..., None] != 0)
    mask &= np.tri(length, dtype=bool) if causal else True
    d_out *= mask.any(-1)[..., None, None]  # nothing is asked of padding
    arrays = tuple(jnp.asarray(part, jnp.bfloat16) for part in (magnitude * query, key, value))
    return arrays, jnp.asarray(mask), jnp.asarray(d_out, jnp.bfloat16)


def _plain(query, key, value, mask, scale):
    """Returns attention as equation 1 has it; nothing for a query that may attend to nothing."""
    import jax
    import jax.numpy as jnp

    logits = jnp.einsum("bnhk,bmhk->bhnm", query, key, precision="highest") * scale
    weights = jax.nn.softmax(jnp.where(mask[:, None], logits, -1e9), axis=-1)
    weights = jnp.where(mask.any(-1)[:, None, :, None], weights, 0.0)
    return jnp.einsum("bhnm,bmhk->bnhk", weights, value, precision="highest")

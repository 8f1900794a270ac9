"""Multi-head attention (section 3.2): one module for self, causal and cross attention, and for cached decoding."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from tx.layers import Dense, Dropout, dense

MASKED = -1e9  # finite, so that a row with nothing to attend to stays free of NaN; exp() of it is exactly 0


def dot_product_attention(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b m h k"],
    value: Float[Array, "b m h v"],
    mask: Bool[Array, "b #n m"],
    dropout=lambda weights: weights,
) -> Float[Array, "b n h v"]:
    """softmax(Q K^T / sqrt(d_k)) V (equation 1), softmax in float32.

    mask is true where a query may attend. `dropout` is applied to the weights.
    """
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = jnp.einsum("bnhk,bmhk->bhnm", query, key, preferred_element_type=jnp.float32)
    logits = jnp.where(mask[:, None, :, :], logits, MASKED)
    weights = dropout(jax.nn.softmax(logits, axis=-1).astype(value.dtype))
    return jnp.einsum("bhnm,bmhv->bnhv", weights, value)


class MultiHeadAttention(nn.Module):
    """Concat(head_1, ..., head_h) W^O (section 3.2.2), with d_k, d_v, h and d_model independent."""

    d_model: int
    num_heads: int
    d_k: int
    d_v: int
    projection_bias: bool
    attention_dropout: Any
    dtype: str

    def setup(self):
        def projection(inputs, outputs):
            return Dense(inputs, outputs, bias=self.projection_bias, dtype=self.dtype)

        self.query = projection(self.d_model, self.num_heads * self.d_k)
        self.key = projection(self.d_model, self.num_heads * self.d_k)
        self.value = projection(self.d_model, self.num_heads * self.d_v)
        self.output = projection(self.num_heads * self.d_v, self.d_model)
        self.drop = Dropout(self.attention_dropout)

    def __call__(
        self, x: Float[Array, "b n d"], memory: Float[Array, "b m d"], mask: Bool[Array, "b n m"], *, train: bool
    ) -> Float[Array, "b n d"]:
        """Attends from x to memory; mask is true where x's row may see memory's column.

        Self-attention is `memory is x`: then queries, keys and values come out of one matrix product.
        """
        if memory is x:
            query, key, value = self._self_projections(x)
        else:
            query = self._heads(self.query(x))
            key, value = self.keys_values(memory)
        heads = dot_product_attention(query, key, value, mask, lambda w: self.drop(w, train=train))
        return self._merge(heads)

    def keys_values(self, memory: Float[Array, "b m d"]) -> tuple[Array, Array]:
        """Returns the keys (b, m, h, d_k) and values (b, m, h, d_v) of `memory`, to be attended to many times."""
        width = self.num_heads * self.d_k
        both = dense((self.key, self.value), memory)
        return self._heads(both[..., :width]), self._heads(both[..., width:])

    def attend(
        self, x: Float[Array, "b n d"], key: Array, value: Array, mask: Bool[Array, "b 1 m"]
    ) -> Float[Array, "b n d"]:
        """Attends to given keys and values: cross-attention while decoding; n may be the beam."""
        return self._merge(dot_product_attention(self._heads(self.query(x)), key, value, mask))

    def step(self, x: Float[Array, "b 1 d"], index: Int[Array, ""], length: int) -> Float[Array, "b 1 d"]:
        """Causal self-attention of position `index` alone; earlier keys and values lie in the collection "cache".

        The cache holds `length` positions; its leaves have the batch as their leading axis.
        """
        query, key, value = self._self_projections(x)
        kept = []
        for name, new in (("key", key), ("value", value)):
            empty = jnp.zeros((x.shape[0], length, *new.shape[2:]), new.dtype)
            earlier = self.get_variable("cache", name, empty)
            kept.append(jax.lax.dynamic_update_slice_in_dim(earlier, new, index, axis=1))
            self.put_variable("cache", name, kept[-1])
        mask = (jnp.arange(length) <= index)[None, None, :]
        return self._merge(dot_product_attention(query, *kept, jnp.broadcast_to(mask, (x.shape[0], 1, length))))

    def _self_projections(self, x):
        widths = [self.num_heads * self.d_k] * 2
        parts = jnp.split(dense((self.query, self.key, self.value), x), [widths[0], sum(widths)], axis=-1)
        return tuple(self._heads(part) for part in parts)

    def _heads(self, x):
        return x.reshape(*x.shape[:-1], self.num_heads, -1)

    def _merge(self, heads):
        return self.output(heads.reshape(*heads.shape[:-2], -1))

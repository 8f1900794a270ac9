"""Multi-head attention (section 3.2): one module for self, causal and cross attention, and for cached decoding."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from tx.errors import UserError
from tx.layers import Dense, Dropout, dense

BLOCK = 8  # positions of the decoding cache that are attended to at a time
MASKED = -1e9  # finite, so that a row with nothing to attend to stays free of NaN; exp() of it is exactly 0


def dot_product_attention(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b m h k"],
    value: Float[Array, "b m h v"],
    mask: Bool[Array, "b #n m"],
    dropout: Callable[[Array], Array] | None = None,
    kernel: str = "xla",
) -> Float[Array, "b n h v"]:
    """softmax(Q K^T / sqrt(d_k)) V (equation 1), softmax in float32.

    mask is true where a query may attend. `dropout`, if there is one, is applied to the weights. The kernel "cudnn"
    never writes the weights out; it is for bfloat16 on NVIDIA GPUs, without dropout. Raises UserError elsewhere.
    """
    if kernel == "cudnn":
        if jax.default_backend() != "gpu":
            raise UserError(f"model.attention=cudnn needs an NVIDIA GPU; on {jax.default_backend()} set it to xla")
        return jax.nn.dot_product_attention(query, key, value, mask=mask[:, None], implementation="cudnn")
    query, key, value = (x.transpose(0, 2, 1, 3) for x in (query, key, value))
    if dropout is None:
        heads = attend_heads(query, key, value, mask)
    else:
        weights = dropout(jax.nn.softmax(_logits(_scaled(query), key, mask), axis=-1).astype(value.dtype))
        heads = weights @ value
    return heads.transpose(0, 2, 1, 3)


def attend_heads(
    query: Float[Array, "b h n k"],
    key: Float[Array, "b h m k"],
    value: Float[Array, "b h m v"],
    mask: Bool[Array, "b #n m"],
) -> Float[Array, "b h n v"]:
    """The same, without dropout, on arrays that lie head by head, as decoding keeps them."""
    return _attend(_scaled(query), key, value, mask)


def _scaled(query):
    return query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)


def _logits(query, key, mask):
    logits = jnp.einsum("bhnk,bhmk->bhnm", query, key, preferred_element_type=jnp.float32)
    return jnp.where(mask[:, None, :, :], logits, MASKED)


@jax.custom_vjp
def _attend(query, key, value, mask):
    """softmax(query key^T) value, head by head.

    (b, h, n, m) is the largest shape of a layer, and passes over it are what attention costs: so the weights are
    normalised after they have met the values, in both directions.
    """
    return _attend_forward(query, key, value, mask)[0]


def _attend_forward(query, key, value, mask):
    logits = _logits(query, key, mask)
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    scale = 1.0 / weights.sum(-1, keepdims=True)  # (b, h, n, 1)
    weights = weights.astype(value.dtype)
    heads = (weights @ value) * scale.astype(value.dtype)
    return heads, (query, key, value, mask, weights, scale, heads)


def _attend_backward(residuals, cotangent):
    query, key, value, mask, weights, scale, heads = residuals
    # Of the softmax: dS = P * (dP - sum_m P dP), and that sum is the product of the output with its cotangent.
    total = (cotangent * heads).astype(jnp.float32).sum(-1, keepdims=True) * scale
    cotangent = cotangent * scale.astype(cotangent.dtype)
    d_weights = jnp.einsum("bhnv,bhmv->bhnm", cotangent, value, preferred_element_type=jnp.float32)
    # A weight that is masked is 0, but for the even ones of a query that may attend to nothing.
    d_logits = jnp.where(mask[:, None], weights * (d_weights - total), 0.0).astype(query.dtype)
    return d_logits @ key, _transposed_product(d_logits, query), _transposed_product(weights, cotangent), None


def _transposed_product(x, y):
    """x^T y, as (y^T x)^T: on a CPU twice as fast, since the large x is then read as it lies."""
    small = jax.lax.optimization_barrier(y.swapaxes(2, 3))  # else the compiler undoes it
    return (small @ x).swapaxes(2, 3)


_attend.defvjp(_attend_forward, _attend_backward)


def _accumulate(sums, logits, value):
    """Takes further keys into a softmax: sums are the largest logit so far, and relative to it total and values."""
    largest, total, heads = sums
    new = jnp.maximum(largest, logits.max(-1, keepdims=True))
    weights, shrink = jnp.exp(logits - new), jnp.exp(largest - new)
    heads = heads * shrink + jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return new, total * shrink + weights.sum(-1, keepdims=True), heads


class MultiHeadAttention(nn.Module):
    """Concat(head_1, ..., head_h) W^O (section 3.2.2), with d_k, d_v, h and d_model independent."""

    d_model: int
    num_heads: int
    d_k: int
    d_v: int
    projection_bias: bool
    attention_dropout: Any
    kernel: str
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
        dropping = train and self.drop.active
        drop = (lambda weights: self.drop(weights, train=True)) if dropping else None
        return self._merge(dot_product_attention(query, key, value, mask, drop, self.kernel))

    def keys_values(self, memory: Float[Array, "b m d"]) -> tuple[Array, Array]:
        """Returns the keys (b, m, h, d_k) and values (b, m, h, d_v) of `memory`."""
        parts = jnp.split(dense((self.key, self.value), memory), [self.num_heads * self.d_k], axis=-1)
        return tuple(self._heads(part) for part in parts)

    def memory(self, memory: Float[Array, "b m d"]) -> tuple[Array, Array]:
        """Returns the keys (b, h, m, d_k) and values (b, h, m, d_v) of `memory`, to be attended to many times."""
        return tuple(x.transpose(0, 2, 1, 3) for x in self.keys_values(memory))

    def attend(
        self, x: Float[Array, "b beam d"], key: Array, value: Array, mask: Bool[Array, "b 1 m"]
    ) -> Float[Array, "b beam d"]:
        """Attends from a sentence's hypotheses to what `memory` gave: cross-attention while decoding."""
        heads = attend_heads(self._heads(self.query(x)).transpose(0, 2, 1, 3), key, value, mask)
        return self._merge(heads.transpose(0, 2, 1, 3))

    def step(
        self, x: Float[Array, "b beam d"], index: Int[Array, ""], slots: Int[Array, "b beam length"]
    ) -> Float[Array, "b beam d"]:
        """Causal self-attention of position `index` alone; earlier keys and values lie in the collection "cache".

        The cache holds every place of every position, (b, length / BLOCK, h, BLOCK, beam, d_k), and nothing in it
        ever moves: hypothesis j attends to slots[b, j, t] at position t <= index, where it and its beginnings stood. A
        sentence's hypotheses are so the queries of one matrix product; to copy a cache after each step to where its
        hypothesis went costs more than the products with the others' places. Blocks that lie ahead cost nothing.
        """
        batch, beam, length = slots.shape
        query, *new = (part.transpose(0, 2, 1, 3) for part in self._self_projections(x))  # (b, h, beam, d_k)
        kept = []
        for name, part in zip(("key", "value"), new, strict=True):
            shape = (batch, length // BLOCK, self.num_heads, BLOCK, beam, part.shape[-1])
            earlier = self.get_variable("cache", name, jnp.zeros(shape, part.dtype))
            place = (0, index // BLOCK, 0, index % BLOCK, 0, 0)
            kept.append(jax.lax.dynamic_update_slice(earlier, part[:, None, :, None], place))
            self.put_variable("cache", name, kept[-1])
        query = _scaled(query)

        def attend(block, sums):
            key, value = (
                jax.lax.dynamic_index_in_dim(x, block, 1, keepdims=False).reshape(*query.shape[:2], BLOCK * beam, -1)
                for x in kept
            )
            through = jax.lax.dynamic_slice_in_dim(slots, block * BLOCK, BLOCK, axis=2)
            mine = through[..., None] == jnp.arange(beam)[None, None, None, :]
            seen = block * BLOCK + jnp.arange(BLOCK) <= index
            mask = (mine & seen[None, None, :, None]).reshape(batch, beam, BLOCK * beam)
            return _accumulate(sums, _logits(query, key, mask), value)

        nothing = jnp.zeros((*query.shape[:3], 1), jnp.float32)
        start = (nothing + MASKED, nothing, jnp.zeros((*query.shape[:3], self.d_v), jnp.float32))
        _, total, heads = jax.lax.fori_loop(0, index // BLOCK + 1, attend, start)
        return self._merge((heads / total).astype(query.dtype).transpose(0, 2, 1, 3))

    def _self_projections(self, x):
        widths = [self.num_heads * self.d_k] * 2
        parts = jnp.split(dense((self.query, self.key, self.value), x), [widths[0], sum(widths)], axis=-1)
        return tuple(self._heads(part) for part in parts)

    def _heads(self, x):
        return x.reshape(*x.shape[:-1], self.num_heads, -1)

    def _merge(self, heads):
        return self.output(heads.reshape(*heads.shape[:-2], -1))

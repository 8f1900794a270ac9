"""Multi-head attention (section 3.2): one module for self, causal and cross attention, and for cached decoding."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from tx.kernels.decoding import attend_first
from tx.model.attention_kernels import MASKED, attend_heads, dot_product_attention, masked, online_softmax_update
from tx.model.layers import Dense, Dropout, Unbiased, dense_each
from tx.model.packed_mask import PackedMask
from tx.model.position_context import PositionContext
from tx.model.similarity import Similarity, similarities
from tx.registry import Configured
from tx.runtime import backend

BLOCK = 8  # positions of the decoding cache that a CPU attends to at a time; a cache holds whole blocks
SHORT = 128  # up to this a neighbourhood stays what it is in shorter rows, whose sums had another order otherwise


class MultiHeadAttention(nn.Module):
    """Multi-head attention, Concat(head_1, ..., head_h) W^O (section 3.2.2); d_k, d_v, h and d_model are independent.

    With fewer kv_heads, keys and values are shared by groups of heads (Ainslie et al. 2023), with one by all (Shazeer
    2019).

    To be looked into, it leaves for each call in the collection "attention", where that is mutable, its "logits" (as
    they are, masked ones at MASKED) and "weights", (b, h, n, m); a variable "heads" (h,) in the collection "kept"
    multiplies what each head gives.
    """

    d_model: int
    num_heads: int
    kv_heads: int
    d_k: int
    d_v: int
    similarity: str | Configured
    projection_bias: bool
    attention_dropout: Any
    kernel: str
    dtype: str
    neighbourhood: int = 0  # how far self-attention reaches to each side; 0: everywhere
    kernels: str = "xla"  # of decoding; "pallas": on a GPU keys and values are read once, and only what is there

    def setup(self):
        def projection(inputs, outputs):
            return Dense(inputs, outputs, bias=self.projection_bias, dtype=self.dtype)

        self.query = projection(self.d_model, self.num_heads * self.d_k)
        self.key = projection(self.d_model, self.kv_heads * self.d_k)
        self.value = projection(self.d_model, self.kv_heads * self.d_v)
        self.output = projection(self.num_heads * self.d_v, self.d_model)
        self.drop = Dropout(self.attention_dropout)
        self.compare = similarities[self.similarity](num_heads=self.num_heads, d_k=self.d_k)

    def __call__(
        self,
        x: Float[Array, "b n d"],
        memory: Float[Array, "b m d"],
        mask: Bool[Array, "b n m"],
        *,
        train: bool,
        context: PositionContext | None = None,
        causal: bool = False,
    ) -> Float[Array, "b n d"] | Unbiased:
        """Attends from x to memory; mask is true where x's row may see memory's column, with `causal` none after it.

        Self-attention is `memory is x`: then queries, keys and values come out of one matrix product, and `context`
        says where they stand.
        """
        if memory is x:
            query, key, value = self._self_projections(x)
        else:
            query = self._split_heads(self.query(x), self.d_k)
            key, value = self.keys_values(memory)
        if context is not None:
            query, key = context.rotate(query), context.rotate(key)
        return self._attend(query, key, value, mask, context, train, causal)

    def _attend(self, query, key, value, mask, context, train, causal):
        """Attends with projections (b, n, h, k), where they stand told already; (b, n, d)."""
        if self.kernel == "cudnn" and train:  # it scales by itself, and nothing else is to be done (tx.training.checks)
            return self._merge(dot_product_attention(query, key, value, mask, self.kernel, causal))
        query, key, value = (
            part.transpose(0, 2, 1, 3) for part in (self.compare.query(query), self.compare.key(key), value)
        )
        heads = self._attend_heads(query, self._repeat_kv(key), self._repeat_kv(value), mask, context, train)
        return self._merge(heads.transpose(0, 2, 1, 3))

    def mix(
        self, x: Float[Array, "b n d"], packed: PackedMask, context: PositionContext, *, train: bool
    ) -> Float[Array, "b n d"] | Unbiased:
        """Applies self-attention within each packed sentence (`tx.model.mixers.Mixer`)."""
        if not self.neighbourhood:
            return self(x, x, packed.mask, train=train, context=context, causal=packed.causal)
        query, key, value = self._self_projections(x)
        query, key = self.compare.query(context.rotate(query)), self.compare.key(context.rotate(key))
        return self._merge(self._attend_locally(query, key, value, packed, context, train))

    def mix_prefix(
        self, x: Float[Array, "b n d"], packed: PackedMask, context: PositionContext
    ) -> tuple[Float[Array, "b n d"], tuple[Array, Array]]:
        """Applies self-attention within a prefix that is decoded after; also returns its keys and values."""
        query, key, value = self._self_projections(x)
        query, key = context.rotate(query), context.rotate(key)
        mixed = self._attend(query, key, value, packed.mask, context, train=False, causal=packed.causal)
        return mixed, (self.compare.key(key).transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3))

    def _attend_locally(self, query, key, value, packed, context, train):
        """Attends within the neighbourhood: pieces of its size, each to itself and to the pieces beside it."""
        batch, length, *_ = query.shape
        r = min(self.neighbourhood, max(length, SHORT))  # beyond the row a piece is padding, times as much of keys
        pieces = -(-length // r)

        def cut(x, first, count, fill=0):
            """(b, n, ...) as (b * pieces, count * r, ...): each piece with those from `first` on, 0 being itself."""
            ends = [(0, 0), (-first * r, (pieces + first + count - 1) * r - length), *[(0, 0)] * (x.ndim - 2)]
            x = jnp.pad(x, ends, constant_values=fill)
            parts = [x[:, i * r : (i + pieces) * r].reshape(batch, pieces, r, *x.shape[2:]) for i in range(count)]
            return jnp.concatenate(parts, axis=2).reshape(batch * pieces, count * r, *x.shape[2:])

        count = 2 if packed.causal else 3
        offset = jnp.arange(-r, (count - 1) * r)[None] - jnp.arange(r)[:, None]
        near = (offset >= -r) & (offset <= (0 if packed.causal else r))
        mask = cut(packed.segments, 0, 1, -1)[:, :, None] == cut(packed.segments, -1, count, -2)[:, None, :]
        parts = (cut(query, 0, 1), self._repeat_kv(cut(key, -1, count), 2), self._repeat_kv(cut(value, -1, count), 2))
        parts = (part.transpose(0, 2, 1, 3) for part in parts)
        heads = self._attend_heads(*parts, mask & near[None], context, train, offset).transpose(0, 2, 1, 3)
        return heads.reshape(batch, pieces * r, *heads.shape[2:])[:, :length]

    def _attend_heads(self, query, key, value, mask, context, train, offset=None):
        """Attends, head by head, with queries and keys as the similarity has mapped them."""
        if offset is None:  # of tokens of one sentence
            offset = jnp.arange(key.shape[2])[None] - jnp.arange(query.shape[2])[:, None]
        bias = None if context is None else context.logit_bias(query, offset)
        dropping, looking = train and self.drop.active, self.is_mutable_collection("attention")
        # What only the weights themselves can give; all else never has to write them down.
        plain = type(self.compare).logits is Similarity.logits and (context is None or not context.has_value_bias)
        if plain and not dropping and not looking:
            return self._kept(attend_heads(query, key, value, mask, bias))
        logits = self.compare.logits(query, key)
        logits = masked(logits if bias is None else logits + bias, mask)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        if looking:
            self.sow("attention", "logits", logits)
            self.sow("attention", "weights", weights)
        weights = self.drop(weights, train=train)
        added = None if context is None else context.value_bias(weights, offset)
        heads = weights @ value
        return self._kept(heads if added is None else heads + added)

    def _kept(self, heads):
        """Returns heads (b, h, n, v), each times what is kept of it."""
        if not self.has_variable("kept", "heads"):
            return heads
        return heads * self.get_variable("kept", "heads")[None, :, None, None].astype(heads.dtype)

    def keys_values(self, memory: Float[Array, "b m d"]) -> tuple[Array, Array]:
        """Returns the keys (b, m, kv_heads, d_k) and values (b, m, kv_heads, d_v) of `memory`."""
        return tuple(map(self._split_heads, dense_each((self.key, self.value), memory), (self.d_k, self.d_v)))

    def precompute_kv(self, memory: Float[Array, "b m d"]) -> tuple[Array, Array]:
        """Returns keys and values of `memory`, to be attended to many times.

        Keys (b, kv_heads, m, d_k) are as the similarity maps them, values (b, kv_heads, m, d_v).
        """
        key, value = self.keys_values(memory)
        return self.compare.key(key).transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)

    def attend(
        self, x: Float[Array, "b beam d"], key: Array, value: Array, mask: Bool[Array, "b 1 m"]
    ) -> Float[Array, "b beam d"]:
        """Attends from a sentence's hypotheses to what `precompute_kv` gave: cross-attention while decoding."""
        query = self.compare.query(self._split_heads(self.query(x), self.d_k))
        if self._decodes_by_kernel(None):
            return self._merge(attend_first(query, key, value, mask))
        query = query.transpose(0, 2, 1, 3)
        heads = self._attend_heads(query, self._repeat_kv(key), self._repeat_kv(value), mask, None, train=False)
        return self._merge(heads.transpose(0, 2, 1, 3))

    def decode_step(
        self,
        x: Float[Array, "b beam d"],
        index: Int[Array, ""],
        ancestry: Int[Array, "b beam length"],
        context: PositionContext | None = None,
        prefix: tuple[Array, Array, Array] | None = None,
    ) -> Float[Array, "b beam d"]:
        """Applies causal self-attention at position `index` alone; earlier keys and values are in "cache".

        This collection holds every beam index of every position, (length / block, b, kv_heads, block * beam, d_k): a
        block of it lies in one piece, else a CPU would take twice as long to bring it to its products. Nothing in it
        ever moves: at position t <= index hypothesis j attends to beam index ancestry[b, j, t], where its
        beginning stood. A sentence's hypotheses are so the queries of one matrix product; to copy a cache after each
        step to where its hypothesis went costs more than the products with the others' keys. Blocks that lie ahead cost
        nothing; an accelerator attends to all positions as one block (`tx.runtime.backend.decoding_block`). A
        `prefix`, which ends before position 0, is seen too: `mix_prefix`'s keys and values, which are real.
        """
        beam, length = ancestry.shape[1:]
        size = backend.decoding_block(BLOCK, length)
        query, key, value = self._self_projections(x)  # (b, beam, h, d_k)
        if context is not None:
            query, key = context.rotate(query), context.rotate(key)
        scaled = self.compare.query(query)
        query = scaled.transpose(0, 2, 1, 3)
        parts = {"key": self.compare.key(key), "value": value}
        kept = [self._cached(name, part, index, length, size) for name, part in parts.items()]
        start = self._attend_prefix(query, prefix, index, context)
        if self._decodes_by_kernel(context):
            mask = self._ancestors(ancestry, jnp.arange(length), index)
            every, earlier = (x[0] for x in kept), None if prefix is None else start
            return self._merge(attend_first(scaled, *every, mask, (index + 1) * beam, earlier))

        def attend_block(block, sums):
            key, value = (self._repeat_kv(jax.lax.dynamic_index_in_dim(x, block, keepdims=False)) for x in kept)
            origin = jax.lax.dynamic_slice_in_dim(ancestry, block * size, size, axis=2)
            position = block * size + jnp.arange(size)
            mask = self._ancestors(origin, position, index)
            logits, offset = self.compare.logits(query, key), jnp.broadcast_to(position - index, (beam, size))
            bias = None if context is None else context.logit_bias(query, offset)
            if bias is not None:  # of each position, for all beam indices
                logits = logits + jnp.repeat(bias, beam, axis=-1)

            def means(weights):
                heads = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
                if context is None or not context.has_value_bias:
                    return heads
                of_positions = weights.reshape(*weights.shape[:-1], size, beam).sum(-1)
                return heads + context.value_bias(of_positions, offset)

            return online_softmax_update(sums, masked(logits, mask), means)

        first = jnp.maximum(index - self.neighbourhood, 0) // size if self.neighbourhood else 0
        in_turn = functools.partial(jax.lax.fori_loop, first, index // size + 1, attend_block)
        _, total, heads = attend_block(0, start) if size == length else in_turn(start)
        return self._merge((heads / total).astype(query.dtype).transpose(0, 2, 1, 3))

    def _ancestors(self, origin, position, index):
        """Returns which keys of some positions a hypothesis sees (b, beam, n * beam), from `origin`, their ancestry."""
        batch, beam, size = origin.shape
        mine = origin[..., None] == jnp.arange(beam)[None, None, None, :]
        seen = position <= index
        if self.neighbourhood:
            seen &= position >= index - self.neighbourhood
        return (mine & seen[None, None, :, None]).reshape(batch, beam, size * beam)

    def _decodes_by_kernel(self, context):
        """Returns whether a kernel attends while decoding: nothing but products and a mask are to be in it."""
        looked_into = self.is_mutable_collection("attention") or self.has_variable("kept", "heads")
        if looked_into or not backend.decodes_by_kernel(self.kernels):
            return False
        plain = type(self.compare).logits is Similarity.logits
        return plain and (context is None or not (context.has_logit_bias or context.has_value_bias))

    def _attend_prefix(self, query, prefix, index, context):
        """Returns the sums of a softmax (`online_softmax_update`) over the prefix of each sentence, if there is one."""
        nothing = jnp.zeros((*query.shape[:3], 1), jnp.float32)
        start = (nothing + MASKED, nothing, jnp.zeros((*query.shape[:3], self.d_v), jnp.float32))
        if prefix is None:
            return start
        (key, value), there = map(self._repeat_kv, prefix[:2]), prefix[2]
        length = key.shape[2]
        offset = jnp.broadcast_to(jnp.arange(-length, 0) - index, (query.shape[2], length))
        logits = self.compare.logits(query, key)
        bias = None if context is None else context.logit_bias(query, offset)

        def means(weights):
            heads = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
            added = None if context is None else context.value_bias(weights, offset)
            return heads if added is None else heads + added

        logits = logits if bias is None else logits + bias
        return online_softmax_update(start, masked(logits, there[:, None, :]), means)

    def _cached(self, name, part, index, length, size):
        """Keeps keys or values (b, beam, kv_heads, d) of position `index`, and returns all, in blocks of a size."""
        batch, beam = part.shape[:2]
        shape = (length // size, batch, self.kv_heads, size * beam, part.shape[-1])
        earlier = self.get_variable("cache", name, jnp.zeros(shape, part.dtype))
        start = (index // size, 0, 0, index % size * beam, 0)
        every = jax.lax.dynamic_update_slice(earlier, part.transpose(0, 2, 1, 3)[None], start)
        self.put_variable("cache", name, every)
        return every

    def _self_projections(self, x):
        parts = dense_each((self.query, self.key, self.value), x)
        return tuple(map(self._split_heads, parts, (self.d_k, self.d_k, self.d_v)))

    def _split_heads(self, x, width):
        return x.reshape(*x.shape[:-1], -1, width)

    def _repeat_kv(self, x, axis=1):
        """Repeats keys or values, whose kv_heads lie along an axis, for every head."""
        return x if self.kv_heads == self.num_heads else jnp.repeat(x, self.num_heads // self.kv_heads, axis=axis)

    def _merge(self, heads):
        return self.output.unbiased(heads.reshape(*heads.shape[:-2], -1))

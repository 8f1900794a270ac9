"""Kernel of beam search: attention of a few queries that reads keys once."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Float32, Int

from tx.kernels import triton
from tx.kernels.padded import hidden_zero
from tx.runtime import backend

KEYS = 32  # that are attended to at a time
MASKED = -1e9  # as `tx.model.attention_kernels` has it
SMALLEST = 16  # axis of a product in a kernel
_WARPS = 4

Sums = tuple[Float32[Array, "b h n 1"], Float32[Array, "b h n 1"], Float32[Array, "b h n v"]]


def attend_first(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b kv m k"],
    value: Float[Array, "b kv m v"],
    mask: Bool[Array, " b #n m"],
    count: Int[Array, ""] | None = None,
    start: Sums | None = None,
) -> Float[Array, "b n h v"]:
    """Returns softmax(query key^T) value, head by head, over the first `count` of the keys (None: over all).

    Those beyond are not read. Heads share keys and values where these are fewer. `mask` is true where a query may
    attend; one that may attend to nothing gives something finite that means nothing. `start` are the sums of a softmax
    over other keys (`tx.model.attention_kernels.online_softmax_update`), to be taken in. Off a GPU the kernel is
    interpreted, for tests.
    """
    (batch, queries, heads, width), (_, shared, keys, out) = query.shape, value.shape
    group, masks = heads // shared, mask.shape[1]
    bound = jnp.reshape(keys if count is None else count, (1,)).astype(jnp.int32)

    def of_head(columns):
        return pl.BlockSpec((None, queries, None, columns), lambda i, j: (i, 0, j, 0))

    def of_group(columns):
        return pl.BlockSpec((None, None, keys, columns), lambda i, j: (i, j // group, 0, 0))

    sums = () if start is None else start
    return pl.pallas_call(
        functools.partial(_attend_kernel, (queries, masks)),
        out_shape=jax.ShapeDtypeStruct((batch, queries, heads, out), query.dtype),
        grid=(batch, heads),
        in_specs=[
            pl.BlockSpec((1,), lambda i, j: (0,)),
            of_head(width),
            of_group(width),
            of_group(out),
            pl.BlockSpec((None, masks if masks > 1 else None, keys), lambda i, j: (i, 0, 0)),
            *[pl.BlockSpec((None, None, *each.shape[2:]), lambda i, j: (i, j, 0, 0)) for each in sums],
        ],
        out_specs=of_head(out),
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=backend.on_cpu(),
        name="attend_all" if count is None else "attend_first",
    )(bound, query, key, value, mask.astype(jnp.int8), *sums)


def _attend_kernel(sizes, bound, query, key, value, mask, *refs):
    """One head of one sentence."""
    queries, masks = sizes
    rows = max(SMALLEST, pl.next_power_of_2(queries))
    start, out = refs[:-1], refs[-1]
    count, zero = bound[0], hidden_zero(pl.program_id(0))

    def load(ref, first, size, limit):
        """Rows of a reference from `first` on, zeros from `limit` on and beyond its width."""
        columns = max(SMALLEST, pl.next_power_of_2(ref.shape[1]))
        row, column = (jax.lax.broadcasted_iota(jnp.int32, (size, columns), axis) for axis in range(2))
        there = (first + row < limit) & (column < ref.shape[1])
        place = (pl.ds(first, size), pl.ds(zero, columns))
        return triton.load(ref.at[place], mask=there, other=jnp.zeros((), ref.dtype))

    q = load(query, zero, rows, queries)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (rows, KEYS), axis) for axis in range(2))

    def turn(j, sums):
        first = j * KEYS
        k, v = (load(ref, first, KEYS, count) for ref in (key, value))
        there = first + column < count
        if masks == 1:
            one = jax.lax.broadcasted_iota(jnp.int32, (KEYS,), 0)
            read = triton.load(mask.at[pl.ds(first, KEYS)], mask=first + one < count, other=jnp.int8(0))[None, :]
        else:
            place = (pl.ds(zero, rows), pl.ds(first, KEYS))
            read = triton.load(mask.at[place], mask=there & (row < queries), other=jnp.int8(0))
        logits = jnp.where(read.astype(jnp.int32) != 0, product(q, k, 1), MASKED)
        largest, total, heads = sums
        new = jnp.maximum(largest, logits.max(1))
        weights = jnp.where(there, jnp.exp(logits - new[:, None]), 0.0)
        shrink = jnp.exp(largest - new)
        heads = heads * shrink[:, None] + product(weights.astype(v.dtype), v, 0)
        return new, total * shrink + weights.sum(1), heads

    if start:
        largest, total = (load(ref, zero, rows, queries).sum(1) for ref in start[:2])
        sums = (largest, total, load(start[2], zero, rows, queries))
    else:
        nothing = jnp.zeros((rows,), jnp.float32)
        width = max(SMALLEST, pl.next_power_of_2(out.shape[1]))
        sums = (nothing + MASKED, nothing, jnp.zeros((rows, width), jnp.float32))
    _, total, heads = jax.lax.fori_loop(0, pl.cdiv(count, KEYS), turn, sums)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, heads.shape, axis) for axis in range(2))
    there = (row < queries) & (column < out.shape[1])
    found = (heads / total[:, None]).astype(out.dtype)
    triton.store(out.at[pl.ds(zero, rows), pl.ds(zero, heads.shape[1])], found, mask=there)


def product(x, y, axis):
    """The product of two matrices over the second axis of x and this one of y, in float32."""
    return jax.lax.dot_general(x, y, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32)


def reference_attention(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b kv m k"],
    value: Float[Array, "b kv m v"],
    mask: Bool[Array, " b #n m"],
    count: Int[Array, ""] | None = None,
    start: Sums | None = None,
) -> Float[Array, "b n h v"]:
    """Returns what `attend_first` has to, in plain JAX."""
    group = query.shape[2] // key.shape[1]
    key, value = (jnp.repeat(x, group, axis=1) for x in (key, value))
    logits = jnp.einsum("bnhk,bhmk->bhnm", query, key, preferred_element_type=jnp.float32)
    logits = jnp.where(mask[:, None], logits, MASKED)
    if count is not None:
        logits = jnp.where(jnp.arange(key.shape[2])[None, None, None, :] < count, logits, -jnp.inf)
    largest = logits.max(-1, keepdims=True)
    if start is not None:
        largest = jnp.maximum(largest, start[0])
    weights = jnp.exp(logits - largest)
    total, heads = weights.sum(-1, keepdims=True), weights @ value.astype(jnp.float32)
    if start is not None:
        shrink = jnp.exp(start[0] - largest)
        total, heads = total + start[1] * shrink, heads + start[2] * shrink
    return (heads / total).astype(query.dtype).transpose(0, 2, 1, 3)

"""Kernel of beam search: the best columns of each row of a product, and its log sum exp; no product in memory."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Float32, Int32

from tx.kernels import triton
from tx.kernels.decoding import SMALLEST, product
from tx.runtime import backend

ROWS = 128  # of a program, at most
COLUMNS = 128  # that are multiplied at a time
DEPTH = 128  # bytes of a row that are multiplied at a time
PROGRAMS = 128  # that share the columns, where there are enough: about as many as a GPU has multiprocessors
MOST = 32  # columns of a row that the registers hold
_WARPS = 8


def best_columns(
    hidden: Float[Array, "rows d"], matrix: Float[Array, "columns d"], k: int
) -> tuple[Float32[Array, "rows found"], Int32[Array, "rows found"], Float32[Array, " rows"]]:
    """Returns the best of each row of hidden matrix^T: (values, their columns, log sum exp of the whole row).

    The columns are cut into parts; of each the k greatest values are returned, falling, of equal ones the lower column
    first, and -inf where it has fewer. So the k greatest of a row are among them, and of equal ones the first has the
    lowest column. Sums are float32. Off a GPU the kernel is interpreted, for tests.

    Args:
      hidden, matrix: of one dtype.
      k: at most MOST.
    """
    (count, depth), (columns, _) = hidden.shape, matrix.shape
    rows = min(ROWS, max(SMALLEST, pl.next_power_of_2(count)))
    tiles, blocks = pl.cdiv(columns, COLUMNS), pl.cdiv(count, rows)
    turns = pl.cdiv(tiles, max(1, PROGRAMS // blocks))
    parts = pl.cdiv(tiles, turns)  # each has a column
    best = pl.BlockSpec((rows, None, k), lambda i, j: (i, j, 0))
    values, places, totals = pl.pallas_call(
        functools.partial(_kernel, (count, columns), (rows, turns)),
        out_shape=(
            jax.ShapeDtypeStruct((count, parts, k), jnp.float32),
            jax.ShapeDtypeStruct((count, parts, k), jnp.int32),
            jax.ShapeDtypeStruct((count, parts), jnp.float32),
        ),
        grid=(blocks, parts),  # programs side by side read the same columns
        in_specs=[
            pl.BlockSpec((rows, depth), lambda i, j: (i, 0)),
            pl.BlockSpec((turns * COLUMNS, depth), lambda i, j: (j, 0)),
        ],
        out_specs=(best, best, pl.BlockSpec((rows, None), lambda i, j: (i, j))),
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=backend.on_cpu(),
        name="best_columns",
    )(hidden, matrix)
    normaliser = jax.nn.logsumexp(values[:, :, 0], axis=1, b=totals)
    return values.reshape(count, -1), places.reshape(count, -1), normaliser


def _kernel(sizes, shape, hidden, matrix, values, places, totals):
    """Some rows, and one part of the columns."""
    (count, columns), (rows, turns) = sizes, shape
    depth, k = hidden.shape[1], values.shape[1]
    width = DEPTH // hidden.dtype.itemsize
    rows_left = count - pl.program_id(0) * rows
    begin = pl.program_id(1) * turns * COLUMNS
    at = jax.lax.broadcasted_iota(jnp.int32, (rows, COLUMNS), 1)

    def load(ref, first, size, left, start):
        """Rows of a reference from `first` on, so many of which are `left`, and their elements from `start` on."""
        each, element = (jax.lax.broadcasted_iota(jnp.int32, (size, width), axis) for axis in range(2))
        there = (each < left) & (start + element < depth)
        place = ref.at[pl.ds(first, size), pl.ds(start, width)]
        return triton.load(place, mask=there, other=jnp.zeros((), ref.dtype))

    def logits(first):
        """The columns of the product from `first` of this part on, -inf where there are none."""

        def add(j, z):
            x = load(hidden, 0, rows, rows_left, j * width)
            y = load(matrix, first, COLUMNS, columns - begin - first, j * width)
            return z + product(x, y, 1)

        z = jax.lax.fori_loop(0, pl.cdiv(depth, width), add, jnp.zeros((rows, COLUMNS), jnp.float32))
        return jnp.where(begin + first + at < columns, z, -jnp.inf)

    def turn(j, state):
        found, total = state
        z = logits(j * COLUMNS)
        best, largest = z.max(1), found[0][0]
        new = jnp.maximum(largest, best)
        total = total * jnp.exp(largest - new) + jnp.exp(z - new[:, None]).sum(1)

        def is_better(state):  # of some row: seldom, but in its first turns
            _, best, found = state
            return (best > found[-1][0]).astype(jnp.int32).max() > 0

        def take(state):
            z, best, found = state
            first = jnp.where(z == best[:, None], at, COLUMNS).min(1)
            z = jnp.where(at == first[:, None], -jnp.inf, z)
            return z, z.max(1), _insert(found, best, begin + j * COLUMNS + first)

        return jax.lax.while_loop(is_better, take, (z, best, found))[2], total

    nothing = (jnp.full((rows,), -jnp.inf, jnp.float32), jnp.zeros((rows,), jnp.int32))
    found, total = jax.lax.fori_loop(0, turns, turn, ((nothing,) * k, jnp.zeros((rows,), jnp.float32)))
    there = jax.lax.broadcasted_iota(jnp.int32, (rows,), 0) < rows_left
    for i, (value, column) in enumerate(found):
        place = (pl.ds(0, rows), jnp.int32(i))  # an array, since interpreting fails with a plain number
        triton.store(values.at[place], value, mask=there)
        triton.store(places.at[place], column, mask=there)
    triton.store(totals.at[pl.ds(0, rows)], total, mask=there)


def _insert(found, value, column):
    """Returns falling values and their columns with one more, behind its equals; the last one is left out."""
    new, stays = (value, column), [held >= value for held, _ in found]
    above = [new, *(_where(stay, new, one) for stay, one in zip(stays[:-1], found[:-1], strict=True))]
    return tuple(_where(stay, one, other) for stay, one, other in zip(stays, found, above, strict=True))


def _where(condition, some, others):
    return tuple(jnp.where(condition, one, other) for one, other in zip(some, others, strict=True))


def reference(
    hidden: Float[Array, "rows d"], matrix: Float[Array, "columns d"], k: int
) -> tuple[Float32[Array, "rows k"], Int32[Array, "rows k"], Float32[Array, " rows"]]:
    """Returns in plain JAX the k greatest of each row, their columns, and log sum exp."""
    logits = jnp.einsum("rd,cd->rc", hidden, matrix, preferred_element_type=jnp.float32)
    return *jax.lax.top_k(logits, k), jax.nn.logsumexp(logits, axis=1)

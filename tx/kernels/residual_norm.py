"""Residual connection, dropout and LayerNorm after one another (section 5.4), as one kernel in each direction.

Post-norm's LayerNorm(x + Dropout(y)) ends a sub-layer; pre-norm's next sub-layer begins with the norm of that sum, and
needs the sum, too. y is a projection whose bias is added here. The backward pass draws the dropout mask again rather
than read it, and adds up the gradients of the three vectors on its way: of the forward pass x and y alone are kept, or
their sum.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, UInt32

from tx.kernels import bias as biases
from tx.kernels import triton
from tx.kernels.padded import hidden_zero
from tx.runtime import backend

FORWARD, BACKWARD = 4096, 2048  # elements that a program has in registers at a time, per array
_WARPS = 4


def add_and_normalise(x, y, offset, scale, bias, parts, draw, upscale, bits, epsilon):
    """Returns LayerNorm(x + Dropout(y + offset)) of rows, computed in float32, as wide as x.

    Args:
      x, y: (rows, d).
      offset: (d,), the bias of the projection that y is of.
      scale, bias: (d,), the norm's.
      parts: three arrays, whose cotangents add up to those of offset, scale and bias, which then have none
        (`tx.kernels.bias`); or None.
      draw: uint32 (3,): the two words of a key, and how many of 2^24 elements are kept.
      upscale: float32 (1,), what a kept element is multiplied by.
      bits: (index, low, high) -> 32 random bits of the element with that index (`tx.model.prng`).
      epsilon: added to the variance.

    Off a GPU the kernels are interpreted, for tests.
    """
    return _add(x, y, offset, scale, bias, parts, draw, upscale, bits, epsilon, False)[0]


def add_then_normalise(x, y, offset, scale, bias, parts, draw, upscale, bits, epsilon):
    """Returns (x + Dropout(y + offset), LayerNorm of it), both as wide as x; arguments as above.

    What is normalised is the sum as it is written.
    """
    return _add(x, y, offset, scale, bias, parts, draw, upscale, bits, epsilon, True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(8, 9, 10))
def _add(x, y, offset, scale, bias, parts, draw, upscale, bits, epsilon, keeps_sum):
    return _forward(x, y, offset, scale, bias, parts, draw, upscale, bits, epsilon, keeps_sum)[0]


def _forward(x, y, offset, scale, bias, parts, draw, upscale, bits, epsilon, keeps_sum):
    rows, width = x.shape
    tile = tile_of(FORWARD, width)
    row, like = pl.BlockSpec((tile, width), lambda i: (i, 0)), jax.ShapeDtypeStruct(x.shape, x.dtype)
    made = pl.pallas_call(
        functools.partial(_forward_kernel, Tile(tile, rows, width, bits, epsilon)),
        out_shape=(like, like) if keeps_sum else (like,),
        grid=(pl.cdiv(rows, tile),),
        in_specs=[row, row, *vectors(width, 3), *_drawn()],
        out_specs=(row, row) if keeps_sum else (row,),
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=backend.on_cpu(),
        name="add_then_normalise" if keeps_sum else "add_and_normalise",
    )(x, y, offset, scale, bias, draw, upscale)
    made = tuple(made)
    return made, ((made[0],) if keeps_sum else (x, y), offset, scale, parts, draw, upscale)


def _backward(bits, epsilon, keeps_sum, residuals, cotangents):
    kept, offset, scale, parts, draw, upscale = residuals
    rows, width = kept[0].shape
    programs = biases.PROGRAMS if parts is None else parts[0].shape[0]
    tile = tile_of(BACKWARD, width)
    turns = pl.cdiv(rows, programs * tile)
    row = pl.BlockSpec((turns * tile, width), lambda i: (i, 0))
    of_program = pl.BlockSpec((None, width), lambda i: (i, 0))
    like = jax.ShapeDtypeStruct(kept[0].shape, kept[0].dtype)
    d_x, d_y, *sums = pl.pallas_call(
        functools.partial(_backward_kernel, Tile(tile, rows, width, bits, epsilon), turns, keeps_sum),
        out_shape=(like, like, *[jax.ShapeDtypeStruct((programs, width), jnp.float32)] * 3),
        grid=(programs,),
        in_specs=[row, row, row, *vectors(width, 2), *_drawn()],
        out_specs=(row, row, *[of_program] * 3),
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=backend.on_cpu(),
        name="add_then_normalise_backward" if keeps_sum else "add_and_normalise_backward",
    )(*kept, *cotangents, offset, scale, draw, upscale)
    if parts is not None:
        return d_x, d_y, None, None, None, tuple(sums), None, None
    d_offset, *others = (each.sum(0) for each in sums)
    return d_x, d_y, d_offset.astype(offset.dtype), *others, None, None, None


_add.defvjp(_forward, _backward)


def tile_of(elements: int, width: int) -> int:
    """Returns how many rows hold so many elements, each of them padded to a power of two."""
    return max(1, elements // pl.next_power_of_2(width))


def vectors(width: int, count: int) -> list[pl.BlockSpec]:
    """Returns the specifications of so many vectors, of which every program sees all."""
    return [pl.BlockSpec((width,), lambda i: (0,))] * count


def _drawn():
    return [pl.BlockSpec((3,), lambda i: (0,)), pl.BlockSpec((1,), lambda i: (0,))]


class Tile:
    """Some rows of the arrays, padded to a power of two: what is beyond them is masked."""

    def __init__(self, tile, rows, width, bits, epsilon):
        self.tile, self._rows, self.width, self._bits, self._epsilon = tile, rows, width, bits, epsilon
        self._padded = pl.next_power_of_2(width)

    def at(self, first):
        """Sets the first row, in all; returns itself."""
        shape, self._columns = (self.tile, self._padded), pl.ds(hidden_zero(first), self._padded)
        self._row = first + jax.lax.broadcasted_iota(jnp.int32, shape, 0)
        self._column = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
        self._there = (self._row < self._rows) & (self._column < self.width)
        return self

    def read(self, ref, first):
        """Returns the rows from `first` on of what the program sees, float32; zeros beyond them."""
        read = triton.load(ref.at[self._place(first)], mask=self._there, other=jnp.zeros((), ref.dtype))
        return read.astype(jnp.float32)

    def write(self, ref, first, values):
        """Writes rows to where `read` would find them."""
        triton.store(ref.at[self._place(first)], values.astype(ref.dtype), mask=self._there)

    def vector(self, ref):
        """Returns a vector of the width, as a row, float32; zeros beyond it."""
        columns = jax.lax.broadcasted_iota(jnp.int32, (self._padded,), 0)
        zero = jnp.zeros((), ref.dtype)
        read = triton.load(ref.at[self._columns], mask=columns < self.width, other=zero)
        return read.astype(jnp.float32)[None, :]

    def write_vector(self, ref, values):
        """Writes a vector of the width."""
        columns = jax.lax.broadcasted_iota(jnp.int32, (self._padded,), 0)
        place = pl.ds(hidden_zero(pl.program_id(0)), self._padded)
        triton.store(ref.at[place], values, mask=columns < self.width)

    def _place(self, first):
        return pl.ds(first, self.tile), self._columns

    def dropped(self, values, draw, upscale):
        """Returns what dropout makes of values, or of a gradient by what it made."""
        index = self._row.astype(jnp.uint32) * jnp.uint32(self.width) + self._column.astype(jnp.uint32)
        kept = self._bits(index, draw[0], draw[1]) >> 8 < draw[2]
        return jnp.where(kept, values * upscale[0], 0.0)

    def only_there(self, values):
        """Returns values, zero beyond the rows and the width."""
        return jnp.where(self._there, values, 0.0)

    def normalised(self, total):
        """Returns (total normalised, one over its spread), of which what is beyond the width means nothing."""
        centred = jnp.where(self._there, total - self.mean(total), 0.0)
        spread = jax.lax.rsqrt(self.mean(centred * centred) + self._epsilon)
        return centred * spread, spread

    def gradient(self, normalised, spread, d):
        """Returns the gradient by what was normalised; of what was, d."""
        return spread * (d - self.mean(d) - normalised * self.mean(d * normalised))

    def mean(self, values):
        """Returns the mean of each row; beyond the width are zeros."""
        return values.sum(-1, keepdims=True) / self.width


def _forward_kernel(tile, x, y, offset, scale, bias, draw, upscale, *outs):
    rows = tile.at(pl.program_id(0) * tile.tile)
    total = rows.read(x, 0) + rows.dropped(rows.read(y, 0) + rows.vector(offset), draw, upscale)
    for out in outs[:-1]:
        rows.write(out, 0, total)
        total = total.astype(out.dtype).astype(jnp.float32)
    rows.write(outs[-1], 0, rows.normalised(total)[0] * rows.vector(scale) + rows.vector(bias))


def _backward_kernel(tile, turns, keeps_sum, first_in, second_in, d_out, *refs):
    """The rows of one program; the first arrays are x and y, or their sum and its cotangent."""
    offset, scale, draw, upscale, d_x, d_y, *vectors_out = refs
    padded = pl.next_power_of_2(tile.width)
    start = pl.program_id(0) * turns * tile.tile

    def turn(j, so_far):
        first = j * tile.tile
        rows = tile.at(start + first)
        d, total, more = rows.read(d_out, first), rows.read(first_in, first), rows.read(second_in, first)
        if not keeps_sum:
            total, more = total + rows.dropped(more + rows.vector(offset), draw, upscale), 0.0
        normalised, spread = rows.normalised(total)
        d_total = rows.gradient(normalised, spread, d * rows.vector(scale)) + more
        d_dropped = rows.dropped(d_total, draw, upscale)
        rows.write(d_x, first, d_total)
        rows.write(d_y, first, d_dropped)
        found = (rows.only_there(d_dropped), d * normalised, d)
        return tuple(total + each.sum(0) for total, each in zip(so_far, found, strict=True))

    zero = jnp.zeros((padded,), jnp.float32)
    for ref, total in zip(vectors_out, jax.lax.fori_loop(0, turns, turn, (zero,) * 3), strict=True):
        tile.write_vector(ref, total)


def reference(
    x: Float[Array, "rows d"],
    y: Float[Array, "rows d"],
    offset: Float[Array, " d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    draw: UInt32[Array, " 3"],
    upscale: Float[Array, " 1"],
    bits,
    epsilon: float,
    keeps_sum: bool = False,
) -> Float[Array, "rows d"] | tuple[Float[Array, "rows d"], Float[Array, "rows d"]]:
    """Returns what `add_and_normalise` has to, or `add_then_normalise`, in plain JAX."""
    index = jnp.arange(x.size, dtype=jnp.uint32).reshape(x.shape)
    projected = y.astype(jnp.float32) + offset[None, :]
    dropped = jnp.where(bits(index, draw[0], draw[1]) >> 8 < draw[2], projected * upscale[0], 0.0)
    total = x.astype(jnp.float32) + dropped
    if keeps_sum:
        total = total.astype(x.dtype).astype(jnp.float32)
    centred = total - total.mean(-1, keepdims=True)
    normalised = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    out = (normalised * scale[None, :] + bias[None, :]).astype(x.dtype)
    return (total.astype(x.dtype), out) if keeps_sum else out

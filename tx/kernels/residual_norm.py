"""LayerNorm(x + Dropout(y)), the end of a post-norm sub-layer (section 5.4), as one kernel in each direction.

The backward pass draws the dropout mask again rather than read it, and adds up the gradients of scale and bias on its
way: of the forward pass x and y alone are kept.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, UInt32

from tx.kernels import bias as biases
from tx.runtime import backend

FORWARD, BACKWARD = 4096, 2048  # elements that a program has in registers at a time, per array
_WARPS = 4


@functools.partial(jax.custom_vjp, nondiff_argnums=(7, 8))
def add_and_normalise(x, y, scale, bias, parts, draw, upscale, bits, epsilon):
    """Returns LayerNorm(x + Dropout(y)) of rows, computed in float32, as wide as x.

    Args:
      x, y: (rows, d).
      scale, bias: (d,), the norm's.
      parts: two arrays, whose cotangents add up to those of scale and bias, which then have none
        (`tx.kernels.bias`); or None.
      draw: uint32 (3,): the two words of a key, and how many of 2^24 elements are kept.
      upscale: float32 (1,), what a kept element is multiplied by.
      bits: (index, low, high) -> 32 random bits of the element with that index (`tx.model.prng`).
      epsilon: added to the variance.

    Off a GPU the kernels are interpreted, for tests.
    """
    return _forward(x, y, scale, bias, parts, draw, upscale, bits, epsilon)[0]


def _forward(x, y, scale, bias, parts, draw, upscale, bits, epsilon):
    rows, width = x.shape
    tile = tile_of(FORWARD, width)
    row = pl.BlockSpec((tile, width), lambda i: (i, 0))
    out = pl.pallas_call(
        functools.partial(_forward_kernel, Tile(tile, rows, width, bits, epsilon)),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        grid=(pl.cdiv(rows, tile),),
        in_specs=[row, row, *vectors(width, 2), *_drawn()],
        out_specs=row,
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=backend.on_cpu(),
        name="add_and_normalise",
    )(x, y, scale, bias, draw, upscale)
    return out, (x, y, scale, parts is not None, draw, upscale)


def _backward(bits, epsilon, residuals, d_out):
    x, y, scale, in_parts, draw, upscale = residuals
    rows, width = x.shape
    tile = tile_of(BACKWARD, width)
    turns = pl.cdiv(rows, biases.PROGRAMS * tile)
    row = pl.BlockSpec((turns * tile, width), lambda i: (i, 0))
    of_program = pl.BlockSpec((None, width), lambda i: (i, 0))
    d_x, d_y, *sums = pl.pallas_call(
        functools.partial(_backward_kernel, Tile(tile, rows, width, bits, epsilon), turns),
        out_shape=(
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            jax.ShapeDtypeStruct(y.shape, y.dtype),
            *[jax.ShapeDtypeStruct((biases.PROGRAMS, width), jnp.float32)] * 2,
        ),
        grid=(biases.PROGRAMS,),
        in_specs=[row, row, row, *vectors(width, 1), *_drawn()],
        out_specs=(row, row, of_program, of_program),
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=backend.on_cpu(),
        name="add_and_normalise_backward",
    )(x, y, d_out, scale, draw, upscale)
    if in_parts:
        return d_x, d_y, None, None, tuple(sums), None, None
    return d_x, d_y, *(each.sum(0) for each in sums), None, None, None


add_and_normalise.defvjp(_forward, _backward)


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
        shape = (self.tile, self._padded)
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
        """Returns a vector of the width, as a row; zeros beyond it."""
        columns = jax.lax.broadcasted_iota(jnp.int32, (self._padded,), 0)
        return triton.load(ref.at[pl.ds(0, self._padded)], mask=columns < self.width, other=jnp.float32(0.0))[None, :]

    def write_vector(self, ref, values):
        """Writes a vector of the width."""
        columns = jax.lax.broadcasted_iota(jnp.int32, (self._padded,), 0)
        triton.store(ref.at[pl.ds(0, self._padded)], values, mask=columns < self.width)

    def _place(self, first):
        return pl.ds(first, self.tile), pl.ds(0, self._padded)

    def keep(self, draw):
        """The mask of the dropout."""
        index = self._row.astype(jnp.uint32) * jnp.uint32(self.width) + self._column.astype(jnp.uint32)
        return self._bits(index, draw[0], draw[1]) >> 8 < draw[2]

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


def _forward_kernel(tile, x, y, scale, bias, draw, upscale, out):
    rows = tile.at(pl.program_id(0) * tile.tile)
    total = rows.read(x, 0) + jnp.where(rows.keep(draw), rows.read(y, 0) * upscale[0], 0.0)
    rows.write(out, 0, rows.normalised(total)[0] * rows.vector(scale) + rows.vector(bias))


def _backward_kernel(tile, turns, x, y, d_out, scale, draw, upscale, d_x, d_y, d_scale, d_bias):
    padded = pl.next_power_of_2(tile.width)
    start = pl.program_id(0) * turns * tile.tile

    def turn(j, so_far):
        first = j * tile.tile
        rows = tile.at(start + first)
        keep, d = rows.keep(draw), rows.read(d_out, first)
        total = rows.read(x, first) + jnp.where(keep, rows.read(y, first) * upscale[0], 0.0)
        normalised, spread = rows.normalised(total)
        d_total = rows.gradient(normalised, spread, d * rows.vector(scale))
        rows.write(d_x, first, d_total)
        rows.write(d_y, first, jnp.where(keep, d_total * upscale[0], 0.0))
        return so_far[0] + (d * normalised).sum(0), so_far[1] + d.sum(0)

    zero = jnp.zeros((padded,), jnp.float32)
    for ref, total in zip((d_scale, d_bias), jax.lax.fori_loop(0, turns, turn, (zero, zero)), strict=True):
        tile.write_vector(ref, total)


def reference(
    x: Float[Array, "rows d"],
    y: Float[Array, "rows d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    draw: UInt32[Array, " 3"],
    upscale: Float[Array, " 1"],
    bits,
    epsilon: float,
) -> Float[Array, "rows d"]:
    """Returns what the kernel has to, in plain JAX."""
    index = jnp.arange(x.size, dtype=jnp.uint32).reshape(x.shape)
    dropped = jnp.where(bits(index, draw[0], draw[1]) >> 8 < draw[2], y.astype(jnp.float32) * upscale[0], 0.0)
    total = x.astype(jnp.float32) + dropped
    centred = total - total.mean(-1, keepdims=True)
    normalised = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    return (normalised * scale[None, :] + bias[None, :]).astype(x.dtype)

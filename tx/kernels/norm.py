"""LayerNorm before a sub-layer (pre-norm), as one kernel in each direction; the backward pass reads x again."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from tx.kernels import triton
from tx.kernels.residual_norm import BACKWARD, FORWARD, Tile, tile_of, vectors
from tx.runtime import backend

_WARPS = 4


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalise(x, scale, bias, parts, epsilon):
    """Returns LayerNorm(x) of rows, computed in float32, as wide as x; arguments as `add_and_normalise` has them."""
    return _forward(x, scale, bias, parts, epsilon)[0]


def _forward(x, scale, bias, parts, epsilon):
    rows, width = x.shape
    tile = tile_of(FORWARD, width)
    row = pl.BlockSpec((tile, width), lambda i: (i, 0))
    out = pl.pallas_call(
        functools.partial(_forward_kernel, Tile(tile, rows, width, None, epsilon)),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        grid=(pl.cdiv(rows, tile),),
        in_specs=[row, *vectors(width, 2)],
        out_specs=row,
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=backend.on_cpu(),
        name="normalise",
    )(x, scale, bias)
    return out, (x, scale, parts)


def _backward(epsilon, residuals, d_out):
    x, scale, parts = residuals
    (rows, width), programs = x.shape, parts[0].shape[0]
    tile = tile_of(BACKWARD, width)
    turns = pl.cdiv(rows, programs * tile)
    row = pl.BlockSpec((turns * tile, width), lambda i: (i, 0))
    of_program = pl.BlockSpec((None, width), lambda i: (i, 0))
    d_x, *sums = pl.pallas_call(
        functools.partial(_backward_kernel, Tile(tile, rows, width, None, epsilon), turns),
        out_shape=(
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            *[jax.ShapeDtypeStruct((programs, width), jnp.float32)] * 2,
        ),
        grid=(programs,),
        in_specs=[row, row, *vectors(width, 1)],
        out_specs=(row, of_program, of_program),
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=backend.on_cpu(),
        name="normalise_backward",
    )(x, d_out, scale)
    return d_x, None, None, tuple(sums)


normalise.defvjp(_forward, _backward)


def _forward_kernel(tile, x, scale, bias, out):
    rows = tile.at(pl.program_id(0) * tile.tile)
    rows.write(out, 0, rows.normalised(rows.read(x, 0))[0] * rows.vector(scale) + rows.vector(bias))


def _backward_kernel(tile, turns, x, d_out, scale, d_x, d_scale, d_bias):
    start = pl.program_id(0) * turns * tile.tile

    def turn(j, so_far):
        first = j * tile.tile
        rows = tile.at(start + first)
        d = rows.read(d_out, first)
        normalised, spread = rows.normalised(rows.read(x, first))
        rows.write(d_x, first, rows.gradient(normalised, spread, d * rows.vector(scale)))
        return so_far[0] + (d * normalised).sum(0), so_far[1] + d.sum(0)

    zero = jnp.zeros((pl.next_power_of_2(tile.width),), jnp.float32)
    for ref, total in zip((d_scale, d_bias), jax.lax.fori_loop(0, turns, turn, (zero, zero)), strict=True):
        tile.write_vector(ref, total)


def reference(
    x: Float[Array, "rows d"], scale: Float[Array, " d"], bias: Float[Array, " d"], epsilon: float
) -> Float[Array, "rows d"]:
    """Returns what the kernel has to, in plain JAX."""
    centred = x.astype(jnp.float32)
    centred = centred - centred.mean(-1, keepdims=True)
    normalised = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    return (normalised * scale[None, :] + bias[None, :]).astype(x.dtype)

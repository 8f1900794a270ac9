"""Biases of projections, whose gradients are sums over all rows: made in one pass, for several projections at once.

Each sum comes in parts, PROGRAMS of them or fewer, that are still to be added up, as the cotangent of an array of
zeros, its `parts`, that nothing is computed from. So those of a whole model are added up by one kernel (`add_parts`),
not each by its own.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from tx.kernels import triton
from tx.kernels.elementwise import ARRAYS, choose
from tx.kernels.padded import hidden_zero
from tx.runtime import backend

PROGRAMS = 256  # that share the rows, at most: each has a sum of its own
ROWS = 32  # of a program at least, where there are so many
ELEMENTS = 4096  # that a program has in registers at a time
COLUMNS = 512  # of these, at most, side by side
_WARPS = 4


def programs_for(rows: int) -> int:
    """Returns how many programs share so many rows, hence how many parts a sum over them comes in."""
    return max(1, min(PROGRAMS, rows // ROWS))


@jax.custom_vjp
def add_biases(
    ys: tuple[Float[Array, "rows _"], ...],
    biases: tuple[Float[Array, " _"], ...],
    parts: tuple[Float[Array, "programs _"], ...],
) -> tuple[Float[Array, "rows _"], ...]:
    """Returns each y + bias; it is the parts' cotangents that add up to the biases', which have none."""
    del parts
    return tuple(y + bias[None, :] for y, bias in zip(ys, biases, strict=True))


def _add_forward(ys, biases, parts):
    return add_biases(ys, biases, parts), parts


def _add_backward(parts, cotangents):
    programs = parts[0].shape[0]
    return cotangents, None, _sum_columns(cotangents, programs)[1]


add_biases.defvjp(_add_forward, _add_backward)


@jax.custom_vjp
def add_bias_and_rectify(
    y: Float[Array, "rows d"], bias: Float[Array, " d"], parts: Float[Array, "programs d"]
) -> Float[Array, "rows d"]:
    """Returns max(0, y + bias), with cotangents as `add_biases` has them."""
    del parts
    return jnp.maximum(y + bias[None, :], jnp.zeros((), y.dtype))


def _rectify_forward(y, bias, parts):
    hidden = add_bias_and_rectify(y, bias, parts)
    return hidden, (hidden, parts)


def _rectify_backward(residuals, cotangent):
    hidden, parts = residuals
    (d_y,), (d_parts,) = _sum_columns((cotangent,), parts.shape[0], hidden)
    return d_y, None, d_parts


add_bias_and_rectify.defvjp(_rectify_forward, _rectify_backward)


def _sum_columns(arrays, programs, hidden=None):
    """Returns (arrays, the parts of their columns' sums); with `hidden` the one array is zeroed first where that is."""
    rows, widths = arrays[0].shape[0], [array.shape[1] for array in arrays]
    columns = min(COLUMNS, pl.next_power_of_2(max(widths)))
    tile = max(1, ELEMENTS // columns)
    turns = pl.cdiv(rows, programs * tile)
    whole = [pl.BlockSpec((turns * tile, width), lambda i, j: (i, 0)) for width in widths]
    sums = [jax.ShapeDtypeStruct((programs, width), jnp.float32) for width in widths]
    written = () if hidden is None else (jax.ShapeDtypeStruct(hidden.shape, arrays[0].dtype),)
    # A program beyond the rows looks at the last of them, and finds that they are not its own.
    made = pl.pallas_call(
        functools.partial(_sum_kernel, rows, widths, tile, turns, columns, hidden is not None),
        out_shape=(*written, *sums),
        grid=(programs, pl.cdiv(max(widths), columns)),
        in_specs=[*whole, *whole[: len(written)]],
        out_specs=(*whole[: len(written)], *[pl.BlockSpec((None, width), lambda i, j: (i, 0)) for width in widths]),
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=backend.on_cpu(),
        name="sum_columns" if hidden is None else "rectify_and_sum_columns",
    )(*arrays, *(() if hidden is None else (hidden,)))
    return (arrays if hidden is None else tuple(made[:1])), tuple(made[len(written) :])


def _sum_kernel(rows, widths, tile, turns, columns, rectified, *refs):
    """The rows of one program, some columns of each array."""
    arrays, refs = refs[: len(widths)], refs[len(widths) :]
    hidden, written = refs[:2] if rectified else (None, None)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (tile, columns), axis) for axis in range(2))
    first, left = pl.program_id(0) * turns * tile, pl.program_id(1) * columns

    def turn(array, width, j, total):
        place = (pl.ds(j * tile, tile), pl.ds(left, columns))
        there = (first + j * tile + row < rows) & (left + column < width)
        values = triton.load(array.at[place], mask=there, other=jnp.zeros((), array.dtype))
        if rectified:
            kept = triton.load(hidden.at[place], mask=there, other=jnp.zeros((), hidden.dtype)) > 0
            values = jnp.where(kept, values, jnp.zeros((), values.dtype))
            triton.store(written.at[place], values, mask=there)
        return total + values.astype(jnp.float32).sum(0)

    for array, width, result in zip(arrays, widths, refs[2 if rectified else 0 :], strict=True):
        zero = jnp.zeros((columns,), jnp.float32)
        total = jax.lax.fori_loop(0, turns, functools.partial(turn, array, width), zero)
        there = left + jax.lax.broadcasted_iota(jnp.int32, (columns,), 0) < width
        triton.store(result.at[pl.ds(left, columns)], total, mask=there)


def add_parts(every: Sequence[Float[Array, "programs _"]]) -> list[Float[Array, " _"]]:
    """Returns the sum of each array's rows, those of dozens of arrays by one kernel."""
    made = []
    for first in range(0, len(every), ARRAYS // 2):
        made += _add_some(every[first : first + ARRAYS // 2])
    return made


def _add_some(every):
    columns = 32  # so few that the sums of small models are shared by many programs, too
    tiles = [pl.cdiv(each.shape[1], columns) for each in every]
    starts = [sum(tiles[:number]) for number in range(len(tiles) + 1)]
    whole = [pl.BlockSpec(each.shape, lambda i: (0, 0)) for each in every]
    return pl.pallas_call(
        functools.partial(_add_kernel, [each.shape for each in every], starts, columns),
        out_shape=tuple(jax.ShapeDtypeStruct(each.shape[1:], jnp.float32) for each in every),
        grid=(starts[-1],),
        in_specs=whole,
        out_specs=tuple(pl.BlockSpec(each.shape[1:], lambda i: (0,)) for each in every),
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=backend.on_cpu(),
        name="add_parts",
    )(*every)


def _add_kernel(shapes, starts, columns, *refs):
    """Some columns of one array."""
    program = pl.program_id(0)

    def compute(item):
        left, (rows, width) = (program - starts[item]) * columns, shapes[item]
        padded = pl.next_power_of_2(rows)
        row, column = (jax.lax.broadcasted_iota(jnp.int32, (padded, columns), axis) for axis in range(2))
        there = (row < rows) & (left + column < width)
        place = (pl.ds(hidden_zero(program), padded), pl.ds(left, columns))
        total = triton.load(refs[item].at[place], mask=there, other=jnp.float32(0.0)).sum(0)
        there = left + jax.lax.broadcasted_iota(jnp.int32, (columns,), 0) < width
        triton.store(refs[len(shapes) + item].at[pl.ds(left, columns)], total, mask=there)

    choose(program, starts, compute)


def reference_biases(
    ys: tuple[Float[Array, "rows _"], ...], biases: tuple[Float[Array, " _"], ...]
) -> tuple[Float[Array, "rows _"], ...]:
    """Returns what `add_biases` has to, in plain JAX, which gives the biases their gradients."""
    return tuple(y + bias[None, :] for y, bias in zip(ys, biases, strict=True))


def reference_rectified(y: Float[Array, "rows d"], bias: Float[Array, " d"]) -> Float[Array, "rows d"]:
    """Returns what `add_bias_and_rectify` has to, in plain JAX."""
    return jax.nn.relu(y + bias[None, :])

"""A function of elements over many arrays at once: a kernel for dozens of them, where each would be launched alone."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from tx.kernels import triton
from tx.runtime import backend

TILE = 2048  # elements of each array that a program takes
ARRAYS = 256  # of one kernel, at most, inputs and outputs: their addresses are its arguments, of which 4 KiB are safe
_WARPS = 4


def map_elements(
    function: Callable,
    items: Sequence[tuple[Array, ...]],
    shared: Sequence[Array] = (),
    *,
    dtypes: Sequence,
    in_place: dict[int, int] | None = None,
    name: str,
) -> tuple[list[tuple[Array, ...]], list[Float[Array, " programs"]]]:
    """Returns what a function makes of each item's arrays, element by element; and a number for every tile of it.

    Args:
      function: (the item's number, elements of each of its arrays (TILE,), the shared numbers) -> (as many elements of
        each result, the tile's number, float32 ()). Beyond the end of an array it is given zeros.
      items: tuples of arrays; those of one item have one shape.
      shared: single numbers, ().
      dtypes: of the results of each item, which have its shape.
      in_place: the number of an array -> that of the result that takes its memory.
      name: of the kernel.

    Off a GPU the kernel is interpreted, for tests.
    """
    if not items:
        return [], []
    most = max(1, ARRAYS // (len(items[0]) + len(dtypes)))
    made, numbers = [], []
    for first in range(0, len(items), most):
        part = items[first : first + most]
        results, number = _map_part(functools.partial(_offset, function, first), part, shared, dtypes, in_place, name)
        made += results
        numbers += number
    return made, numbers


def _offset(function, first, number, *arguments):
    return function(first + number, *arguments)


def _map_part(function, items, shared, dtypes, in_place, name):
    sizes = [math.prod(item[0].shape) for item in items]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + pl.cdiv(size, TILE))
    width, depth = len(items[0]), len(dtypes)
    one = pl.BlockSpec((1,), lambda i: (0,))
    outs = [jax.ShapeDtypeStruct((size,), dtype) for size in sizes for dtype in dtypes]
    whole = [pl.BlockSpec((size,), lambda i: (0,)) for size in sizes]
    *results, numbers = pl.pallas_call(
        functools.partial(_kernel, function, sizes, starts, width, depth, len(shared)),
        out_shape=(*outs, jax.ShapeDtypeStruct((starts[-1],), jnp.float32)),
        grid=(starts[-1],),
        in_specs=[*[one] * len(shared), *[spec for spec in whole for _ in range(width)]],
        out_specs=(*[spec for spec in whole for _ in range(depth)], pl.BlockSpec((1,), lambda i: (i,))),
        input_output_aliases={
            len(shared) + item * width + array: item * depth + result
            for item in range(len(items))
            for array, result in (in_place or {}).items()
        },
        compiler_params=triton.CompilerParams(num_warps=_WARPS),
        interpret=backend.on_cpu(),
        name=name,
    )(*(value[None] for value in shared), *(array.reshape(-1) for item in items for array in item))
    shaped = [
        tuple(result.reshape(items[item][0].shape) for result in results[item * depth : (item + 1) * depth])
        for item in range(len(items))
    ]
    return shaped, [numbers[start:end] for start, end in itertools.pairwise(starts)]


def _kernel(function, sizes, starts, width, depth, given, *refs):
    """One tile of one item."""
    program = pl.program_id(0)
    values, refs = refs[:given], refs[given:]
    inputs, outputs, number = refs[: width * len(sizes)], refs[width * len(sizes) : -1], refs[-1]

    def compute(item):
        start = (program - starts[item]) * TILE
        there = start + jax.lax.broadcasted_iota(jnp.int32, (TILE,), 0) < sizes[item]
        place = pl.ds(start, TILE)
        read = [
            triton.load(ref.at[place], mask=there, other=jnp.zeros((), ref.dtype))
            for ref in inputs[item * width : (item + 1) * width]
        ]
        made, number[0] = function(item, *read, *(value[0] for value in values))
        for ref, each in zip(outputs[item * depth : (item + 1) * depth], made, strict=True):
            triton.store(ref.at[place], each.astype(ref.dtype), mask=there)

    choose(program, starts, compute)


def choose(program: Array, starts: Sequence[int], compute: Callable[[int], None]) -> None:
    """Computes, in a kernel, the item whose programs, from starts[item] to starts[item + 1], this is one of.

    It is found by halves.
    """

    def among(first, last):
        if last - first == 1:
            compute(first)
            return
        middle = (first + last) // 2
        jax.lax.cond(program < starts[middle], lambda: among(first, middle), lambda: among(middle, last))

    among(0, len(starts) - 1)


def cast(arrays: Sequence[Array], dtype) -> list[Array]:
    """Returns arrays as others of a dtype."""

    def itself(_, x):
        return (x,), jnp.zeros((), jnp.float32)

    made, _ = map_elements(itself, [(array,) for array in arrays], dtypes=(dtype,), name="cast")
    return [result for (result,) in made]

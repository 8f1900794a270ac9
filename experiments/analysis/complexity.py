"""Operations, critical path and dependencies of a computation, read off its jaxpr; Table 1 has formulas."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core


def product_flops(function: Callable, *arguments) -> int:
    """Returns the floating-point operations of all matrix products in a call; those of a loop once for each pass.

    A product of (m, k) with (k, n) counts 2mkn. Compilers' own counts take the body of a loop once.
    """
    return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def critical_path_length(function: Callable, *arguments) -> int:
    """Returns the operations on the longest chain of dependent ones; the passes of a loop count one by one."""
    return _chain(jax.make_jaxpr(function)(*arguments).jaxpr)


def _flops(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
        total += _passes(equation) * sum(map(_flops, _bodies(equation)))
    return total


def _chain(jaxpr):
    depth = {}

    def of(variable):
        return 0 if isinstance(variable, core.Literal) else depth.get(variable, 0)

    for equation in jaxpr.eqns:
        own = _passes(equation) * max(map(_chain, _bodies(equation)), default=1)
        start = max(map(of, equation.invars), default=0)
        depth |= dict.fromkeys(equation.outvars, start + own)
    return max(map(of, jaxpr.outvars), default=0)


def _passes(equation):
    if equation.primitive.name == "while":
        raise ValueError("a loop whose number of passes depends on values cannot be counted")
    return equation.params["length"] if equation.primitive.name == "scan" else 1


def _bodies(equation):
    """Returns the programs inside an operation, such as the body of a loop or of a call."""
    found = []
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, core.ClosedJaxpr):
                found.append(one.jaxpr)
            elif isinstance(one, core.Jaxpr):
                found.append(one)
    return found


def dependency_matrix(function: Callable[[jax.Array], jax.Array], x: jax.Array, other: jax.Array) -> np.ndarray:
    """Returns the dependencies of outputs on inputs, boolean (n, n): [i, j] is whether y[i] depends on x[j].

    Found by exchanging one input at a time: y[i] is what it was, bit for bit, unless it depends on it.

    Args:
      function: maps (n, d) to (n, d).
      x, other: inputs (n, d) that differ everywhere.
    """

    @jax.jit
    def moved(j):
        return jnp.any(function(x.at[j].set(other[j])) != y, axis=-1)

    y = jax.jit(function)(x)
    return np.stack([np.asarray(moved(j)) for j in range(len(x))], axis=1)


def layers_to_connect(layer: Callable[[int], np.ndarray], wanted: np.ndarray, most: int) -> int | None:
    """Returns the maximum path length: how many layers it takes until every output depends on what it should.

    Args:
      layer: the dependency matrix of layer l = 0, 1, ..., (n, n).
      wanted: which of them should.
      most: give up after so many; None is returned.
    """
    reached = np.eye(len(wanted), dtype=bool)
    for count in range(1, most + 1):
        reached = _product(layer(count - 1), reached)
        if reached[wanted].all():
            return count
    return None


def equal_layers_to_connect(layer: np.ndarray, wanted: np.ndarray) -> int | None:
    """Returns the maximum path length of equal layers, in which every output depends on its own input.

    In two to the power of so many layers everything is reached that is reached in fewer: so powers are squared until
    they suffice, and then put together to the least number that does. None where no number suffices.
    """
    if not layer.diagonal().all():
        raise ValueError("an output that does not depend on its own input forgets what the layer before had reached")
    powers = [layer]
    while not powers[-1][wanted].all():
        if len(powers) > 1 and (powers[-1] == powers[-2]).all():
            return None
        powers.append(_product(powers[-1], powers[-1]))
    reached, count = np.eye(len(layer), dtype=bool), 0
    for exponent in reversed(range(len(powers))):  # the most layers that do not suffice
        further = _product(powers[exponent], reached)
        if not further[wanted].all():
            reached, count = further, count + 2**exponent
    return count + 1


def _product(one, other):
    # Of counts, of which only whether they are zero is kept: exact, as they stay below 2^24.
    return (one.astype(np.float32) @ other.astype(np.float32)) > 0

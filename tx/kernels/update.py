"""The update of an optimizer that treats every element alone, of all parameters by a few kernels.

Each kernel runs Optax's own transformation on a tile of a parameter, its gradient and its moments, and writes parameter
and moments where they lay. State, checkpoints and everything else keep seeing trees.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Literal
from jaxtyping import Array, Float

from tx.kernels import elementwise


def update_elements(
    make: Callable[[optax.Schedule], optax.GradientTransformation],
    rate: optax.Schedule,
    params: Any,
    grads: Any,
    opt_state: Any,
    labels: Sequence[int],
) -> tuple[Any, Any, Float[Array, " labels"]]:
    """Returns (parameters, the optimizer's state) after an update, and the gradients' norm over each label.

    Args:
      make: schedule -> the optimizer; what it does to an element depends on nothing but that element of parameter,
        gradient and moments, on numbers, and on how many dimensions the parameter has.
      rate: the schedule.
      params, grads: trees of one structure; gradients may be narrower.
      opt_state: the optimizer's state: trees of the parameters' structure, and numbers.
      labels: of each parameter, in the tree's order, from 0.
    """
    leaves, structure = jax.tree.flatten(params)
    split = _Split(opt_state, structure)
    moments, (rates, new_numbers) = split.moments, _after(make, rate, split)
    of_elements = functools.partial(_of_elements, make, split)

    def traced(dimensions):
        tile = jax.ShapeDtypeStruct((1,) * (dimensions - 1) + (elementwise.TILE,), jnp.float32)
        return jax.make_jaxpr(of_elements)(*[tile] * (2 + len(moments)), *split.numbers, *rates)

    programs = {dimensions: traced(dimensions) for dimensions in {leaf.ndim for leaf in leaves}}

    def of_tile(item, param, grad, *others):
        grad = grad.astype(jnp.float32)
        program = programs[leaves[item].ndim]
        arrays = (param, grad, *others[: len(moments)])
        arrays = (each.reshape(shape.shape) for each, shape in zip(arrays, program.in_avals, strict=False))
        made = _run(program, *arrays, *others[len(moments) :])
        return tuple(each.reshape(param.shape) for each in made), (grad * grad).sum()

    made, squares = elementwise.map_elements(
        of_tile,
        list(zip(leaves, jax.tree.leaves(grads), *moments, strict=True)),
        [*split.numbers, *rates],
        dtypes=[each.dtype for each in (leaves[0], *(moment[0] for moment in moments))],
        in_place={0: 0} | {2 + number: 1 + number for number in range(len(moments))},
        name="update",
    )
    new, *new_moments = (jax.tree.unflatten(structure, arrays) for arrays in zip(*made, strict=True))
    return new, split.joined(new_moments, new_numbers), _norms(squares, labels)


class _Split:
    """The state of an optimizer, taken apart: its trees of the parameters' structure, as leaves, and its numbers."""

    def __init__(self, opt_state, structure):
        def is_tree(part):
            return jax.tree.structure(part) == structure

        parts, self._whole = jax.tree.flatten(opt_state, is_leaf=is_tree)
        self._are_trees = [is_tree(part) for part in parts]
        self.moments = [jax.tree.leaves(part) for part in parts if is_tree(part)]
        self.numbers = [part for part in parts if not is_tree(part)]

    def joined(self, trees, numbers):
        """Returns the state with these instead, in this order."""
        trees, numbers = iter(trees), iter(numbers)
        return jax.tree.unflatten(self._whole, [next(trees if is_tree else numbers) for is_tree in self._are_trees])


def _after(make, rate, split):
    """Returns the rates that the schedule gives in an update, and the state's numbers after it."""
    rates = []

    def recorded(count):
        rates.append(jnp.asarray(rate(count), jnp.float32))
        return rates[-1]

    with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 and float32 in its bias correction
        _, after = make(recorded).update({}, split.joined([{}] * len(split.moments), split.numbers), {})
    return rates, jax.tree.leaves(after)


def _of_elements(make, split, param, grad, *others):
    """Returns new parameter and moments, from those of some elements, the state's numbers and the rates."""
    moments, numbers = others[: len(split.moments)], others[len(split.moments) :]
    state = split.joined([{"": each} for each in moments], numbers)
    rates = iter(numbers[len(split.numbers) :])
    with jax.numpy_dtype_promotion("standard"):
        updates, state = make(lambda count: next(rates)).update({"": grad}, state, {"": param})
        made = optax.apply_updates({"": param}, updates)[""]
    kept = jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, dict))
    return made, *(part[""] for part in kept if isinstance(part, dict))


def _run(program, *arguments):
    """Computes what was traced, but copies nothing: for `jnp.array` of an array Triton knows no instruction."""
    known = dict(zip(program.jaxpr.invars, arguments, strict=True))
    known |= dict(zip(program.jaxpr.constvars, program.consts, strict=True))

    def value(atom):
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in program.jaxpr.eqns:
        given = [value(atom) for atom in equation.invars]
        within = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        if equation.primitive.name == "copy":
            results = given
        elif within is not None:
            results = _run(within, *given)
        else:
            results = equation.primitive.bind(*given, **equation.params)
            results = results if equation.primitive.multiple_results else [results]
        known |= dict(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in program.jaxpr.outvars]


def _norms(squares, labels):
    """Returns the root of the sum of all numbers of one label, for each."""
    of_number = jnp.repeat(
        jnp.asarray(labels, jnp.int32),
        jnp.asarray([len(each) for each in squares]),
        total_repeat_length=sum(map(len, squares)),
    )
    hit = of_number[None, :] == jnp.arange(max(labels) + 1)[:, None]
    return jnp.sqrt(jnp.where(hit, jnp.concatenate(squares)[None, :], 0.0).sum(1))

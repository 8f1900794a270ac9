"""The update of an optimizer that treats every element alone, of all parameters by a few kernels.

Each kernel runs Optax's own transformation on a tile of a parameter, its gradient and its moments, and writes parameter
and moments where they lay. State, checkpoints and everything else keep seeing trees.
"""

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
    parts, whole = jax.tree.flatten(opt_state, is_leaf=lambda part: jax.tree.structure(part) == structure)
    is_tree = [jax.tree.structure(part) == structure for part in parts]
    moments = [jax.tree.leaves(part) for part, tree in zip(parts, is_tree, strict=True) if tree]
    numbers = [part for part, tree in zip(parts, is_tree, strict=True) if not tree]

    def joined(of_trees, of_numbers):
        """The state, of which each tree and each number is the next of these."""
        trees, single = iter(of_trees), iter(of_numbers)
        return jax.tree.unflatten(whole, [next(trees if tree else single) for tree in is_tree])

    # Of no parameters at all: that leaves the new numbers, and the rates that the schedule gave.
    rates = []

    def recorded(count):
        rates.append(jnp.asarray(rate(count), jnp.float32))
        return rates[-1]

    with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 and float32 in its bias correction
        _, after = make(recorded).update({}, joined([{}] * len(moments), numbers), {})
    new_numbers = jax.tree.leaves(after)

    def of_elements(param, grad, *others):
        """New parameter and moments, from all that there is of one tile."""
        trees, shared = [{"": each} for each in others[: len(moments)]], others[len(moments) :]
        given = iter(shared[len(numbers) :])
        with jax.numpy_dtype_promotion("standard"):
            updates, state = make(lambda count: next(given)).update(
                {"": grad}, joined(trees, shared[: len(numbers)]), {"": param}
            )
            made = optax.apply_updates({"": param}, updates)[""]
        kept = jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, dict))
        return made, *(part[""] for part in kept if isinstance(part, dict))

    def traced(dimensions):
        tile = jax.ShapeDtypeStruct((1,) * (dimensions - 1) + (elementwise.TILE,), jnp.float32)
        return jax.make_jaxpr(of_elements)(*[tile] * (2 + len(moments)), *numbers, *rates)

    programs = {dimensions: traced(dimensions) for dimensions in {leaf.ndim for leaf in leaves}}

    def of_tile(item, param, grad, *others):
        grad = grad.astype(jnp.float32)
        program = programs[leaves[item].ndim]
        arrays = (param, grad, *others[: len(moments)])
        arrays = (each.reshape(shape.shape) for each, shape in zip(arrays, program.in_avals, strict=False))
        made = _run(program, *arrays, *others[len(moments) :])
        return tuple(each.reshape(param.shape) for each in made), (grad * grad).sum()

    items = list(zip(leaves, jax.tree.leaves(grads), *moments, strict=True))
    made, squares = elementwise.map_elements(
        of_tile,
        items,
        [*numbers, *rates],
        dtypes=[each.dtype for each in (leaves[0], *(moment[0] for moment in moments))],
        in_place={0: 0} | {2 + number: 1 + number for number in range(len(moments))},
        name="update",
    )
    new, *new_moments = ([each[place] for each in made] for place in range(1 + len(moments)))
    trees = [jax.tree.unflatten(structure, moment) for moment in new_moments]
    return jax.tree.unflatten(structure, new), joined(trees, new_numbers), _norms(squares, labels)


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

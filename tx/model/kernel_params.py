"""Parameters and gradients as kernels have them (model.kernels=pallas), and back."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.tree_util import DictKey, tree_flatten_with_path, tree_leaves_with_path
from jaxtyping import Array, Float

from tx.kernels.bias import add_parts, programs_for
from tx.kernels.elementwise import cast

PARTS = "parts"  # the collection of zeros whose cotangents add up to the gradients of the parameters of these names


def parts_of(module: nn.Module, name: str) -> Float[Array, "programs d"] | None:
    """Returns the parts of the gradient of a module's parameter, a vector; None where they are not asked for."""
    return module.get_variable(PARTS, name, None)


def prepare(params: dict, dtype: str, rows: int) -> tuple[dict, dict]:
    """Returns the parameters, those of projections cast to the dtype; and zeros for the parts of vectors' gradients.

    Projections are those of `tx.model.layers.Dense`, which are used in the dtype alone. `rows` is how many tokens of
    either side there are at a time.
    """
    leaves, structure = tree_flatten_with_path(params)
    kernels = {path for path, leaf in leaves if path[-1].key == "kernel" and leaf.ndim == 2}
    biases = {(*path[:-1], DictKey("bias")) for path in kernels} & {path for path, _ in leaves}
    if dtype != "float32":
        narrow = kernels | biases
        made = iter(cast([leaf for path, leaf in leaves if path in narrow], dtype))
        params = jax.tree.unflatten(structure, [next(made) if path in narrow else leaf for path, leaf in leaves])
    parts = {}
    for path, leaf in leaves:
        if path in biases or (leaf.ndim == 1 and len(path) > 1 and path[-2].key.endswith("norm")):
            _put(parts, path, jnp.zeros((programs_for(rows), *leaf.shape), jnp.float32))
    return params, parts


def _put(tree, path, value):
    for key in path[:-1]:
        tree = tree.setdefault(key.key, {})
    tree[path[-1].key] = value


def gather(grads: Any, parts: Any) -> Any:
    """Returns the gradients with those that came in parts."""
    found = tree_leaves_with_path(parts)
    sums = dict(zip((path for path, _ in found), add_parts([leaf for _, leaf in found]), strict=True))
    # What came in parts has no other gradient, but for a parameter that is used elsewhere, too.
    return jax.tree_util.tree_map_with_path(
        lambda path, grad: grad.astype(jnp.float32) + sums[path] if path in sums else grad, grads
    )

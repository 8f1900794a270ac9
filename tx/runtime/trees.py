"""Stacks of trees of arrays: several of one structure as one, with a leading axis for them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def stack(trees: Sequence[Any], join: Callable = jnp.stack) -> Any:
    """Joins trees of one structure on a new leading axis of every leaf; a single tree stays as it is."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: join(leaves), *trees)


def member(tree: Any, index: int, members: int) -> Any:
    """Returns one of the `members` trees that `stack` joined; of arrays in memory their parts, not copied."""
    if members == 1:
        return tree
    if all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tree)):
        return jax.tree.map(lambda leaf: leaf[index, ...], tree)  # "...": of one axis, too, an array
    return _take(tree, np.int32(index))


@jax.jit
def _take(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)

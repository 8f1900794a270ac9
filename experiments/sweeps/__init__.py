"""Sweeps of variants, each a diff against one base.

Importing the package registers every sweep; a new sweep is a module of its own, named here twice, with its expectations
in `experiments/claims.py`.
"""

from experiments.sweeps import (
    add_norm,
    architecture,
    decoding,
    depth,
    embeddings,
    feed_forward,
    heads,
    losses,
    optimizers,
    positions,
    recipe,
    regularisation,
    regularised,
    schedule,
    similarity,
    table1,
    table2,
    table3,
)

__all__ = [
    "add_norm",
    "architecture",
    "decoding",
    "depth",
    "embeddings",
    "feed_forward",
    "heads",
    "losses",
    "optimizers",
    "positions",
    "recipe",
    "regularisation",
    "regularised",
    "schedule",
    "similarity",
    "table1",
    "table2",
    "table3",
]

"""What to run: sweeps of variants, each a diff against one base, at some scale; and the tables of results.

Importing the package registers every sweep; a new sweep is a module of its own, named here.
"""

from experiments import (
    add_norm,
    decoding,
    embeddings,
    feed_forward,
    heads,
    positions,
    recipe,
    registry,
    regularisation,
    regularised,
    schedule,
    similarity,
    table1,
    table3,
)

__all__ = [
    "add_norm",
    "decoding",
    "embeddings",
    "feed_forward",
    "heads",
    "positions",
    "recipe",
    "registry",
    "regularisation",
    "regularised",
    "schedule",
    "similarity",
    "table1",
    "table3",
]

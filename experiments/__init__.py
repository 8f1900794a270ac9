"""What to run: sweeps of variants, each a diff against one base, at some scale; and the tables of results.

Importing the package registers every sweep; a new sweep is a module of its own, named here.
"""

from experiments import registry, regularised, table3

__all__ = ["registry", "regularised", "table3"]

"""What to run: sweeps of variants, each a diff against one base, at some scale; and the tables of results.

Importing the package registers every sweep.
"""

from experiments import registry, sweeps

__all__ = ["registry", "sweeps"]

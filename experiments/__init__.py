"""What to run: sweeps of variants, each a diff against one base, at some scale; and the tables of results.

Importing the package registers every sweep. `experiments.load(DIRS)` and `experiments.curves(DIRS)` give results as
pandas data frames (experiments/frames.py).
"""

from experiments import registry, sweeps

__all__ = ["curves", "load", "registry", "sweeps"]


def __getattr__(name: str):
    """Returns `load` or `curves`, imported when asked for: planning reads no results."""
    if name in ("curves", "load"):
        from experiments import frames

        return getattr(frames, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

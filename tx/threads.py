"""How many threads JAX computes with on a CPU: a number that is given, since the order of sums depends on it."""

import os

_VARIABLE = "PJRT_NPROC"


def fix(count: int) -> None:
    """Sets the number for this process, whatever cores it may use; call it before JAX starts."""
    os.environ[_VARIABLE] = str(count)


def count() -> int:
    """Returns the number: where none was fixed, that of the cores that this process may use."""
    if given := int(os.environ.get(_VARIABLE, 0)):
        return given
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

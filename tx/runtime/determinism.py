"""Determinism: equal bits need an equal number of threads and, on a GPU, a choice of kernels.

On a CPU the order of sums follows the number of threads, so it is given, not taken from the machine. On a GPU some
kernels add in any order unless they are told not to.
"""

import os

from ml_collections import ConfigDict

from tx.runtime.backend import computes_on_cpu

_THREADS, _FLAGS = "PJRT_NPROC", "XLA_FLAGS"
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def fix(parallel: ConfigDict) -> None:
    """Sets this process to `parallel.threads` on a CPU, whatever cores it may use; call it before JAX starts.

    With `parallel.deterministic` also to kernels that give equal bits each time, on a GPU. There the number of threads
    changes no bit, and few of them would be slow to compile: one took three minutes where 16 cores take one.
    """
    if computes_on_cpu():
        os.environ[_THREADS] = str(parallel.threads)
    if parallel.deterministic:
        os.environ[_FLAGS] = f"{os.environ.get(_FLAGS, '')} {DETERMINISTIC}".strip()


def threads() -> int:
    """Returns the number of threads: where none was fixed, that of the cores that this process may use."""
    if given := int(os.environ.get(_THREADS, 0)):
        return given
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""How a process on CPU uses memory: what is freed is kept for the next step, and one step is under way at a time."""

import ctypes
import sys

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Makes malloc reuse large blocks; call it before JAX starts.

    On CPU, XLA allocates a step's arrays anew each time. By default glibc maps each large block from the kernel, which
    fills it with zeros page by page: measured on two cores, that made a third of a small model's step. Nothing happens
    where the C library is another.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_ARENA_MAX, 1)  # the settings below hold for the main arena alone
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 * 2**20)


def one_step_at_a_time() -> None:
    """Makes a call of a compiled program on CPU return when it is done; call it before JAX starts.

    JAX would start the next step while one is still being computed, with temporaries of its own: twice the memory, and
    no faster where both use the same cores.
    """
    import jax  # here: what other libraries compute keeps its memory so too, and must not load this one

    jax.config.update("jax_cpu_enable_async_dispatch", False)

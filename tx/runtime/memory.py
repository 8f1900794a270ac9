"""How a process uses memory: on CPU what is freed is kept for the next step, and one step is under way at a time; what
asked for more than there is, is named."""

import contextlib
import ctypes
import re
import sys
from collections.abc import Iterator

from tx import config as config_lib
from tx.errors import UserError

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


@contextlib.contextmanager
def named(what: str, remedy: str) -> Iterator[None]:
    """Raises UserError where the body runs out of memory on the host or a device.

    Args:
      what: the body does, with the sizes that memory goes with.
      remedy: what to change.
    """
    import jax  # see above

    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in text:
            raise
        size = re.search(r"allocat\w* ([\d.]+ ?\w+)", text)
        more = f", which asked for {size[1]} more" if size else ""
        raise UserError(f"out of memory {what}{more}; {remedy}") from error


def named_training(config) -> contextlib.AbstractContextManager:
    """Names training steps of a configuration."""
    sizes = ("data.batch_rows", "data.row_length", "model.vocab_size", "train.micro_batches")
    return named(f"training with {_listed(config, sizes)}", "raise train.micro_batches, or lower data.batch_rows")


def named_decoding(config) -> contextlib.AbstractContextManager:
    """Names translating with a configuration."""
    sizes = ("decode.batch_tokens", "decode.beam", "decode.extra_length", "model.vocab_size")
    return named(f"translating with {_listed(config, sizes)}", "lower decode.batch_tokens")


def _listed(config, names):
    fields = config_lib.fields(config)
    return ", ".join(f"{name}={fields[name]}" for name in names)

"""Out-of-memory errors, reworded: with the sizes that memory depends on, and what to change."""

import contextlib
import re
from collections.abc import Iterator

import jax

from tx import config as config_lib
from tx.errors import UserError


@contextlib.contextmanager
def named(what: str, remedy: str) -> Iterator[None]:
    """Raises UserError where the body runs out of memory on the host or a device.

    Args:
      what: the body does, with the sizes that memory goes with.
      remedy: what to change.
    """
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

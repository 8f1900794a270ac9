"""Pallas's backend for NVIDIA GPUs, imported when a kernel first asks for something of it.

JAX has deprecated it (0.11) and will drop it one day: then `model.kernels=pallas` alone goes, and not this package.
"""

from tx.errors import UserError


def __getattr__(name: str):
    if name.startswith("__"):  # what Python asks of any module
        raise AttributeError(name)
    try:
        from jax.experimental.pallas import triton
    except ImportError:
        why = "this JAX has no Triton for model.kernels=pallas; set it to xla, or install an older JAX"
        raise UserError(why) from None
    return getattr(triton, name)

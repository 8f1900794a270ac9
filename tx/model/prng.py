"""Random bits as a function of a key and an element's index: a generator that costs little to run and to compile.

JAX's own generator (Threefry) loops over whole arrays on a CPU: for dropout it took an eighth of a small model's step,
and compiling it for every shape of parameter took longer than anything else before the first step.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl
from jaxtyping import Array, UInt32

from tx.runtime import backend

_ODD = np.uint32(0x9E3779B9)  # sets apart what is drawn from one key


def random_bits(key: Array, shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """Returns 32 random bits an element: a function of the 64 bits of `key` (of any generator) and the index.

    Each index goes twice through a 32-bit mixing function (C. Wellons's lowbias32), keyed in between: one fused pass
    that writes nothing but its result.
    """
    return _bits(jax.random.key_data(key), 32, shape)


def key(seed: Array | int) -> Array:
    """Returns a key of this generator for the functions of jax.random."""
    return jax.random.key(seed, impl=_GENERATOR)


def _bits(words, width, shape):
    if width != 32:
        raise NotImplementedError(f"this generator draws 32 bits an element, not {width}")
    low, high = words
    index = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    return mix_bits(index, low, high)


def mix_bits(index: Array, low: Array, high: Array) -> Array:
    """Returns 32 random bits of the elements with these indices, drawn from a key's two words."""
    return _mix(_mix(index ^ low) ^ high)


@functools.cache
def bits_of(data: int) -> Callable[[Array, Array, Array], Array]:
    """Returns `mix_bits` of the key that a key with the two words given becomes when `data` is folded in.

    One function for each number: a kernel that draws by it is given the one key of all, and folds by itself.
    """

    def bits(index, low, high):
        return mix_bits(index, *_fold_words(low, high, jnp.uint32(data)))

    return bits


def is_key(key: Array) -> bool:
    """Returns whether a key is of this generator."""
    return jax.random.key_impl(key) == _GENERATOR


def _mix(x):
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _seed(seed):
    low = _mix(seed.astype(jnp.uint32) ^ _ODD)
    return jnp.stack([low, _mix(low ^ _ODD)])


def _split(words, shape):
    return _bits(words, 32, (*shape, 2))


def _fold_in(words, data):
    low, high = jax.lax.optimization_barrier(words) if backend.computes_keys_apart() else words
    return jnp.stack(_fold_words(low, high, data.astype(jnp.uint32)))


def _fold_words(low, high, data):
    mixed = _mix(_mix(data ^ low) ^ high)
    return mixed, _mix(mixed ^ low ^ _ODD)


_GENERATOR = define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_bits, fold_in=_fold_in, name="lowbias32", tag="lb32"
)

"""Random bits against plain NumPy, and against what chance allows."""

import jax
import numpy as np
import pytest

from tx.model import prng
from tx.model.prng import random_bits


def mix(x):
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


@pytest.mark.parametrize("key", [jax.random.key(5), prng.key(5)], ids=["threefry", "own"])
def test_bits_are_what_plain_numpy_makes_of_the_key(key):
    low, high = np.asarray(jax.random.key_data(key))
    wanted = mix(mix(np.arange(60, dtype=np.uint32) ^ low) ^ high)
    np.testing.assert_array_equal(np.asarray(random_bits(key, (3, 4, 5))).reshape(-1), wanted)


def related(kind):
    """Three keys that have much in common."""
    if kind == "seeds":
        return [prng.key(i) for i in range(3)]
    if kind == "split":
        return list(jax.random.split(prng.key(1), 3))
    start = jax.random.key(1) if kind == "threefry" else prng.key(1)
    return [jax.random.fold_in(start, i) for i in range(3)]


@pytest.mark.parametrize("kind", ["threefry", "seeds", "split", "fold_in"])
def test_bits_look_random(kind):
    """Each bit is set half of the time, whatever the bit, its neighbour, the row above or a related key says."""
    n, shape = 2**18, (512, 512)
    keys = related(kind)
    draws = [np.unpackbits(np.asarray(random_bits(key, shape)).view(np.uint8)).reshape(*shape, 32) for key in keys]
    first = draws[0]
    compared = [
        np.zeros_like(first),
        draws[1],
        draws[2],
        np.roll(first, 1, 0),
        np.roll(first, 1, 1),
        np.roll(first, 64, 1),
        np.roll(first, 1, 2),
    ]
    for other in compared:
        share = (first != other).reshape(n, 32).mean(0)
        assert np.abs(share - 0.5).max() < 5 * 0.5 / n**0.5  # five standard deviations
    values, counts = np.unique(np.asarray(random_bits(keys[0], shape)) >> 24, return_counts=True)
    assert len(values) == 256
    assert ((counts - n / 256) ** 2 / (n / 256)).sum() < 255 + 6 * (2 * 255) ** 0.5  # chi-squared


def test_keys_serve_the_functions_of_jax():
    """Also under jit and vmap; keys made of one another differ."""
    draw = jax.jit(lambda seed: jax.random.normal(prng.key(seed), (4096,)))
    one = np.asarray(draw(np.uint32(1)))
    assert abs(one.mean()) < 5 / 64
    assert one.std() == pytest.approx(1, abs=0.05)
    both = jax.vmap(draw)(np.arange(1, 3, dtype=np.uint32))
    np.testing.assert_array_equal(both[0], one)
    assert abs(np.corrcoef(both)[0, 1]) < 5 / 64
    keys = [prng.key(1), *jax.random.split(prng.key(1), 3)]
    keys += [jax.random.fold_in(key, i) for key in keys for i in range(50)]
    assert len({tuple(np.asarray(jax.random.key_data(key))) for key in keys}) == len(keys)


def test_only_words_of_32_bits():
    with pytest.raises(NotImplementedError, match="draws 32 bits an element, not 16"):
        jax.random.bits(prng.key(0), (2,), "uint16")

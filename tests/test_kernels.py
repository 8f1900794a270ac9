"""Kernels for accelerators, interpreted, against plain JAX: values, gradients, odd sizes, padding, members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from tx.kernels import cross_entropy, residual_norm
from tx.model import prng
from tx.model.loss import batch_loss
from tx.training.stacking import TracedHyperparameters


def close(found, wanted, tolerance=1e-5):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        one, other = (np.asarray(x, np.float64) for x in (one, other))
        np.testing.assert_allclose(one, other, atol=tolerance * max(1.0, np.abs(other).max()), rtol=0)


# Cross-entropy


def logits_and_targets(tokens, vocab, dtype, seed=0):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(5 * rng.normal(size=(tokens, vocab)), dtype)
    targets = jnp.asarray(rng.integers(0, vocab, tokens), jnp.int32).at[::3].set(0)
    return logits, targets, jnp.float32(0.1 / (vocab - 1)), jnp.float32(0.9)


@pytest.mark.parametrize(
    ("tokens", "vocab", "dtype"), [(5, 32, jnp.float32), (3, 37, jnp.float32), (4, 300, jnp.bfloat16)]
)
def test_cross_entropy(monkeypatch, tokens, vocab, dtype):
    monkeypatch.setattr(cross_entropy, "WIDTH", 64)  # one block, a part of one, and several of which one is a part
    given = logits_and_targets(tokens, vocab, dtype)
    found = cross_entropy.cross_entropy_with_gradient(*given)
    close(found, cross_entropy.reference(*given), 1e-5 if dtype == jnp.float32 else 1e-2)
    assert not np.asarray(found[2], np.float32)[::3].any()


# Residual, dropout and norm


def rows_of(rows, width, dtype, kept, seed=0):
    rng = np.random.default_rng(seed)
    x, y = (jnp.asarray(rng.normal(size=(rows, width)), dtype) for _ in range(2))
    scale, bias = (jnp.asarray(rng.normal(size=width), jnp.float32) for _ in range(2))
    draw = jnp.asarray([123 + seed, 456, round(kept * 2**24)], jnp.uint32)
    return x, y, scale, bias, draw, jnp.asarray([1 / kept], jnp.float32)


@pytest.mark.parametrize(
    ("rows", "width", "kept", "dtype"),
    [(11, 24, 0.7, jnp.float32), (5, 16, 1.0, jnp.float32), (11, 24, 0.7, jnp.bfloat16)],
)
def test_residual_norm(monkeypatch, rows, width, kept, dtype):
    monkeypatch.setattr(residual_norm, "FORWARD", 64)
    monkeypatch.setattr(residual_norm, "BACKWARD", 64)
    monkeypatch.setattr(residual_norm, "PROGRAMS", 2)  # of several turns, the last of which has rows that are not there
    *arrays, draw, upscale = rows_of(rows, width, dtype, kept)
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=(rows, width)), dtype)

    def both(function):
        out, pull = jax.vjp(lambda *given: function(*given, draw, upscale, prng.mix_bits, 1e-6), *arrays)
        return out, pull(cotangent)

    close(
        both(residual_norm.add_and_normalise),
        both(residual_norm.reference),
        1e-5 if dtype == jnp.float32 else 2e-2,
    )


# The whole model


def loss_and_gradients(config, params, batch, key):
    def loss(params, key):
        return batch_loss(config, params, batch, TracedHyperparameters.of(config), key)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params, key)


def two_and_a_batch(**fields):
    """Returns configurations without kernels and with them, parameters, and a batch with padding and an empty row."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 40, (4, 32))
    tokens[:, 20:], tokens[3] = 0, 0
    segments = (tokens != 0).astype(np.int32)
    positions = np.broadcast_to(np.arange(32, dtype=np.int32), tokens.shape) * segments
    batch = {"": tokens.astype(np.int32), "_segments": segments, "_positions": positions}
    batch = {f"{side}{name}": jnp.asarray(one) for side in ("src", "tgt") for name, one in batch.items()}
    plain = tiny.config(model__num_layers=1, **fields)
    return plain, tiny.config(model__num_layers=1, model__kernels="pallas", **fields), tiny.init(plain)[1], batch


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_model_with_kernels_has_the_loss_and_gradients_of_one_without(dropout):
    """The masks are the same, so everything is, but for rounding."""
    plain, pallas, params, batch = two_and_a_batch(model__norm="post", model__dropout=dropout)
    key = jax.random.key(5)
    wanted = loss_and_gradients(plain, params, batch, key)
    close(loss_and_gradients(pallas, params, batch, key), wanted, 1e-4)
    if dropout:
        (value, _), _ = loss_and_gradients(pallas, params, batch, jax.random.key(6))
        assert abs(value - wanted[0][0]) > 1e-3


@pytest.mark.slow
def test_members_side_by_side_have_masks_of_their_own():
    _, pallas, params, batch = two_and_a_batch(model__norm="post", model__dropout=0.3)
    keys = jnp.stack([prng.key(5), prng.key(6)])
    together = jax.vmap(lambda key: loss_and_gradients(pallas, params, batch, key))(keys)
    for number in range(2):
        alone = loss_and_gradients(pallas, params, batch, keys[number])
        close(jax.tree.map(lambda leaf, number=number: leaf[number], together), alone, 1e-4)

"""Kernels for accelerators, interpreted, against plain JAX: values, gradients, odd sizes, padding, members."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import linen as nn

from tx.decoding.pending_logits import PendingLogits
from tx.decoding.top_k import top_k
from tx.errors import UserError
from tx.kernels import bias, cross_entropy, decoding, elementwise, norm, projection, residual_norm
from tx.kernels.update import update_elements
from tx.model import prng
from tx.model.kernel_params import prepare
from tx.model.loss import batch_loss
from tx.model.norms import LayerNorm, norms
from tx.runtime.trees import stack
from tx.training.optimizer import optimizer, optimizers, schedule, treats_elements_alone
from tx.training.stacking import TracedHyperparameters
from tx.training.step import init_state, make_train_step


def close(found, wanted, tolerance=1e-5):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        one, other = (np.asarray(x, np.float64) for x in (one, other))
        np.testing.assert_allclose(one, other, atol=tolerance * max(1.0, np.abs(other).max()), rtol=0)


def test_without_triton_everything_works_but_its_kernels(monkeypatch):
    """JAX will drop it: only what asks for a kernel may notice."""
    hidden = "import sys; sys.modules['jax.experimental.pallas.triton'] = None; import {}"
    for module in ("tx.model.transformer", "tx.training.step", "tx.decoding.translator"):
        subprocess.run([sys.executable, "-c", hidden.format(module)], check=True)
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    monkeypatch.delattr("jax.experimental.pallas.triton", raising=False)
    with pytest.raises(UserError, match=r"this JAX has no Triton for model\.kernels=pallas; set it to xla"):
        bias.add_parts([jnp.ones((4, 8))])


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


# Beam search


@pytest.mark.parametrize(
    ("heads", "shared", "queries", "widths", "masks", "count", "prefix", "dtype"),
    [
        (2, 2, 3, (12, 20), 3, 3, False, jnp.float32),  # the first position
        (4, 2, 3, (12, 20), 3, 75, True, jnp.float32),  # the last
        (2, 2, 4, (16, 16), 4, 40, False, jnp.bfloat16),
        (2, 1, 5, (16, 16), 1, None, False, jnp.float32),
    ],
)
def test_attention_of_a_search(heads, shared, queries, widths, masks, count, prefix, dtype):
    rng, keys = np.random.default_rng(0), 75

    def normal(*shape, dtype=dtype):
        return jnp.asarray(rng.normal(size=shape), dtype)

    query, key = normal(2, queries, heads, widths[0]), normal(2, shared, keys, widths[0])
    value = normal(2, shared, keys, widths[1])
    mask = jnp.asarray(rng.random((2, masks, keys)) < 0.5).at[:, :, 0].set(True)
    start, count = None, None if count is None else jnp.int32(count)
    if prefix:
        weights = normal(2, heads, queries, 7, dtype=jnp.float32)
        start = weights.max(-1, keepdims=True), jnp.exp(weights).sum(-1, keepdims=True)
        start = (*start, normal(2, heads, queries, widths[1], dtype=jnp.float32))
    wanted = decoding.reference_attention(query, key, value, mask, count, start)
    if count is not None:  # what is beyond is not looked at
        key, value = (x.at[:, :, int(count) :].set(jnp.nan) for x in (key, value))
    close(decoding.attend_first(query, key, value, mask, count, start), wanted, 1e-5 if dtype == jnp.float32 else 1e-2)


def whole(*shape, dtype=jnp.float32):
    """Returns an array of small whole numbers, whose products are exact, and many of them equal."""
    return jnp.asarray(np.random.default_rng(shape[0]).integers(-1, 2, shape), dtype)


@pytest.fixture
def small_products(monkeypatch):
    """Kernels of several programs, of several turns each."""
    for name, value in {"ROWS": 16, "COLUMNS": 16, "DEPTH": 64, "PROGRAMS": 4}.items():
        monkeypatch.setattr(projection, name, value)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("rows", "columns", "depth", "k", "dtype"),
    [
        (20, 75, 37, 2, jnp.float32),  # a part of a block, of a tile, and of a piece of what is summed over
        pytest.param(5, 75, 37, 1, jnp.bfloat16, marks=SLOW),
        pytest.param(17, 128, 64, 8, jnp.bfloat16, marks=SLOW),
        pytest.param(3, 18, 8, 5, jnp.float32, marks=SLOW),  # of which one part has fewer
        pytest.param(70, 33, 8, 2, jnp.float32, marks=SLOW),  # more blocks than programs
    ],
)
def test_best_columns(small_products, rows, columns, depth, k, dtype):
    hidden, matrix = whole(rows, depth, dtype=dtype), whole(columns, depth, dtype=dtype)

    @jax.jit
    def found():
        values, places, normaliser = projection.best_columns(hidden, matrix, k)
        best, chosen = jax.lax.top_k(values, k)
        return best, jnp.take_along_axis(places, chosen, axis=1), normaliser

    (values, places, normaliser), wanted = found(), projection.reference(hidden, matrix, k)
    close((values, normaliser), (wanted[0], wanted[2]))
    np.testing.assert_array_equal(places, wanted[1])


@pytest.mark.parametrize(
    ("beam", "dtype"),
    [(2, jnp.float32), *(pytest.param(n, x, marks=SLOW) for n in (1, 4) for x in (jnp.float32, jnp.bfloat16))],
)
def test_best_continuations_by_a_kernel_are_the_same(small_products, beam, dtype):
    hidden, matrix = whole(3, beam, 12, dtype=dtype), whole(75, 12, dtype=dtype)
    hidden = hidden.at[1].set(hidden[1, :1])  # all of its hypotheses are equal
    absent = jnp.arange(beam)[None, :] > jnp.asarray([[beam], [1], [0]])
    log_probs, k = jnp.where(absent, -jnp.inf, jnp.asarray([[0.0], [-1.0], [-2.0]])), 2 * beam - (beam == 1)
    logits = jnp.einsum("bnd,vd->bnv", hidden, matrix, preferred_element_type=jnp.float32)
    values, *wanted = jax.jit(top_k, static_argnums=2)(logits[..., :70], log_probs, k)
    assert (values > -jnp.inf).all()
    found = jax.jit(lambda: PendingLogits(hidden, matrix).top_k(log_probs, k, 70))()
    close(found[0], values)
    for one, other in zip(found[1:], wanted, strict=True):
        np.testing.assert_array_equal(one, other)


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
@pytest.mark.parametrize("keeps_sum", [False, True])
def test_residual_norm(monkeypatch, rows, width, kept, dtype, keeps_sum):
    monkeypatch.setattr(residual_norm, "FORWARD", 64)
    monkeypatch.setattr(residual_norm, "BACKWARD", 64)
    monkeypatch.setattr(bias, "PROGRAMS", 2)  # of several turns, the last of which has rows that are not there
    *arrays, draw, upscale = rows_of(rows, width, dtype, kept)
    rng = np.random.default_rng(1)
    arrays.insert(2, jnp.asarray(rng.normal(size=width), jnp.float32))
    cotangents = [jnp.asarray(rng.normal(size=(rows, width)), dtype) for _ in "ab"]

    def both(function, *parts):
        out, pull = jax.vjp(lambda *given: function(*given, draw, upscale, prng.mix_bits, 1e-6), *arrays, *parts)
        return out, pull(tuple(cotangents) if keeps_sum else cotangents[0])

    kernel = residual_norm.add_then_normalise if keeps_sum else residual_norm.add_and_normalise
    wanted = both(lambda *given: residual_norm.reference(*given, keeps_sum))
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    close(both(functools.partial(with_parts, kernel, None)), wanted, tolerance)
    zeros = (jnp.zeros((2, width), jnp.float32),) * 3
    out, (*gradients, in_parts) = both(lambda *given: with_parts(kernel, given[5], *given[:5], *given[6:]), zeros)
    assert not any(np.asarray(gradient).any() for gradient in gradients[2:])
    sums = bias.add_parts(in_parts)
    close((out, (*gradients[:2], *sums)), wanted, tolerance)


def test_norm(monkeypatch):
    monkeypatch.setattr(norm, "FORWARD", 64)
    monkeypatch.setattr(norm, "BACKWARD", 64)
    monkeypatch.setattr(bias, "PROGRAMS", 2)
    x, cotangent, scale, offset, *_ = rows_of(11, 24, jnp.float32, 1.0)
    zeros = jnp.zeros((2, 24), jnp.float32)
    out, pull = jax.vjp(lambda *given: norm.normalise(*given, 1e-6), x, scale, offset, (zeros, zeros))
    wanted, plain = jax.vjp(lambda *given: norm.reference(*given, 1e-6), x, scale, offset)
    d_x, *nothing, in_parts = pull(cotangent)
    assert not any(np.asarray(gradient).any() for gradient in nothing)
    close((out, (d_x, *bias.add_parts(in_parts))), (wanted, plain(cotangent)))


def with_parts(kernel, parts, x, y, offset, scale, bias, *others):
    return kernel(x, y, offset, scale, bias, parts, *others)


# Biases


# Of several turns; and with programs beyond the rows.
@pytest.mark.parametrize(("rows", "programs"), [(11, 2), pytest.param(3, 4, marks=pytest.mark.slow)])
def test_biases(monkeypatch, rows, programs):
    for name, value in {"PROGRAMS": programs, "ELEMENTS": 32, "COLUMNS": 16}.items():
        monkeypatch.setattr(bias, name, value)
    rng = np.random.default_rng(0)
    widths = (24, 16, 5)  # several pieces, one, and a part of one
    ys, cotangents = (
        tuple(jnp.asarray(rng.normal(size=(rows, width)), jnp.bfloat16) for width in widths) for _ in "ab"
    )
    offsets = tuple(jnp.asarray(rng.normal(size=width), jnp.bfloat16) for width in widths)
    parts = tuple(jnp.zeros((programs, width), jnp.float32) for width in widths)

    out, pull = jax.vjp(bias.add_biases, ys, offsets, parts)
    d_ys, d_offsets, d_parts = pull(cotangents)
    close(out, bias.reference_biases(ys, offsets))
    close(d_ys, cotangents)
    assert not any(np.asarray(each).any() for each in d_offsets)
    close(bias.add_parts(d_parts), [d.astype(jnp.float32).sum(0) for d in cotangents])

    out, pull = jax.vjp(bias.add_bias_and_rectify, ys[0], offsets[0], parts[0])
    d_y, d_offset, d_parts = pull(cotangents[0])
    wanted, plain = jax.vjp(bias.reference_rectified, ys[0], offsets[0])
    close((out, d_y), (wanted, plain(cotangents[0])[0]))
    assert not np.asarray(d_offset).any()
    close(bias.add_parts([d_parts]), [d_y.astype(jnp.float32).sum(0)])


# Updates


def tree_of(rng, *shapes):
    arrays = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    return {f"layer_{number}": {"x": array} for number, array in enumerate(arrays)}


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("adam", "lion", "sgd")]


@pytest.mark.parametrize("name", ["adamw", *OTHERS])
def test_updates(monkeypatch, name):
    """Two updates by kernels are those of Optax, whatever decays, with a schedule; so are the gradients' norms."""
    monkeypatch.setattr(elementwise, "TILE", 64)
    monkeypatch.setattr(elementwise, "ARRAYS", 16)  # two items a kernel
    decay = {"adam": {}, "adamw": {"optim__adamw__weight_decay": 0.1}}.get(name, {f"optim__{name}__weight_decay": 0.1})
    config, rng = tiny.config(optim__optimizer=name, **decay), np.random.default_rng(0)
    assert treats_elements_alone(config.optim)
    shapes = ((7, 19), (64,), (3, 4, 5))
    wanted = found = (params := tree_of(rng, *shapes), optimizer(config).init(params))
    labels = [0, 1, 1]
    for _ in range(2):
        grads = tree_of(rng, *shapes)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer(config).update(grads, wanted[1], wanted[0])
        wanted = optax.apply_updates(wanted[0], updates), state
        *found, norms = jax.jit(
            lambda *given: update_elements(optimizers.of(config.optim), schedule(config), *given, labels)
        )(found[0], grads, found[1])
        close(found, list(wanted))
        of_each = [float(jnp.square(grads[f"layer_{number}"]["x"]).sum()) for number in range(len(shapes))]
        np.testing.assert_allclose(norms, np.sqrt([of_each[0], of_each[1] + of_each[2]]), rtol=1e-5)


def test_what_looks_beyond_an_element_is_left_to_optax():
    for fields in ({"optim__optimizer": "muon"}, {"optim__optimizer": "adafactor"}, {"optim__clip_norm": 1.0}):
        assert not treats_elements_alone(tiny.config(**fields).optim)


def test_arrays_are_cast():
    arrays = [jnp.arange(5.0) / 3, jnp.ones((3, 7))]
    close(elementwise.cast(arrays, jnp.bfloat16), [array.astype(jnp.bfloat16) for array in arrays])


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


def test_a_kernel_folds_into_the_key_of_all_modules():
    key = prng.key(7)
    wanted = prng.random_bits(jax.random.fold_in(key, 99), (5,))
    found = prng.bits_of(99)(jnp.arange(5, dtype=jnp.uint32), *jax.random.key_data(key))
    np.testing.assert_array_equal(found, wanted)
    assert prng.is_key(key)
    assert not prng.is_key(jax.random.key(7))


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "dropout"), [("post", 0.0), ("post", 0.3), ("pre", 0.3)])
def test_a_model_with_kernels_has_the_loss_and_gradients_of_one_without(norm, dropout):
    """The masks are the same, so everything is, but for rounding."""
    plain, pallas, params, batch = two_and_a_batch(model__norm=norm, model__dropout=dropout)
    key = jax.random.key(5)
    wanted = loss_and_gradients(plain, params, batch, key)
    close(loss_and_gradients(pallas, params, batch, key), wanted, 1e-4)
    if dropout:
        (value, _), _ = loss_and_gradients(pallas, params, batch, jax.random.key(6))
        assert abs(value - wanted[0][0]) > 1e-3


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_norm_that_is_made_of_layer_norm_keeps_what_it_is(norm, monkeypatch):
    """The kernels compute LayerNorm, and not what a class that inherits from it makes of its vectors."""

    class Scaled(LayerNorm):
        @nn.compact
        def __call__(self, x):
            scale, bias = self.scale_and_bias(x.shape[-1])
            return x * scale[None, None] / 2 + bias[None, None]

    monkeypatch.setitem(norms._components, "rms", Scaled)
    fields = {"model__normalization": "rms", "model__norm": norm, "model__dropout": 0.0}
    plain, pallas, params, batch = two_and_a_batch(**fields)
    given = (batch, TracedHyperparameters.of(plain), prng.key(5))
    wanted, found = (batch_loss(config, params, *given)[0] for config in (plain, pallas))
    prepared = batch_loss(pallas, params, *given, vectors=prepare(params, "float32", 128)[1])[0]
    np.testing.assert_allclose([found, prepared], wanted, rtol=1e-5)


@pytest.mark.slow
def test_members_side_by_side_have_masks_of_their_own():
    _, pallas, params, batch = two_and_a_batch(model__norm="post", model__dropout=0.3)
    keys = jnp.stack([prng.key(5), prng.key(6)])
    together = jax.vmap(lambda key: loss_and_gradients(pallas, params, batch, key))(keys)
    for number in range(2):
        alone = loss_and_gradients(pallas, params, batch, keys[number])
        close(jax.tree.map(lambda leaf, number=number: leaf[number], together), alone, 1e-4)


MICRO = {"train__micro_batches": 2, "model__norm": "pre"}
REMAT = {"train__remat": True, "model__norm": "pre", "model__feed_forward": "gelu"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{}, {"train__micro_batches": 2, "model__norm": "pre"}, REMAT, {"optim__clip_norm": 1.0}]
)
def test_a_step_with_kernels_is_one_without(fields):
    """State and metrics after two updates, the second with momentum.

    There is no dropout, whose keys differ; and no Adam, whose steps are as long where a gradient is nothing but
    rounding, as that of the keys' biases is.
    """
    shared = {"model__norm": "post", "model__dropout": 0.0, "optim__optimizer": "sgd", "optim__sgd__momentum": 0.9}
    plain, pallas, _, batch = two_and_a_batch(**shared | fields)
    found = []
    for config in (plain, pallas):
        step, state = make_train_step(config), init_state(config)
        for _ in range(2):
            state, metrics = step(state, batch)
        found.append((state, metrics))
    close(found[1], found[0], 1e-4)


@pytest.mark.slow
def test_members_side_by_side_are_updated_as_alone():
    fields = {"model__norm": "pre", "model__dropout": 0.3, "optim__optimizer": "sgd"}
    *_, batch = two_and_a_batch(**fields)
    configs = [tiny.config(model__num_layers=1, model__kernels="pallas", train__seed=seed, **fields) for seed in (1, 2)]
    states = [init_state(config) for config in configs]
    together = make_train_step(*configs)(stack(states), stack([batch, batch]))
    for number, config in enumerate(configs):
        alone = make_train_step(config)(init_state(config), batch)
        close(jax.tree.map(lambda leaf, number=number: leaf[number], together), alone, 1e-4)

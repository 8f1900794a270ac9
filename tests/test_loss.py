"""The fused, chunked loss against the whole distribution written out, and its gradient against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tx.model.loss import cross_entropy, smoothing
from tx.runtime import backend

V, D = 11, 6


def written_out(hidden, table, targets, eps, smooth_over):
    """Mean over real tokens of -sum_j q_j log p_j minus the entropy of q, with q as a full vector (float64)."""
    total = nll = 0.0
    for h, y in zip(hidden, targets, strict=True):
        if y == 0:
            continue
        logits = table @ h
        log_p = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        if smooth_over == "others":
            q = np.full(len(table), eps / (len(table) - 1))
            q[y] = 1 - eps
        else:
            q = np.full(len(table), eps / len(table))
            q[y] += 1 - eps
        entropy = -(q[q > 0] * np.log(q[q > 0])).sum()
        total += -(q * log_p).sum() - entropy
        nll += -log_p[y]
    count = (targets != 0).sum()
    return total / count, nll / count


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    targets = rng.integers(1, V, 13)
    targets[[2, 7]] = 0
    return rng.normal(size=(13, D)), rng.normal(size=(V, D)), targets


@pytest.mark.parametrize("smooth_over", ["others", "all"])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("chunk", [1, 4, 13, 100])
def test_value_equals_the_formula(batch, eps, smooth_over, chunk):
    hidden, table, targets = batch
    got = cross_entropy(
        jnp.asarray(hidden, jnp.float32),
        jnp.asarray(table, jnp.float32),
        jnp.asarray(targets, jnp.int32),
        label_smoothing=eps,
        smooth_over=smooth_over,
        chunk=chunk,
    )
    np.testing.assert_allclose(got, written_out(hidden, table, targets, eps, smooth_over), rtol=1e-5)


@pytest.mark.parametrize("smooth_over", ["others", "all"])
@pytest.mark.parametrize("chunk", [4, 100])
def test_gradient_equals_autodiff_of_the_plain_loss(batch, smooth_over, chunk):
    hidden, table, targets = (jnp.asarray(a, t) for a, t in zip(batch, ("f4", "f4", "i4"), strict=True))
    eps = 0.1

    def plain(hidden, table):
        log_p = jax.nn.log_softmax(hidden @ table.T)
        spread = V - 1 if smooth_over == "others" else V
        hot = jax.nn.one_hot(targets, V)
        q = (1 - eps) * hot + (eps / spread) * ((1 - hot) if smooth_over == "others" else jnp.ones_like(hot))
        real = (targets != 0).astype(jnp.float32)
        return -(real[:, None] * q * log_p).sum() / real.sum()

    def fused(hidden, table):
        return cross_entropy(hidden, table, targets, label_smoothing=eps, smooth_over=smooth_over, chunk=chunk)[0]

    # Times 3: the incoming gradient must be passed on.
    want, got = (jax.grad(lambda *a, f=f: 3.0 * f(*a), argnums=(0, 1))(hidden, table) for f in (plain, fused))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_chunks_on_an_accelerator_hold_so_many_logits(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(backend, "LOSS_LOGITS", 1000)
    # (tokens, vocabulary): as few chunks as the limit allows, all of nearly one size.
    sizes = {(100, 10): 100, (101, 10): 51, (300, 10): 100, (7, 5000): 1}
    assert {shape: backend.loss_chunk(*shape) for shape in sizes} == sizes
    monkeypatch.undo()
    assert backend.loss_chunk(10_000, 10) == backend.LOSS_CHUNK


def test_bfloat16_rounds_the_logits_of_training_alone():
    """Evaluation has them in float32; training has the loss and gradient of logits that are rounded."""
    rng = np.random.default_rng(5)
    hidden, table = (jnp.asarray(rng.normal(size=(n, 16)), jnp.bfloat16) for n in (40, 30))
    targets = jnp.asarray(rng.integers(1, 30, 40), jnp.int32)

    def fused(hidden, table):
        return cross_entropy(hidden, table, targets, label_smoothing=0.1, smooth_over="all")

    whole = [x.astype(jnp.float32) for x in (hidden, table)]
    np.testing.assert_allclose(fused(hidden, whole[1]), fused(*whole), rtol=1e-5)
    (value, _), gradient = jax.value_and_grad(fused, (0, 1), has_aux=True)(hidden, whole[1])
    (want, _), plain = jax.value_and_grad(fused, (0, 1), has_aux=True)(*whole)
    np.testing.assert_allclose(value, want, rtol=2e-3)
    for got, expected in zip(gradient, plain, strict=True):
        assert np.linalg.norm(got.astype(jnp.float32) - expected) < 0.02 * np.linalg.norm(expected)


def test_a_perfect_prediction_of_the_smoothed_targets_costs_nothing():
    low, peak, entropy = smoothing(0.1, V, "others")
    q = np.full(V, low)
    q[3] += peak
    assert q.sum() == pytest.approx(1)
    assert q[3] == pytest.approx(0.9)
    loss, nll = cross_entropy(
        jnp.ones((1, 1)), jnp.asarray(np.log(q)[:, None], jnp.float32), jnp.array([3]), label_smoothing=0.1,
        smooth_over="others",
    )  # fmt: skip
    assert float(loss) == pytest.approx(0, abs=1e-6)
    assert float(nll) == pytest.approx(-np.log(0.9), rel=1e-5)
    assert entropy == pytest.approx(-(q * np.log(q)).sum())


def test_padding_alone_is_no_division_by_zero():
    loss, nll = cross_entropy(
        jnp.ones((4, D)), jnp.ones((V, D)), jnp.zeros(4, jnp.int32), label_smoothing=0.0, smooth_over="all"
    )
    assert float(loss) == float(nll) == 0

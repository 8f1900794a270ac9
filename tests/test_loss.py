"""The fused, chunked loss against the whole distribution written out, and its gradient against autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from tx.errors import UserError
from tx.model import loss as loss_module
from tx.model.loss import batch_loss, cross_entropy, smoothing
from tx.model.losses import label_smoothed, losses
from tx.model.transformer import init_params
from tx.runtime import backend
from tx.training.stacking import TracedHyperparameters

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
    monkeypatch.setattr(backend, "LOSS_LOGITS", {"xla": 1000})
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


@pytest.mark.parametrize("count", [361, 491])
def test_in_bfloat16_all_gradients_are_of_the_mean(count):
    """Over so many tokens, which a factor of bfloat16 would have missed by 0.26% and -0.38%, of the hidden alone."""
    rng = np.random.default_rng(6)
    hidden = jnp.asarray(rng.normal(size=(count, 16)), jnp.bfloat16)
    table = jnp.asarray(rng.normal(size=(30, 16)), jnp.float32)
    targets = jnp.asarray(rng.integers(1, 30, count), jnp.int32)

    def loss(hidden, table, times):
        return times * cross_entropy(hidden, table, targets, label_smoothing=0.1, smooth_over="all")[0]

    def slope(one, other):
        one, other = (np.asarray(x, np.float64).ravel() for x in (one, other))
        return one @ other / (other @ other)

    of_mean, of_sum = (jax.grad(loss, (0, 1))(hidden, table, times) for times in (1.0, float(count)))
    for one, other in zip(of_mean, of_sum, strict=True):
        assert count * slope(one, other) == pytest.approx(1.0, abs=5e-4)


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


# Losses other than the paper's


def in_numpy(name, hidden, table, targets, eps, smooth_over, field):
    """As `written_out`, of a loss by its definition (float64)."""
    total = 0.0
    for h, y in zip(hidden, targets, strict=True):
        if y == 0:
            continue
        logits = table @ h
        log_z = logits.max() + np.log(np.exp(logits - logits.max()).sum())
        p = np.exp(logits - log_z)
        q = np.full(len(table), eps / (len(table) - 1 if smooth_over == "others" else len(table)))
        q[y] = 1 - q.sum() + q[y]
        if name == "z_loss":
            total += (q * (np.log(q) - np.log(p))).sum() + field * log_z**2
        else:
            total += -(q * (1 - p) ** field * np.log(p)).sum()
    return total / (targets != 0).sum()


def slopes(f, x, step=1e-5):
    """The gradient of a function of an array by central differences."""
    found = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        ends = [x.copy(), x.copy()]
        ends[0][index] += step
        ends[1][index] -= step
        found[index] = (f(ends[0]) - f(ends[1])) / (2 * step)
    return found


@pytest.mark.parametrize(
    ("name", "field", "value", "smooth_over", "chunk"),
    [
        ("z_loss", "coefficient", 0.03, "others", 4),
        ("z_loss", "coefficient", 0.03, "all", 100),
        ("focal", "gamma", 2.0, "others", 100),
        ("focal", "gamma", 0.5, "all", 4),
    ],
)
def test_another_loss_is_what_numpy_makes_of_it(batch, name, field, value, smooth_over, chunk):
    hidden, table, targets = batch
    chosen = losses.of({"name": name, name: {field: value}})

    def ours(hidden, table):
        options = {"label_smoothing": 0.1, "smooth_over": smooth_over, "loss": chosen, "chunk": chunk}
        return cross_entropy(hidden, table, jnp.asarray(targets, jnp.int32), **options)

    arrays = [jnp.asarray(x, jnp.float32) for x in (hidden, table)]
    (got, nll), gradient = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(*arrays)
    want = functools.partial(in_numpy, name, targets=targets, eps=0.1, smooth_over=smooth_over, field=value)
    np.testing.assert_allclose(got, want(hidden, table), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(ours)(*arrays), [got, nll], rtol=1e-6)  # without a gradient
    np.testing.assert_allclose(nll, written_out(hidden, table, targets, 0.0, "all")[1], rtol=1e-5)
    np.testing.assert_allclose(gradient[0], slopes(lambda h: want(h, table), hidden), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(gradient[1], slopes(lambda w: want(hidden, w), table), rtol=1e-3, atol=1e-5)


def test_the_papers_loss_by_formula_is_that_of_its_definition(batch):
    """And so are a z-loss of no weight, and a focal loss with gamma 0 but for the entropy."""
    hidden, table, targets = (jnp.asarray(a, t) for a, t in zip(batch, ("f4", "f4", "i4"), strict=True))

    def of(loss):
        options = {"label_smoothing": 0.1, "smooth_over": "others", "loss": loss, "chunk": 4}
        return jax.value_and_grad(lambda h, w: cross_entropy(h, w, targets, **options)[0], (0, 1))(hidden, table)

    (want, gradient), entropy = of(None), smoothing(0.1, V, "others")[2]
    others = {
        label_smoothed: 0.0,
        losses.of({"name": "z_loss", "z_loss": {"coefficient": 0.0}}): 0.0,
        losses.of({"name": "focal", "focal": {"gamma": 0.0}}): entropy,
    }
    for loss, more in others.items():
        got, of_it = of(loss)
        np.testing.assert_allclose(got - more, want, rtol=1e-5)
        for a, b in zip(of_it, gradient, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_focal_loss_that_is_certain_has_finite_slopes():
    for gamma in (0.0, 0.5):
        loss = losses.of({"name": "focal", "focal": {"gamma": gamma}})
        options = {"label_smoothing": 0.0, "smooth_over": "all", "loss": loss}
        of_hidden = jax.grad(lambda h: cross_entropy(h, 100 * jnp.eye(3), jnp.array([1, 2]), **options)[0])  # noqa: B023
        assert np.isfinite(of_hidden(jnp.eye(3)[1:])).all()


def flat(logits, labels):
    """The paper's loss and the logits' deviation, which has no slope where all are equal."""
    return label_smoothed(logits, labels) + 0.1 * jnp.std(logits, axis=-1)


def absent(logits, labels):
    """The paper's loss, and not a number where there is padding."""
    real = (labels.tokens != 0).astype(jnp.float32)
    return label_smoothed(logits, labels) * (real / real)


@pytest.mark.parametrize("loss", [flat, absent, losses["z_loss"], losses["focal"]])
def test_padding_has_no_part_in_a_loss_or_its_gradient(loss):
    """Neither that of a batch nor what fills a chunk up; what `hidden` has there makes no difference of a bit."""
    rng = np.random.default_rng(7)
    hidden, table = (jnp.asarray(rng.normal(size=(n, D)), jnp.float32) for n in (12, V))
    targets = jnp.asarray(rng.integers(1, V, 12), jnp.int32).at[jnp.array([2, 5, 11])].set(0)
    zeroed = jnp.where((targets != 0)[:, None], hidden, 0.0)  # as what fills up is: its logits are all equal

    def of(hidden, chunk):
        options = {"label_smoothing": 0.1, "smooth_over": "all", "loss": loss, "chunk": chunk}
        made = jax.value_and_grad(lambda h, w: cross_entropy(h, w, targets, **options)[0], (0, 1))(hidden, table)
        return jax.tree.leaves(made)

    want = of(hidden, 4)
    assert not np.any(want[1][targets == 0])
    for one, other, filled in zip(want, of(zeroed, 4), of(zeroed, 5), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, filled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "shape"),
    [
        (lambda logits, labels: jax.nn.logsumexp(logits, axis=-1, keepdims=True), r"\(13, 1\)"),
        (lambda logits, labels: label_smoothed(logits, labels)[None] + logits.max(-1, keepdims=True), r"\(13, 13\)"),
        (lambda logits, labels: label_smoothed(logits, labels).mean(), r"\(\)"),
        (lambda logits, labels: 0.5, r"\(\)"),
        (lambda logits, labels: logits, rf"\(13, {V}\)"),
    ],
)
def test_a_loss_that_gives_no_value_a_token_is_refused(batch, wrong, shape):
    """With a gradient and without; else JAX would stretch its values, or the mask, to the other's shape."""
    hidden, table, targets = (jnp.asarray(a, t) for a, t in zip(batch, ("f4", "f4", "i4"), strict=True))
    options = {"label_smoothing": 0.1, "smooth_over": "all", "loss": functools.partial(wrong)}
    message = (
        rf"the loss <lambda> gives values of shape {shape} for 13 tokens; a loss gives one a token, of shape \(13,"
    )
    for run in (cross_entropy, jax.grad(cross_entropy, has_aux=True)):
        with pytest.raises(UserError, match=message):
            run(hidden, table, targets, **options)


def test_of_parts_it_is_that_of_the_whole(batch):
    hidden, table, targets = (jnp.asarray(a, t)[:12] for a, t in zip(batch, ("f4", "f4", "i4"), strict=True))
    options = {"label_smoothing": 0.1, "smooth_over": "all", "loss": losses["focal"], "chunk": 5}
    one, two = (cross_entropy(hidden, table, targets, parts=parts, **options) for parts in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-6)


@pytest.mark.parametrize(("name", "field"), [("z_loss", {"coefficient": 0.5}), ("focal", {"gamma": 3.0})])
def test_training_minimises_the_loss_that_is_chosen_and_evaluation_the_cross_entropy(monkeypatch, name, field):
    asked = []

    def remembered(*arrays, loss, **options):
        asked.append(loss)
        return cross_entropy(*arrays, loss=loss, **options)

    monkeypatch.setattr(loss_module, "cross_entropy", remembered)
    plain = tiny.config(model__num_layers=1)
    chosen = tiny.config(model__num_layers=1, loss__name=name, **{f"loss__{name}__{k}": v for k, v in field.items()})
    params = jax.eval_shape(lambda: init_params(plain.model, 0))
    tokens = jnp.ones((2, 5), jnp.int32)
    for config in (plain, chosen):
        for values in (TracedHyperparameters.of(config), None):
            step = functools.partial(batch_loss, config, batch={"src": tokens, "tgt": tokens}, hyperparameters=values)
            jax.eval_shape(lambda p, step=step: step(p, rng=jax.random.key(0)), params)
    assert asked.pop(2).keywords == field
    assert asked == [None] * 3

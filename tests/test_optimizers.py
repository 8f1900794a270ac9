"""Optimizers against optax's own and by themselves: alone, stacked, over devices, and gone on with."""

import functools
import pickle

import jax
import many_devices
import numpy as np
import optax
import optax.contrib
import pytest
import tiny
from test_parallel import started

from experiments import registry
from experiments.scales import SCALES
from tx import components
from tx import config as config_lib
from tx.runs.checkpoints import Checkpoint, Checkpoints
from tx.runtime.trees import member, stack
from tx.training.optimizer import optimizer, optimizers, schedule
from tx.training.step import TrainState, init_state, make_train_step

ALL = tuple(components.names("optim.optimizer"))


def slow_but(fast, of):
    """Parameters of a test, all slow but one: what they compile takes its time."""
    return [name if name == fast else pytest.param(name, marks=pytest.mark.slow) for name in of]


SHAPES = {
    "embedding": (6, 4),
    "encoder_0": {"feed_forward": {"kernel": (4, 3), "bias": (3,)}, "norm": {"scale": (4,)}},
    "target_position": {"table": (5, 4)},
}


def arrays(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )


def configured(name="adam", **fields):
    config = config_lib.get_config()
    diff = {"optim.optimizer": name, "optim.warmup_steps": 2, "optim.lr_factor": 20.0}
    config_lib.update(config, diff | {f"optim.{field.replace('__', '.')}": value for field, value in fields.items()})
    config_lib.validate(config)
    return config


def trained(made, steps=4, scale=1.0):
    params = arrays(0)
    state = made.init(params)

    @jax.jit
    def update(grads, state, params):
        updates, state = made.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    with jax.numpy_dtype_promotion("standard"):
        for step in range(1, steps + 1):
            params, state = update(jax.tree.map(lambda g: g * np.float32(scale), arrays(step)), state, params)
    return params


def same(one, two, **tolerance):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, **({"rtol": 1e-6, "atol": 1e-7} | tolerance))


MATRICES = jax.tree.map(lambda shape: len(shape) > 1, SHAPES, is_leaf=lambda x: isinstance(x, tuple))
DECAYED = {"weight_decay": 0.1, "mask": MATRICES}
OPTAX = {
    "adam": ({"beta1": 0.8}, lambda rate: optax.adam(rate, 0.8, 0.98, 1e-9)),
    "adamw": ({"adamw__weight_decay": 0.1}, lambda rate: optax.adamw(rate, 0.9, 0.98, 1e-9, **DECAYED)),
    "lion": ({"lion__b1": 0.8}, lambda rate: optax.lion(rate, 0.8, 0.99, **DECAYED)),
    "adafactor": (
        {"adafactor__min_dim_size_to_factor": 3, "adafactor__clipping_threshold": 0.0},
        lambda rate: optax.adafactor(rate, min_dim_size_to_factor=3, clipping_threshold=None),
    ),
    "sgd": ({"sgd__momentum": 0.5}, lambda rate: optax.sgd(rate, 0.5, nesterov=True)),
}


@pytest.mark.parametrize("name", OPTAX)
def test_an_optimizer_is_optaxs_own(name):
    fields, made = OPTAX[name]
    config = configured(name, **fields)
    same(trained(optimizer(config)), trained(made(schedule(config))))


def test_muon_is_optaxs_for_kernels_and_adamw_for_all_others():
    config = configured("muon", muon__weight_decay=0.1, beta1=0.7)
    rate, ours = schedule(config), trained(optimizer(config))
    of_kernels = trained(optax.contrib.muon(rate, weight_decay=0.1, consistent_rms=0.2))
    of_others = trained(optax.adamw(rate, 0.7, 0.98, 1e-9, **DECAYED))
    got, want, other = (tree["encoder_0"]["feed_forward"].pop("kernel") for tree in (ours, of_kernels, of_others))
    same(got, want, rtol=1e-5)
    assert np.abs(got - other).max() > 1e-2
    same(ours, of_others)
    assert {*OPTAX, "muon"} == set(ALL)


def test_adamw_without_decay_is_adam():
    one, two = (trained(optimizer(c)) for c in (configured(), configured("adamw", adamw__weight_decay=0)))
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("name", slow_but("adamw", of=ALL[:1] + ALL[2:]))
def test_matrices_decay_and_nothing_else(name):
    with_decay, without = (
        trained(optimizer(configured(name, **{f"{name}__weight_decay": decay}))) for decay in (0.1, 0.0)
    )
    moved = jax.tree.map(lambda a, b: bool(np.abs(a - b).max() > 1e-6), with_decay, without)
    assert moved == MATRICES


@pytest.mark.slow
def test_decay_is_the_rate_times_the_matrix():
    """Of Adafactor too, whose own in optax is not times the rate."""
    for name in ("lion", "adafactor"):
        config = configured(name, **{f"{name}__weight_decay": 0.1})
        without = configured(name, **{f"{name}__weight_decay": 0.0})
        start, rate = arrays(0)["embedding"], float(schedule(config)(0))
        one, two = (trained(optimizer(c), steps=1)["embedding"] for c in (config, without))
        np.testing.assert_allclose(two - one, 0.1 * rate * start, rtol=1e-3, atol=1e-5)


def test_lion_is_the_papers():
    """Algorithm 2 of Chen et al. (2023), in NumPy."""
    config = configured("lion", lion__weight_decay=0.2)
    w, m = np.asarray(arrays(0)["embedding"], np.float64), 0.0
    for step in range(1, 5):
        g = np.asarray(arrays(step)["embedding"], np.float64)
        w = w - float(schedule(config)(step - 1)) * (np.sign(0.9 * m + 0.1 * g) + 0.2 * w)
        m = 0.99 * m + 0.01 * g
    np.testing.assert_allclose(trained(optimizer(config))["embedding"], w, rtol=1e-5)


def test_an_update_of_muon_is_orthogonal():
    """Times sqrt(3/4) of its larger side, 0.2 sqrt(4) at rate 1 (Liu et al. 2025, equation 4), to a tenth or three."""
    config = configured("muon", muon__weight_decay=0.0)
    before, after = (tree["encoder_0"]["feed_forward"]["kernel"] for tree in (arrays(0), trained(optimizer(config), 1)))
    update = np.asarray(before - after, np.float64) / float(schedule(config)(0)) / (0.2 * 4**0.5)
    assert np.linalg.svd(update)[1] == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("name", slow_but("sgd", of=ALL))
def test_gradients_are_clipped_by_their_norm_over_all_parameters(name):
    big, clip = trained(optimizer(configured(name, clip_norm=1e-3)), steps=1), 1e-3
    norm = float(optax.tree.norm(arrays(1)))
    same(big, trained(optimizer(configured(name)), steps=1, scale=clip / norm), rtol=1e-4)
    same(trained(optimizer(configured(name, clip_norm=1e9))), trained(optimizer(configured(name))))


def test_without_clipping_the_state_is_that_of_before():
    state = optimizer(config_lib.get_config()).init(arrays(0))
    assert jax.tree.structure(state) == jax.tree.structure(optax.adam(lambda _: 1.0).init(arrays(0)))


@pytest.mark.parametrize("scale", SCALES)
def test_adafactors_row_keeps_little_at_every_scale(scale):
    """Moments by row and column, of small matrices too: else the row would be of another optimizer there."""
    state = jax.eval_shape(functools.partial(init_state, registry.get_config(f"optimizers/adafactor@{scale}")))
    kept, parameters = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.opt_state, state.params))
    assert kept < 0.05 * parameters


def test_stacked_it_is_what_it_is_alone():
    """Whatever an optimizer keeps; here of one with moments by row and column, and others."""
    made = optimizer(configured("adafactor", adafactor__min_dim_size_to_factor=3, clip_norm=1.0))

    @jax.jit
    @jax.vmap
    def update(params, grads):
        updates, _ = made.update(grads, made.init(params), params)
        return optax.apply_updates(params, updates)

    with jax.numpy_dtype_promotion("standard"):
        both = update(stack([arrays(0), arrays(5)], np.stack), stack([arrays(1), arrays(6)], np.stack))
    same(member(both, 0, 2), trained(made, steps=1))


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_random_keys_of_a_state_are_saved_and_stacked_as_others_are(tmp_path, kind):
    """As optax.add_noise keeps them; gone on with, the updates are the same to the bit."""

    def noisy(rate):
        return optax.chain(optax.add_noise(0.1, 0.55, key=jax.random.key(2, impl=kind)), optax.sgd(rate))

    optimizers.register("noisy")(noisy)
    try:
        config = configured("noisy", clip_norm=0.0 if kind == "rbg" else 1e9)
        made = optimizer(config)
        want = trained(noisy(schedule(config)))
        same(trained(made), want)
    finally:
        del optimizers._components["noisy"]
        components.withdraw("optim.optimizer", "noisy")

    @jax.jit
    def update(grads, state, params):
        updates, state = made.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = arrays(0)
    with jax.numpy_dtype_promotion("standard"):
        one, state = update(arrays(1), made.init(params), params)
        checkpoints = Checkpoints(tmp_path, 1, 1)
        checkpoints.save(Checkpoint(one, state, {}, {"step": 1}))
        found = checkpoints.restore(*jax.eval_shape(lambda: (params, made.init(params))), 1)
        checkpoints.close()
        jax.tree.map(np.testing.assert_array_equal, (found.params, found.opt_state), (one, state))
        two, again = (update(arrays(2), *pair)[0] for pair in ((state, one), (found.opt_state, found.params)))
        jax.tree.map(np.testing.assert_array_equal, two, again)
        both = jax.vmap(update)(stack([arrays(2)] * 2, np.stack), stack([state] * 2), stack([one] * 2))
    if kind != "rbg":  # whose numbers depend on what is beside them
        same(member(both, 1, 2)[0], two)


# Of a model.


def config(name, **diff):
    sizes = {"model__num_layers": 1, "data__row_length": many_devices.LENGTH, "data__batch_rows": many_devices.ROWS}
    return tiny.config(**sizes, optim__optimizer=name, **diff)


def steps(step, state, count, start=0, copies=1):
    losses = []
    for i in range(start, start + count):
        batch = many_devices.batch(i)
        state, metrics = step(state, stack([batch] * copies, np.stack) if copies > 1 else batch)
        losses.append(np.asarray(metrics["loss"]))
    return state, losses


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_stacked_and_gone_on_with_it_is_what_it_is_alone(name, tmp_path):
    """Also where the gradients are clipped; and whatever the optimizer keeps comes back from a checkpoint."""
    one = config(name, optim__clip_norm=0.5)
    other = config(name, optim__clip_norm=0.5, train__seed=2, optim__lr_factor=0.5)
    step = make_train_step(one)
    half, _ = steps(step, init_state(one), 2)
    checkpoints = Checkpoints(tmp_path, 1, 1)
    checkpoints.save(Checkpoint(half.params, half.opt_state, {}, {"step": 2}))
    like = jax.eval_shape(lambda: init_state(one))
    found = checkpoints.restore(like.params, like.opt_state, 2)
    checkpoints.close()
    end, losses = steps(step, half, 2, start=2)  # which donates the first half
    again, losses_again = steps(step, TrainState(np.int32(2), found.params, found.opt_state), 2, start=2)
    jax.tree.map(np.testing.assert_array_equal, (end, losses), (again, losses_again))
    assert losses[1] != losses[0]
    both = stack([init_state(one), init_state(other)])
    both, _ = steps(make_train_step(one, other), both, 4, copies=2)
    close_but_for_a_few(member(both, 0, 2), end)


def close_but_for_a_few(one, two):
    """Gradients that are zero but for rounding, as those of keys' biases, have either sign; the others are equal."""
    a, b = (np.concatenate([np.ravel(leaf).astype(float) for leaf in jax.tree.leaves(tree)]) for tree in (one, two))
    assert (np.abs(a - b) > 1e-3 * np.abs(a) + 1e-4).mean() < 0.02


@pytest.mark.slow
def test_over_devices_it_is_what_it_is_on_one(tmp_path):
    path = tmp_path / "found.pickle"
    with started("many_devices", path, "optimizers", devices=2) as process:
        _, error = process.communicate()
    assert process.returncode == 0, error[-5000:]
    found = pickle.loads(path.read_bytes())
    assert {name for name, _ in found} == set(optimizers)
    for (name, how), (losses, state) in found.items():
        wanted_losses, wanted = found[name, "one"]
        np.testing.assert_allclose(losses, wanted_losses, rtol=1e-3, err_msg=f"{name} {how}")
        close_but_for_a_few(state, wanted)

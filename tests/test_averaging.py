"""Moving average of the parameters: its arithmetic, and that dev loss, selection and translation are of it."""

import handful
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from tx.runs.run_dir import RunDir
from tx.runs.selection import select_parameters
from tx.training import experiment, loop
from tx.training import step as training_step
from tx.training.averaging import update_average
from tx.training.step import TrainState, init_state, make_train_step
from tx.training.training_run import TrainingRun

STEPS = 60


def weighted_mean(history, decay):
    """Of trees of arrays, the last with weight 1, each earlier one with `decay` times the next one's, in float64."""
    weights = np.float64(decay) ** np.arange(len(history))[::-1]
    return jax.tree.map(lambda *leaves: np.tensordot(weights, np.float64(leaves), 1) / weights.sum(), *history)


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.99999])
def test_the_average_is_the_weighted_mean_of_the_steps(decay):
    """Whatever it starts from; optax's own, corrected for its bias, is the same."""
    rng = np.random.default_rng(1)
    history = [{"w": rng.uniform(1, 2, (3, 2)).astype(np.float32) + step} for step in range(STEPS)]
    average, update = {"w": jnp.full((3, 2), 1e6)}, jax.jit(update_average, static_argnums=2)
    peer = optax.ema(decay, debias=True)
    state = peer.init(history[0])
    for step, params in enumerate(history, start=1):
        average = update(average, params, decay, jnp.int32(step))
        with jax.numpy_dtype_promotion("standard"):
            theirs, state = peer.update(params, state)
        wanted = weighted_mean(history[:step], decay)
        np.testing.assert_allclose(average["w"], wanted["w"], rtol=2e-6 * step**0.5)
        # Theirs loses digits where decay is nearly 1: of 1 - decay, and of 1 - decay^step.
        np.testing.assert_allclose(theirs["w"], wanted["w"], rtol=1e-6 / (1 - decay))
    np.testing.assert_array_equal(update(average, history[3], decay, jnp.int32(1))["w"], history[3]["w"])


def test_a_step_averages_the_parameters_that_it_leaves(monkeypatch):
    """Of a loss that compiles at once; with the model's, tests/many_devices.py holds the average to one device's."""
    start = {"layer": {"w": np.linspace(-1, 2, 6, dtype=np.float32).reshape(3, 2)}}
    monkeypatch.setattr(training_step, "init_params", lambda *_: jax.tree.map(jnp.array, start))
    monkeypatch.setattr(
        training_step, "batch_loss", lambda c, params, *_, **__: (jnp.sum(params["layer"]["w"] ** 2),) * 2
    )
    config, batch = tiny.config(train__ema=0.8), {"tgt": np.ones((4, 9), np.int32)}
    step, state, history = make_train_step(config), init_state(config), []
    for _ in range(4):
        state, _ = step(state, batch)
        history.append(jax.tree.map(np.array, state.params))
    wanted = weighted_mean(history, 0.8)
    np.testing.assert_allclose(state.ema["layer"]["w"], wanted["layer"]["w"], rtol=1e-6)
    assert np.abs(state.ema["layer"]["w"] - state.params["layer"]["w"]).min() > 1e-3
    assert state.eval_params is state.ema


def test_without_it_a_state_has_no_leaf_more():
    plain, averaged = (init_state(tiny.config(model__num_layers=1, train__ema=decay)) for decay in (0.0, 0.9))
    assert plain.ema is None
    assert plain.eval_params is plain.params
    assert len(jax.tree.leaves(averaged)) - len(jax.tree.leaves(plain)) == len(jax.tree.leaves(plain.params))
    jax.tree.map(np.testing.assert_array_equal, averaged.ema, plain.params)


# Where the average goes: parameters after step n are all n, and their average is all 100 + n.


def little(**diff):
    sizes = {"model__vocab_size": handful.VOCAB_SIZE, "model__num_layers": 1, "data__batch_rows": 2}
    every = {f"train__{name}_every": 2 for name in ("log", "eval", "checkpoint")}
    return tiny.config(**sizes, **every, train__steps=4, **{"train__ema": 0.9, "train__select": "best", **diff})


def number(params):
    """The number that planted parameters are full of."""
    (value,) = {float(x) for leaf in jax.tree.leaves(params) for x in np.unique(np.asarray(leaf))}
    return value


@pytest.fixture
def planted(monkeypatch):
    """Training as planted, of which the second step has the lowest dev loss; what dev losses were measured of."""
    measured = []

    def step(state, batch):
        now = state.step + 1
        params = jax.tree.map(lambda leaf: jnp.full_like(leaf, now), state.params)
        ema = None if state.ema is None else jax.tree.map(lambda leaf: leaf + 100, params)
        return TrainState(now, params, state.opt_state, ema), tiny.metrics()

    def evaluate(params):
        measured.append(number(params))
        nll = 1.0 + (measured[-1] % 100 - 2) ** 2
        return [{"nll": nll, "ppl": float(np.exp(nll)), "tokens": 9}]

    monkeypatch.setattr(loop, "make_step_over_devices", lambda *_: step)
    monkeypatch.setattr(loop, "make_eval", lambda *_: evaluate)
    return measured


def trained(config, path):
    path.mkdir()
    run = RunDir(path)
    members = [TrainingRun(config, run, handful.prepared(copies=2))]
    return run, members, loop.train(members)[0]


def items(run):
    """What its last checkpoint has."""
    return {path.name for path in (run.checkpoints / "4").iterdir() if path.is_dir()}


def test_dev_loss_selection_and_translation_are_of_the_average(planted, monkeypatch, tmp_path):
    run, members, state = trained(little(), tmp_path / "run")
    assert planted == [102, 104]
    assert items(run) == {"params", "opt_state", "data", "progress", "ema"}
    assert select_parameters(little(), run)[1:] == (2, "best")
    assert number(select_parameters(little(), run).params) == 102
    assert number(select_parameters(little(train__select="last"), run).params) == 104
    assert number(select_parameters(little(decode__average_last=2), run).params) == 103
    # What is translated after the training: the best is read, the last is at hand.
    devs = {"split": "validation", "nll": 0.0, "ppl": 1.0}
    monkeypatch.setattr(experiment, "measure_dev", lambda config, data, params: [devs] * len(params))
    assert number(experiment.select_all(members, state)[0].params) == 102
    members[0].config = little(train__select="last")
    assert number(experiment.select_all(members, state)[0].params) == 104
    # And a run that goes on has both.
    again = TrainingRun(little(), run, handful.prepared(copies=2))
    found = again.start(2)
    again.checkpoints.close()
    assert (number(found.params), number(found.ema), int(found.step)) == (2, 102, 2)


def test_without_it_checkpoints_are_what_they_were(planted, tmp_path):
    run, _, _ = trained(little(train__ema=0.0), tmp_path / "run")
    assert planted == [2, 4]
    assert items(run) == {"params", "opt_state", "data", "progress"}
    assert number(select_parameters(little(train__ema=0.0), run).params) == 2

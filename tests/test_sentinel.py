"""What is not finite ends a run at once, with its step, sentences and layers; what stands out is logged."""

import json

import handful
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from saved import arrays, restored

from tx.data import tokenized
from tx.data.loader import TrainBatches
from tx.errors import Diverged
from tx.model.loss import batch_loss
from tx.runs.metrics_log import read_metrics
from tx.runs.run_dir import RunDir
from tx.runtime.backend import LAG
from tx.training import experiment, loop
from tx.training.loss_monitor import LossMonitor
from tx.training.step import init_state, layers, make_train_step
from tx.training.training_run import TrainingRun

STEPS = 8


def config(**diff):
    sizes = {
        "model__vocab_size": handful.VOCAB_SIZE,
        "model__num_layers": 1,
        "data__batch_rows": 2,
        "train__steps": STEPS,
        "train__log_every": 4,
        "train__eval_every": 4,
        "train__checkpoint_every": 2,
        "decode__splits": "validation",
        "decode__extra_length": 1,
    }
    return tiny.config(**(sizes | diff))


def member(folder, **diff):
    return TrainingRun(config(**diff), RunDir(folder), handful.prepared(copies=2))


@pytest.mark.slow
def test_the_norms_are_those_of_each_layers_gradient():
    made = config(model__dropout=0.0, loss__label_smoothing=0.0)
    batch = jax.tree.map(jnp.asarray, next(batches()))
    state = init_state(made)
    gradient = jax.jit(jax.grad(lambda params: batch_loss(made, params, batch)[0]))(state.params)
    want = [
        np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient[name]))) for name in layers(gradient)
    ]
    _, metrics = make_train_step(made)(state, batch)
    np.testing.assert_allclose(metrics["layer_grad_norms"], want, rtol=1e-4)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(want), rtol=1e-4)


def batches():
    return TrainBatches(handful.prepared(copies=2).splits["train"], seed=1, row_length=32, batch_rows=2)


@pytest.fixture
def poisoned(monkeypatch):
    """Makes one parameter NaN before the step of that number; returns the batches that steps were given."""
    given = []

    def poison(number):
        def make(*configs):
            step = make_train_step(*configs)

            def broken(state, batch):
                given.append(batch)
                if len(given) == number:
                    params = state.params | {"target_space": state.params["target_space"] * jnp.nan}
                    state = state.replace(params=params)
                return step(state, batch)

            return broken

        monkeypatch.setattr(loop, "make_step_over_devices", make)
        return given

    return poison


def test_a_run_ends_at_the_step_that_is_not_finite(tmp_path, poisoned, monkeypatch):
    given = poisoned(6)
    run, data = RunDir(tmp_path), handful.prepared(copies=2)
    monkeypatch.setattr(tokenized, "prepare", lambda *_: data)
    with pytest.raises(
        Diverged, match=r"the loss is nan at step 6, the gradient not finite in .*the last checkpoint is of"
    ):
        experiment.run_experiments([(config(), run)])
    assert len(given) == 6
    error = run.read("error")
    assert (error["step"], error["loss"], error["checkpoint"]) == (6, "nan", 4)
    assert set(error["gradient_norms"]) == set(init_state(config()).params)
    assert "nan" in error["gradient_norms"].values()
    pairs = {tuple(pair) for pair in error["sentences"]}
    assert pairs <= set(handful.TRAIN)
    assert sum(len(data.vocabulary.encode([target])[0]) + 1 for _, target in error["sentences"]) == np.count_nonzero(
        given[-1]["tgt"]
    )
    assert [line["step"] for line in read_metrics(run) if "loss" in line] == [4]
    newest = restored(run, config())
    assert newest.progress["step"] == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays(newest)))


def test_divergence_itself_is_found(tmp_path):
    with pytest.raises(Diverged, match="at step 2"):
        loop.train([member(tmp_path, optim__lr_factor=1e30)])


def observed(monitor, losses, start=1):
    """What is found of steps with these losses."""
    found = []
    for step, loss in enumerate(losses, start):
        found += monitor.observe(step, tiny.metrics(loss), [[np.array([0, 3])]])
    return found


def a_monitor(folder, members=1):
    return LossMonitor([member(folder / str(i)) for i in range(members)], {"embedding": 0})


def test_a_spike_stands_out_from_the_losses_before_it(tmp_path):
    rng = np.random.default_rng(0)
    usual = 3.0 + 0.1 * rng.standard_normal(60)
    losses = [*usual, 3.3, 4.0, 3.0]
    [(who, step, spike)] = observed(a_monitor(tmp_path), losses)
    assert (who, step) == (0, 62)
    assert spike["spike"] == 4.0
    assert spike["usual"] == pytest.approx(np.mean([*np.float32(usual), 3.3]), rel=1e-4)


@pytest.mark.parametrize("losses", [[9.0, 1.0, 9.0, 1.0, 9.0], list(np.linspace(9, 1, 200)), [2.0] * 10 + [50.0]])
def test_falling_noisy_and_first_losses_are_no_spikes(tmp_path, losses):
    assert observed(a_monitor(tmp_path), losses) == []


def test_what_is_usual_outlives_a_restart(tmp_path):
    first = a_monitor(tmp_path)
    observed(first, np.linspace(3.0, 3.1, 50))
    [before] = first._members
    before.save(2, init_state(before.config), {"source": 0, "target": 0}, {}, 0.0)
    before.checkpoints.close()
    again = member(tmp_path / "0")
    again.start(2)
    assert again.progress.recent == before.progress.recent
    assert len(observed(LossMonitor([again], {"embedding": 0}), [5.0])) == 1


def test_an_accelerators_steps_are_looked_at_later_but_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monitor = a_monitor(tmp_path)
    assert observed(monitor, [1.0, np.inf, *[1.0] * (LAG - 1)]) == []
    [(_, step, error)] = observed(monitor, [1.0], start=LAG + 2)
    assert step == 2
    assert error.report["loss"] == "inf"
    assert error.report["sentences"] == [list(handful.TRAIN[0]), list(handful.TRAIN[3])]
    assert error.report["gradient_norms"] == {"embedding": 1.0}
    assert list(monitor.flush()) == []
    assert observed(monitor, [np.nan]) == []
    assert len(list(monitor.flush())) == 1


def test_of_many_members_and_steps_a_dispatch_the_right_ones_are_named(tmp_path):
    monitor, drawn = a_monitor(tmp_path, members=2), batches()
    rows, sentences = zip(*((next(drawn), drawn.sentences) for _ in range(6)), strict=True)
    losses = np.float32([[1.0, 1.0, 1.0], [1.0, np.nan, np.nan]])
    metrics = {"loss": losses, "layer_grad_norms": np.ones((2, 3, 1), np.float32)}
    [(who, step, error)] = monitor.observe(9, metrics, [sentences[:3], sentences[3:]])
    assert (who, step) == (1, 8)
    assert len(error.report["sentences"]) == rows[4]["tgt_segments"].max(axis=1).sum()
    assert json.loads(json.dumps(error.report)) == error.report

"""Training: a golden step, one update against NumPy, what the seed governs, resuming, and learning by heart."""

import json
import math

import handful
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tiny

from tx.data import tokenized
from tx.data.loader import eval_batches
from tx.data.packing import FIELDS
from tx.decoding.translator import Translator
from tx.errors import UserError
from tx.evaluation.perplexity import make_eval
from tx.files import to_json
from tx.runs.metrics_log import read_metrics
from tx.runs.run_dir import RunDir
from tx.runs.state import refuse_other_configuration
from tx.training import experiment, loop
from tx.training.optimizer import optimizer
from tx.training.outcome import thinned_curve
from tx.training.step import TrainState, init_state, make_train_step
from tx.training.training_run import TrainingRun

# Two rows of packed pairs, by hand: (source, target) lengths of each pair.
ROWS = (((5, 4), (3, 6), (4, 3)), ((7, 7), (2, 5)))


def packed():
    """A batch of four rows of 16, of which one is empty and one has a single short pair."""
    rng = np.random.default_rng(0)
    batch = {field: np.zeros((4, 16), np.int32) for field in FIELDS}
    for r, row in enumerate((*ROWS, ((2, 2),))):
        for side, k in (("src", 0), ("tgt", 1)):
            start = 0
            for segment, lengths in enumerate(row, start=1):
                end = start + lengths[k]
                batch[side][r, start:end] = tiny.sentences(rng, [lengths[k]])[0]
                batch[f"{side}_segments"][r, start:end] = segment
                batch[f"{side}_positions"][r, start:end] = np.arange(lengths[k])
                start = end
    return batch


def flip(path, bit):
    """Flips one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def copied(state):
    """A state that a step may take for itself."""
    return jax.tree.map(jnp.copy, state)


def test_golden_step():
    config = tiny.config(train__seed=1)
    state, step, losses = init_state(config), make_train_step(config), []
    for _ in range(3):
        state, metrics = step(state, packed())
        losses.append([float(metrics["loss"]), float(metrics["nll"])])
    assert int(state.step) == 3
    np.testing.assert_allclose(
        losses,
        GOLDEN,
        rtol=1e-4,
        err_msg="Training computes something else than before. Put the new numbers here only if that is meant: "
        "initialisation, dropout, model, loss or optimiser changed on purpose (or a new JAX draws other numbers).",
    )


GOLDEN = [[3.291267, 3.959514], [2.937322, 3.561762], [2.717928, 3.316147]]  # (loss, nll) of each step


@pytest.mark.parametrize("smooth_over", ["others", pytest.param("all", marks=pytest.mark.slow)])
def test_updates_equal_numpy(smooth_over):
    """Three updates: the plain smoothed loss, Adam and equation 3 written out once more."""
    # A big epsilon: the gradient of a key's bias is zero but for rounding, which Adam would blow up.
    config = tiny.config(
        model__num_layers=1,
        model__dropout=0.0,
        optim__epsilon=1e-3,
        optim__lr_factor=0.1,
        optim__warmup_steps=2,
        loss__smooth_over=smooth_over,
    )
    module, params = tiny.init(config)
    batch = jax.tree.map(jnp.asarray, packed())
    classes, eps = config.model.vocab_size, config.loss.label_smoothing

    def plain(params):
        log_p = jax.nn.log_softmax(module.apply({"params": params}, **batch))
        target = jnp.asarray(np.eye(classes, dtype=np.float32)[batch["tgt"]])
        if smooth_over == "others":
            q = target * (1 - eps) + (1 - target) * (eps / (classes - 1))
        else:
            q = target * (1 - eps) + eps / classes
        real = jnp.asarray(batch["tgt"] != 0, jnp.float32)[..., None]
        return (real * q * (jnp.log(q) - log_p)).sum() / real.sum()

    gradient = jax.jit(jax.value_and_grad(plain))
    step = make_train_step(config)
    zero = optimizer(config).init(params)
    state = TrainState(jnp.zeros((), jnp.int32), copied(params), zero)
    leaves, structure = jax.tree.flatten(params)
    x = [np.asarray(leaf, np.float64) for leaf in leaves]
    m, v = [0.0] * len(x), [0.0] * len(x)
    for t in (1, 2, 3):
        state, metrics = step(state, batch)
        now = jax.tree.unflatten(structure, [jnp.asarray(leaf, jnp.float32) for leaf in x])
        loss, grads = gradient(now)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
        lr = 0.1 * config.model.d_model**-0.5 * min(t**-0.5, t * 2**-1.5)
        for i, g in enumerate(np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(grads)):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.98 * v[i] + 0.02 * g**2
            x[i] = x[i] - lr * (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.98**t)) + 1e-3)
    for got, want, before in zip(jax.tree.leaves(state.params), x, leaves, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        assert np.abs(want - before).max() > 1e-3 or np.abs(want - before).max() < 1e-5


def test_dropout_depends_on_seed_and_step():
    """The same parameters and batch: another seed or another step drops something else, the same ones do not."""
    configs = {seed: tiny.config(model__dropout=0.3, model__num_layers=1, train__seed=seed) for seed in (1, 2)}
    steps = {seed: make_train_step(config) for seed, config in configs.items()}
    start, batch = init_state(configs[1]), packed()

    def loss(seed, step):
        state = copied(start)
        return float(steps[seed](TrainState(jnp.int32(step), state.params, state.opt_state), batch)[1]["loss"])

    assert loss(1, 0) == loss(1, 0)
    assert len({loss(seed, step) for seed in (1, 2) for step in (0, 1, 7)}) == 6


def test_the_seed_governs_the_start():
    same, again, other = (init_state(tiny.config(train__seed=seed)) for seed in (1, 1, 2))
    for one, two in zip(jax.tree.leaves(same), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(same.params["embedding"], other.params["embedding"])
    assert int(same.step) == 0


def test_perplexity_equals_numpy():
    """exp of the mean negative log-likelihood of each target token, end of sentence included, sentence by sentence."""
    data = handful.prepared()
    config = tiny.config(model__vocab_size=handful.VOCAB_SIZE, model__num_layers=1, data__batch_rows=2)
    _, params = tiny.init(config)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    split, nll = data.splits["train"], []
    for i in range(len(split)):
        src, tgt = list(split.source(i)), list(split.target(i))
        probabilities = reference.softmax(reference.logits(config, exact, src, tgt))
        nll += [-math.log(p[token]) for p, token in zip(probabilities, tgt, strict=True)]
    batches = eval_batches(split, row_length=config.data.row_length, batch_rows=config.data.batch_rows)
    assert len(batches) > 1
    got = make_eval(config, batches)(params)[0]
    assert got["tokens"] == len(nll) == len(split.tgt_ids)
    np.testing.assert_allclose(got["nll"], np.mean(nll), rtol=1e-4)
    np.testing.assert_allclose(got["ppl"], math.exp(np.mean(nll)), rtol=1e-3)


def little(**diff):
    """A configuration for the handful of pairs."""
    sizes = {
        "model__vocab_size": handful.VOCAB_SIZE,
        "model__num_layers": 1,
        "data__row_length": 32,
        "data__batch_rows": 2,
        "train__log_every": 1,
        "train__eval_every": 100,
        "train__checkpoint_every": 100,
    }
    return tiny.config(**(sizes | diff))


@pytest.fixture
def made(tmp_path):
    """Makes run folders."""

    def make(name):
        run = RunDir(tmp_path / name)
        run.create()
        return run

    return make


def train(config, data, run):
    """Trains a run alone; returns its state and what is told of it."""
    state, [told] = loop.train([TrainingRun(config, run, data)])
    return state, told


def test_resuming_equals_training_straight(made):
    """Parameters, their average, moments, order and records are those of a run that was never stopped, bit for bit."""
    data = handful.prepared(copies=2)
    want, told = train(little(train__ema=0.5, train__steps=6), data, made("straight"))
    stopped = made("stopped")
    half, _ = train(little(train__ema=0.5, train__steps=3, train__checkpoint_every=3), data, stopped)
    assert int(half.step) == 3
    got, retold = train(little(train__ema=0.5, train__steps=6, train__checkpoint_every=3), data, stopped)
    for one, two in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        np.testing.assert_array_equal(one, two)
    for key in ("steps", "epochs", "source_tokens", "target_tokens", "final_loss", "padding_share", "dev"):
        assert told[key] == retold[key], key
    assert retold["seconds"] > 0
    once = [line["step"] for line in read_metrics(stopped) if "loss" in line]
    assert once == [1, 2, 3, 4, 5, 6]
    # A run that was stopped after its last step, before it was evaluated, trains no further.
    done, again = train(little(train__ema=0.5, train__steps=6), data, stopped)
    assert int(done.step) == 6
    assert [again[key] for key in ("target_tokens", "dev")] == [told[key] for key in ("target_tokens", "dev")]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(made, capsys):
    data, run = handful.prepared(copies=2), made("run")
    each = {"train__checkpoint_every": 2, "train__eval_every": 2}
    want, told = train(little(train__steps=6, **each), data, run)
    newest = max(run.checkpoints.rglob("6/params/**/*"), key=lambda path: path.stat().st_size)
    flip(newest, 8 * (newest.stat().st_size // 2))
    capsys.readouterr()
    got, retold = train(little(train__steps=6, **each), data, run)
    error = capsys.readouterr().err
    assert error.startswith("warning: checkpoint 6 is damaged (params/")
    assert "is not what was written); set aside as " in error
    assert [path.name.partition(".")[0] for path in (run.path / "damaged").iterdir()] == ["6"]
    for one, two in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        np.testing.assert_array_equal(one, two)
    assert retold.pop("seconds") > told.pop("seconds") > 0
    assert retold == told


@pytest.fixture
def unlearning(monkeypatch):
    """Training that learns nothing, and compiles nothing; the batches it was given."""
    given = []

    def step(state, batch):
        given.append(batch)
        return TrainState(state.step + 1, state.params, state.opt_state), tiny.metrics()

    monkeypatch.setattr(loop, "make_step_over_devices", lambda config: step)
    monkeypatch.setattr(loop, "make_eval", lambda *_: lambda params: [{"nll": 1.0, "ppl": math.e, "tokens": 9}])
    return given


def test_the_seed_governs_the_order_of_the_data(made, unlearning):
    def order(name, seed):
        unlearning.clear()
        train(little(train__seed=seed, train__steps=3), handful.prepared(copies=2), made(name))
        return [batch["src"].tolist() for batch in unlearning]

    one, again, other = order("a", 1), order("b", 1), order("c", 2)
    assert one == again
    assert one != other


def test_a_handful_of_pairs_is_learned_by_heart_and_translated(made, capsys):
    """Training and decoding together: every pair comes back exactly."""
    run, data = made("run"), handful.prepared()
    config = little(
        model__d_model=32,
        model__d_ff=64,
        model__d_k=8,
        model__d_v=8,
        model__num_heads=4,
        model__dropout=0.0,
        loss__label_smoothing=0.0,
        data__row_length=64,
        optim__warmup_steps=60,
        optim__lr_factor=0.5,
        train__steps=STEPS,
        train__log_every=25,
        train__eval_every=100,
    )
    state, told = train(config, data, run)
    lines = read_metrics(run)
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert list(losses) == list(range(25, STEPS + 1, 25))
    assert losses[25] > 2
    assert losses[STEPS] < 0.05
    assert told["final_loss"] == losses[STEPS]
    for line in lines:
        timing = line.pop("timing")
        if "loss" in line:
            assert set(line) == {"step", "loss", "nll", "grad_norm", "lr"}
            assert set(timing) == {"target_tokens_per_s", "tokens_per_s", "time"}
            assert all(value > 0 for value in timing.values())
        else:
            assert set(line) == {"step", "dev_ppl", "dev_nll"}
    assert [line["step"] for line in lines if "dev_ppl" in line] == list(range(100, STEPS + 1, 100))
    assert f"step {STEPS}" in capsys.readouterr().out
    split = data.splits["train"]
    assert told["source_tokens"] == STEPS * len(split.src_ids)  # a batch is the whole set
    assert told["target_tokens"] == STEPS * len(split.tgt_ids)
    assert told["epochs"] == STEPS
    assert told["too_long"] == 0
    assert told["dev"]["last"]["step"] == STEPS
    outputs = Translator(config, state.params)([split.source(i) for i in range(len(split))])
    assert [data.vocabulary.decode(output) for output in outputs] == [de for _, de in handful.TRAIN]


STEPS = 200


def test_sentences_too_long_are_counted_and_said(made, unlearning, capsys):
    data = handful.prepared()
    longest = max(np.maximum(data.splits["train"].src_lengths, data.splits["train"].tgt_lengths))
    config = little(data__row_length=int(longest) - 1, train__steps=1)
    _, told = train(config, data, made("run"))
    assert told["too_long"] >= 1
    assert f"{told['too_long']} training sentences are longer than data.row_length" in capsys.readouterr().out


def test_the_curve_of_a_result_is_thin(tmp_path):
    run = RunDir(tmp_path)
    lines = []
    for step in range(1, 1001):
        lines.append({"step": step, "loss": 1 / step, "timing": {"tokens_per_s": 1.0}})
        if step % 250 == 0:
            lines.append({"step": step, "dev_ppl": 9.0, "timing": {}})
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve = thinned_curve(run, points=100)
    losses = [line for line in curve if "loss" in line]
    assert len(losses) == 100
    assert losses[-1] == {"step": 1000, "loss": 1 / 1000}
    assert [line["step"] for line in curve if "dev_ppl" in line] == [250, 500, 750, 1000]
    assert [line["step"] for line in curve] == sorted(line["step"] for line in curve)
    assert not any("timing" in line for line in curve)
    run.metrics.write_text("")
    assert thinned_curve(run) == []


def test_another_configuration_in_the_folder_is_refused_with_the_difference(made):
    run, old = made("run"), little(train__steps=6)
    run.config.write_text(to_json({"config": old.to_dict()}))
    refuse_other_configuration(old, run)
    with pytest.raises(UserError) as caught:
        refuse_other_configuration(little(train__steps=7, model__norm="pre"), run)
    message = str(caught.value)
    assert "\n" not in message
    assert "(model.norm: 'post' there, 'pre' asked for; train.steps: 6 there, 7 asked for)" in message
    assert str(run.path) in message


def test_what_is_done_is_not_done_again(made, monkeypatch, capsys):
    run, config = made("run"), little()
    run.config.write_text(to_json({"config": config.to_dict()}))
    kept = to_json({"config": config.to_dict(), "of": "another process"})
    run.result.write_text(kept)

    def never(*_):
        raise AssertionError("nothing is to be prepared")

    monkeypatch.setattr(tokenized, "prepare", never)
    experiment.run_experiments([(config, run)])
    assert run.result.read_text() == kept
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="another configuration"):
        experiment.run_experiments([(little(train__steps=9), run)])


def test_an_experiment_leaves_every_file(made, unlearning, monkeypatch):
    run, data = made("run"), handful.prepared()
    monkeypatch.setattr(tokenized, "prepare", lambda *_: data)
    config = little(train__steps=2, decode__splits="test, validation", decode__extra_length=1, decode__beam=1)
    run.error.write_text("{}")
    experiment.run_experiments([(config, run)])
    result = run.read("result")
    assert not run.error.exists()
    assert set(result["tests"]) == {"test", "validation"}
    for split, rows in (("test", handful.TRAIN), ("validation", handful.VALIDATION)):
        assert result["tests"][split]["sentences"] == len(rows)
        assert len(run.translations(split).read_text(encoding="utf-8").split("\n")) == len(rows) + 1
    assert result["config"] == json.loads(json.dumps(config.to_dict())) == run.read("config")["config"]
    assert result["params"] == sum(leaf.size for leaf in jax.tree.leaves(init_state(config).params))
    assert result["seed"] == config.train.seed
    assert result["dev"]["ppl"] == pytest.approx(math.exp(result["dev"]["nll"]))
    assert [line["step"] for line in result["curve"]] == [1, 2, 2]
    assert result["data"]["vocabulary_fingerprint"] == data.vocabulary.fingerprint
    assert set(result["timing"]) == {"train_s", "decode_s", "total_s", "target_tokens_per_s"}
    assert list((run.path / "tensorboard").iterdir())


def test_a_split_that_is_not_there_is_said_before_training(monkeypatch, tmp_path):
    monkeypatch.setattr(tokenized, "prepare", lambda *_: handful.prepared())
    run = RunDir(tmp_path / "run")
    with pytest.raises(UserError, match=r"no split 'tset'; there are train, validation, test"):
        experiment.run_experiments([(little(decode__splits="test,tset"), run)])
    assert not run.path.exists()

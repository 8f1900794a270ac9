"""Which parameters of a run are shown, with planted dev losses: the lowest's, and the same after any interruption."""

import contextlib
import shutil

import handful
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from saved import checkpoint

from tx.data import tokenized
from tx.errors import UserError
from tx.evaluation.perplexity import make_eval
from tx.runs.checkpoints import Checkpoints
from tx.runs.run_dir import RunDir
from tx.runs.selection import select_parameters
from tx.runtime.signals import Interrupted, Interruption
from tx.training import experiment, loop
from tx.training.step import TrainState
from tx.training.training_run import TrainingRun

NLL = {2: 5.0, 4: 3.0, 6: 4.0, 8: 3.5, 10: 3.2, 12: 3.1}  # by step: the lowest is neither the last nor of the newest


def little(**diff):
    sizes = {"model__vocab_size": handful.VOCAB_SIZE, "model__num_layers": 1, "data__batch_rows": 2}
    recipe = {"train__steps": 12, "train__eval_every": 2, "train__checkpoint_every": 2, "train__keep_checkpoints": 2}
    small = {"decode__splits": "validation", "decode__extra_length": 1, "decode__beam": 1}
    return tiny.config(**{**sizes, **recipe, **small, "train__select": "best", **diff})


@pytest.fixture
def plant(monkeypatch):
    """Training whose parameters after step n are all n, and whose dev losses are planted."""

    def step(state, batch):
        now = state.step + 1
        params = jax.tree.map(lambda leaf: jnp.full_like(leaf, now), state.params)
        return TrainState(now, params, state.opt_state), tiny.metrics()

    def planted(losses):
        def evaluate(params):
            nll = losses[number(params)]
            return [{"nll": nll, "ppl": float(np.exp(nll)), "tokens": 9}]

        monkeypatch.setattr(loop, "make_step_over_devices", lambda *_: step)
        monkeypatch.setattr(loop, "make_eval", lambda *_: evaluate)

    planted(NLL)
    return planted


def number(params):
    """The step that planted parameters are of."""
    (value,) = {float(x) for leaf in jax.tree.leaves(params) for x in np.unique(np.asarray(leaf))}
    return value


def trained(run, config):
    run.path.mkdir(exist_ok=True)
    return loop.train([TrainingRun(config, run, handful.prepared(copies=2))])[1][0]


def steps(run):
    return sorted(int(path.name) for path in run.checkpoints.iterdir() if path.name.isdigit())


def test_the_checkpoint_of_the_lowest_dev_loss(plant, tmp_path):
    run = RunDir(tmp_path)
    told = trained(run, little())
    assert told["dev"]["best"]["step"] == 4
    assert (told["dev"]["last"]["step"], told["dev"]["last"]["nll"]) == (12, NLL[12])
    assert steps(run) == [4, 10, 12]  # the newest two, and the best
    found = select_parameters(little(), run)
    assert (number(found.params), found.step, found.name) == (4, 4, "best")


def test_the_last_and_the_average_know_no_best(plant, tmp_path):
    run = RunDir(tmp_path)
    trained(run, little())
    last = select_parameters(little(train__select="last"), run)
    assert (number(last.params), last.step, last.name) == (12, 12, "last")
    mean = select_parameters(little(decode__average_last=2), run)
    assert (number(mean.params), mean.step, mean.name) == (11, 12, "average of 2")


def test_parameters_at_hand_are_not_read(plant, tmp_path):
    run, mine = RunDir(tmp_path), {}
    trained(run, little())
    assert select_parameters(little(train__select="last"), run, mine).params is mine
    assert select_parameters(little(), run, mine).params is not mine
    plant(NLL | {12: 1.0})
    other = RunDir(tmp_path / "other")
    trained(other, little())
    assert select_parameters(little(), other, mine) == (mine, 12, "best")


def test_without_a_number_there_is_no_best(plant, tmp_path):
    plant(dict.fromkeys(NLL, float("nan")))
    run = RunDir(tmp_path)
    told = trained(run, little())
    assert told["dev"]["best"] is None
    assert select_parameters(little(), run)[1:] == (12, "last")
    plant(dict.fromkeys(NLL, float("nan")) | {8: 2.0})
    other = RunDir(tmp_path / "other")
    trained(other, little())
    assert select_parameters(little(), other)[1:] == (8, "best")


@pytest.mark.parametrize("stop", [2, 4, 5, 6, 8, 11, 12])
def test_wherever_a_run_was_stopped_it_shows_the_same(plant, tmp_path, stop):
    """Stopped by force after a step: what came after the newest checkpoint is lost."""
    config, run = little(), RunDir(tmp_path)
    made = loop.make_step_over_devices()

    def step(state, batch):
        if int(state.step) == stop:
            raise KeyboardInterrupt
        return made(state, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step_over_devices", lambda *_: step)
        if stop < 12:
            with pytest.raises(KeyboardInterrupt):
                trained(run, config)
        else:
            trained(run, config)
    told = trained(run, config)
    assert {which: dev["step"] for which, dev in told["dev"].items()} == {"last": 12, "best": 4}
    assert steps(run) == [4, 10, 12]
    assert select_parameters(config, run)[1:] == (4, "best")


@pytest.mark.parametrize("stops", [[11], [5, 9, 11], [9, 9]])
@pytest.mark.parametrize("last", [12, 11])
def test_an_average_leaves_out_what_was_saved_for_an_interruption(plant, tmp_path, stops, last):
    plant(dict.fromkeys(range(13), 1.0))
    config, runs = little(train__steps=last, decode__average_last=2), [RunDir(tmp_path / name) for name in "ab"]
    trained(runs[0], config)
    made = loop.make_step_over_devices()
    for stop in stops:
        with Interruption() as interruption, pytest.MonkeyPatch.context() as patch:

            def step(state, batch, stop=stop, interruption=interruption):
                interruption.asked = int(state.step) + 1 == stop < last
                return made(state, batch)

            patch.setattr(loop, "make_step_over_devices", lambda *_, step=step: step)
            runs[1].path.mkdir(exist_ok=True)
            with contextlib.suppress(Interrupted):
                loop.train([TrainingRun(config, runs[1], handful.prepared(copies=2))], interruption)
    trained(runs[1], config)
    straight, interrupted = (select_parameters(config, run) for run in runs)
    assert number(straight.params) == number(interrupted.params) == (10 + last) / 2
    assert steps(runs[0]) == steps(runs[1])


@pytest.mark.parametrize("damaged", [4, 12])
def test_a_damaged_checkpoint_is_made_again_the_best_too(plant, tmp_path, capsys, damaged):
    run = RunDir(tmp_path)
    trained(run, little())
    (run.checkpoints / str(damaged) / "digests.json").unlink()
    if damaged == 4:
        with pytest.raises(UserError, match="checkpoints/4 is damaged"):
            select_parameters(little(), run)
    told = trained(run, little())
    warning = capsys.readouterr().err
    assert f"checkpoint {'12' if damaged == 12 else '10'} is damaged" in warning
    assert ("its best, checkpoint 4" in warning) == (damaged == 4)
    assert told["dev"]["best"]["step"] == 4
    assert number(select_parameters(little(), run).params) == 4


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"dev": 3}', '{"dev": {"best": 3}}', '{"dev": {"best": {"step": "4"}}}', None]
)
def test_what_a_damaged_checkpoint_says_of_the_best_is_not_believed(plant, tmp_path, capsys, content):
    run = RunDir(tmp_path)
    trained(run, little())
    file = run.checkpoints / "12" / "progress" / "metadata"
    file.write_text(file.read_text().replace('"step": 4', '"step": 10') if content is None else content)
    with pytest.raises(UserError, match="checkpoints/12 is damaged"):
        select_parameters(little(), run)
    trained(run, little())
    assert "checkpoint 12 is damaged" in capsys.readouterr().err
    assert number(select_parameters(little(), run).params) == 4


def test_a_best_that_is_gone_is_no_other(plant, tmp_path, capsys):
    run = RunDir(tmp_path)
    trained(run, little())
    shutil.rmtree(run.checkpoints / "4")
    trained(run, little())
    assert "its best, checkpoint 4" in capsys.readouterr().err
    assert number(select_parameters(little(), run).params) == 4


def test_a_result_tells_what_is_shown_and_the_others(plant, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenized, "prepare", lambda *_: handful.prepared())
    run, config = RunDir(tmp_path / "run"), little()
    experiment.run_experiments([(config, run)])
    result = run.read("result")
    assert (result["dev"]["step"], result["dev"]["parameters"]) == (4, "best")
    assert (result["dev_last"]["step"], result["dev_last"]["nll"]) == (12, NLL[12])
    assert (result["dev_best"]["step"], result["dev_best"]["nll"]) == (4, NLL[4])
    assert result["dev"]["tokens"] == sum(handful.prepared().splits["validation"].tgt_lengths)


@pytest.mark.slow
def test_without_the_source_is_the_loss_of_a_language_model():
    """The same whatever the source; and with it the usual one."""
    config = little(model__norm="pre")
    _, params = tiny.init(config)
    rng = np.random.default_rng(1)
    tgt = tiny.sentences(rng, [5, 7], handful.VOCAB_SIZE)
    one, other = (tiny.sentences(rng, lengths, handful.VOCAB_SIZE) for lengths in ([6, 4], [6, 3]))
    without = [make_eval(config, [{"src": src, "tgt": tgt}])(params, source=0.0)[0] for src in (one, other)]
    within = [make_eval(config, [{"src": src, "tgt": tgt}])(params)[0] for src in (one, other)]
    assert without[0] == without[1]
    assert within[0]["nll"] != within[1]["nll"]
    assert within[0]["nll"] != without[0]["nll"]


def test_a_best_needs_a_checkpoint_at_every_evaluation():
    with pytest.raises(UserError, match=r"train.eval_every=5 is no multiple of train.checkpoint_every=2; set that too"):
        little(train__eval_every=5)
    little(train__eval_every=5, train__select="last")
    little(train__eval_every=4)


def test_other_checkpoints_are_left_alone(tmp_path):
    """Those that name no best stay by number alone."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    state = TrainState(np.int32(0), {"w": np.zeros(2, np.float32)}, {"w": np.zeros(2, np.float32)})
    for step in (1, 2, 3):
        checkpoints.save(checkpoint(state, step))
    checkpoints.close()
    again = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert again.steps() == [2, 3]
    assert again.best_of(3) is None
    again.close()

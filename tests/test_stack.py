"""Runs side by side: each is what it is alone, whatever becomes of the others; several steps a dispatch."""

import contextlib
import json
import pathlib
import shutil
import sys
import time

import handful
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from saved import arrays, checkpoint, restored

from launch import local, plan
from tx.data import tokenized
from tx.errors import Diverged, UserError
from tx.evaluation.translation import TranslatedSplit
from tx.files import to_json
from tx.runs.checkpoints import Checkpoints
from tx.runs.metrics_log import read_metrics
from tx.runs.run_dir import RunDir
from tx.runs.state import refuse_other_configuration
from tx.runtime.trees import stack
from tx.training import experiment, loop, outcome, run_group
from tx.training.common_start import split_by_start
from tx.training.drawn import Drawn
from tx.training.experiment import Chosen
from tx.training.run_group import RunGroup
from tx.training.stacking import compile_key
from tx.training.step import TrainState, init_state
from tx.training.training_run import TrainingRun

STEPS = 6


def config(**diff):
    """A small run on the handful of pairs."""
    sizes = {
        "model__vocab_size": handful.VOCAB_SIZE,
        "model__num_layers": 1,
        "data__batch_rows": 2,
        "optim__epsilon": 1e-3,  # gradients that are zero but for rounding are not blown up
        "train__steps": STEPS,
        "train__ema": 0.5,
        "train__log_every": 2,
        "train__eval_every": 4,
        "train__checkpoint_every": 2,
        "decode__splits": "validation",
        "decode__beam": 1,
        "decode__extra_length": 1,
    }
    return tiny.config(**(sizes | diff))


OTHER = {
    "model__dropout": 0.3,
    "loss__label_smoothing": 0.2,
    "optim__lr_factor": 0.5,
    "optim__warmup_steps": 3,
}
MEMBERS = {
    "plain": {"train__seed": 1},
    "other": {"train__seed": 2, **OTHER},
    "diverging": {"train__seed": 3, "optim__lr_factor": 1e30},
    "last": {"train__seed": 4},
}
FINE = ("plain", "other", "last")


@contextlib.contextmanager
def in_memory():
    """Experiments on the handful of pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenized, "prepare", lambda *_: handful.prepared(copies=2))
        yield


def experiments(folder, names, **diff):
    runs = [(config(**(MEMBERS[name] | diff)), RunDir(folder / name)) for name in names]
    with in_memory():
        experiment.run_experiments(runs)
    return {name: run for name, (_, run) in zip(names, runs, strict=True)}


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """Four runs side by side, of which one diverges; and the seconds they took together."""
    began, folder = time.monotonic(), tmp_path_factory.mktemp("stacked")
    with pytest.raises(Diverged):
        experiments(folder, list(MEMBERS))
    return {name: RunDir(folder / name) for name in MEMBERS}, time.monotonic() - began


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The one that has other values than the first in everything that may differ."""
    return experiments(tmp_path_factory.mktemp("alone"), ["other"])["other"]


def final_state(run, step=STEPS):
    return restored(run, config(), step)


def close(one, two):
    """Asserts that nested values are equal, numbers up to the order of summation."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            close(one[key], two[key])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            close(first, second)
    elif isinstance(one, float):
        assert one == pytest.approx(two, rel=1e-4, nan_ok=True)
    else:
        assert one == two


def close_states(one, two):
    for first, second in zip(jax.tree.leaves(arrays(one)), jax.tree.leaves(arrays(two)), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=5e-6)  # keys' biases are rounding alone


def lines(run):
    """The metrics of a run, clock readings aside."""
    return [{key: value for key, value in line.items() if key != "timing"} for line in read_metrics(run)]


def result(run):
    """What a run found, clock readings aside."""
    return {key: value for key, value in run.read("result").items() if key != "timing"}


def test_a_member_is_what_it_is_alone(stacked, alone):
    """With other seeds, other rates and another schedule beside it, and one that diverges."""
    beside, by_itself = stacked[0]["other"], alone
    close(result(beside), result(by_itself))
    close(lines(beside), lines(by_itself))
    for step in (2, STEPS):
        one, two = final_state(beside, step), final_state(by_itself, step)
        close_states(one, two)
        assert one.data == two.data
        assert one.progress["log"]["lines"] == two.progress["log"]["lines"]
        otherwise = {"seconds": 0, "log": {}, "origins": []}  # clock readings, and that they trained side by side
        close(one.progress | otherwise, two.progress | otherwise)
    assert beside.translations("validation").read_text() == by_itself.translations("validation").read_text()

    def files(run):
        return {path.relative_to(run.path).parts[0] for path in run.path.iterdir()}

    assert files(beside) == files(by_itself) >= {"config.json", "tensorboard", "checkpoints", "result.json"}
    assert beside.read("config")["config"] == by_itself.read("config")["config"]
    assert list((beside.path / "tensorboard").iterdir())


def test_members_differ(stacked):
    """Else it would not be seen that one got what belongs to another."""
    losses = {name: [line["loss"] for line in lines(stacked[0][name]) if "loss" in line] for name in FINE}
    assert len(set(map(tuple, losses.values()))) == len(FINE)
    rates = [lines(stacked[0][name])[0]["lr"] for name in ("plain", "other")]
    assert len(set(rates)) == 2


def test_one_that_diverges_is_alone_in_it(stacked):
    lost = stacked[0]["diverging"]
    assert not lost.result.exists()
    error = lost.read("error")
    assert error["step"] == 2
    assert error["error"].startswith("Diverged: the loss is nan at step 2")
    assert lines(lost) == []
    for name in FINE:
        assert result(stacked[0][name])["train"]["final_loss"] < 6
        assert not stacked[0][name].error.exists()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays(final_state(stacked[0][name]))))


def test_a_stacked_runs_seconds_are_its_share(stacked, alone):
    runs, seconds = stacked
    timings = {name: runs[name].read("result")["timing"] for name in FINE}
    assert {timing["stacked"] for timing in timings.values()} == {len(MEMBERS)}
    shares = {timing["train_s"] for timing in timings.values()}
    assert len(shares) == 1
    assert 0 < len(MEMBERS) * shares.pop() < seconds
    assert "stacked" not in alone.read("result")["timing"]


@pytest.mark.slow
def test_a_group_goes_on_from_the_newest_step_that_all_have(stacked, tmp_path, capsys):
    """What is done is left out and left as it is; what was saved after that step is made again.

    Going on with two steps a dispatch gives the same numbers, and is no other experiment.
    """
    for name in FINE:
        shutil.copytree(stacked[0][name].path, tmp_path / name)
    before = {path: path.read_bytes() for path in files_of(tmp_path / "plain")}
    gone = {"other": ["6"], "last": ["4", "6"]}
    for name, steps in gone.items():
        (tmp_path / name / "result.json").unlink()
        for step in steps:
            shutil.rmtree(tmp_path / name / "checkpoints" / step)
    runs = experiments(tmp_path, list(FINE), train__steps_per_dispatch=2)
    said = capsys.readouterr().out
    assert "step 4" in said
    assert "step 2" not in said
    assert {path: path.read_bytes() for path in before} == before
    for name in gone:
        close(lines(runs[name]), lines(stacked[0][name]))
        found, wanted = result(runs[name]), result(stacked[0][name])
        for each in (found, wanted):
            del each["config"]["train"]["steps_per_dispatch"]
        programs = [(origin["step"], origin["program"]["steps_per_dispatch"]) for origin in found.pop("origins")]
        assert programs == [(1, 1), (3, 2)]
        close(found, wanted)
        for step in (4, STEPS):
            close_states(final_state(runs[name], step), final_state(stacked[0][name], step))
        timing = runs[name].read("result")["timing"]
        assert timing["stacked"] == 2
        assert timing["train_s"] > final_state(runs[name], 2).progress["seconds"] > 0


def files_of(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def begun(folder, kept):
    """Members that have checkpoints of such steps, {name: steps}."""
    for name, steps in kept.items():
        saved, start = Checkpoints(folder / name / "checkpoints"), init_state(config())
        for step in steps:
            saved.save(checkpoint(start, step))
        saved.close()
    return [TrainingRun(config(**MEMBERS[n]), RunDir(folder / n), handful.prepared(copies=2)) for n in kept]


@pytest.mark.parametrize(
    ("kept", "damaged", "groups"),
    [
        ({"plain": (2, 4), "other": (4, 6)}, (), [["plain", "other"]]),
        ({"plain": (), "other": (), "last": ()}, (), [["plain", "other", "last"]]),
        ({"plain": (2, 4), "other": (), "last": (4,)}, (), [["plain", "last"], ["other"]]),
        ({"plain": (2, 4), "other": (2,)}, ("other/checkpoints/2",), [["plain"], ["other"]]),
        ({"plain": (2, 4), "other": (2, 4)}, ("other/checkpoints/4",), [["plain", "other"]]),
    ],
)
def test_none_begins_anew_because_of_another(tmp_path, capsys, kept, damaged, groups):
    members = begun(tmp_path, kept)
    for path in damaged:
        (tmp_path / path / "digests.json").unlink()
    found = split_by_start(members)
    assert [[m.run.path.name for m in group] for group in found] == groups
    for m in members:
        m.checkpoints.close()
    said = "note: base seed 1 has no checkpoint in common with base seed 2: trained one after the other\n"
    assert capsys.readouterr().out.count(said) == len(groups) - 1


def test_a_member_that_goes_back_says_so(tmp_path, capsys):
    members = begun(tmp_path, {"plain": (2, 4), "other": (2,)})
    assert RunGroup(members).start()[1] == 2
    wanted = "note: base seed 1 goes back from step 4 to 2, the newest that its group has\n"
    assert capsys.readouterr().out == wanted
    for m in members:
        m.checkpoints.close()


@pytest.mark.parametrize(
    ("plain", "other", "first"), [((2, 4), (4, 6), 4), ((2, 4), (2, 4), 4), ((2, 4), (6,), 0), ((2,), (), 0)]
)
def test_a_group_starts_where_all_have_been(tmp_path, monkeypatch, plain, other, first):
    """Later checkpoints are gone then, so that they can be made anew."""
    names, kept = ("plain", "other"), (plain, other)
    members, positions = begun(tmp_path, dict(zip(names, kept, strict=True))), []

    class Started(Exception):
        pass

    def step(state, batch):
        raise Started(state.step.tolist())

    def draw(self):
        positions.append(self.batches.position["epoch"])
        return Drawn({"src": np.zeros(1)}, [[]], {})

    monkeypatch.setattr(loop, "make_step_over_devices", lambda *_: step)
    monkeypatch.setattr(TrainingRun, "draw", draw)
    with pytest.raises(Started) as caught:
        loop.train(members)
    assert caught.value.args == ([first, first],)
    assert positions == [first, first]
    assert [m.checkpoints.steps() for m in members] == [[step for step in steps if step <= first] for steps in kept]


def test_an_accelerators_stack_is_saved_as_a_cpus(tmp_path, monkeypatch):
    """It is brought to memory first, and its parts are no copies; the files hold the same bits."""
    given, save, told = {}, Checkpoints.save, stack([tiny.metrics()] * 2, np.stack)

    def step(state, batch):
        return jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), state), told

    def trained(where):
        members = []
        for name in ("plain", "other"):
            c, run = config(**MEMBERS[name], train__steps=2), RunDir(tmp_path / where / name)
            run.path.mkdir(parents=True)
            members.append(TrainingRun(c, run, handful.prepared(copies=2)))
        loop.train(members)
        return [arrays(restored(m.run, m.config)) for m in members]

    monkeypatch.setattr(loop, "make_step_over_devices", lambda *_: step)
    monkeypatch.setattr(loop, "make_eval", lambda *_: lambda params: [{"nll": 1.0, "ppl": 2.7, "tokens": 9}] * 2)
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, one: given[where].extend(leaves(one.trees)) or save(self, one)
    )
    found, leaves = {}, jax.tree.leaves
    for where, fetches in (("cpu", False), ("accelerator", True)):
        given[where] = []
        monkeypatch.setattr(run_group, "fetches_stacks", lambda fetches=fetches: fetches)
        found[where] = trained(where)
    assert all(isinstance(leaf, np.ndarray) and leaf.base is not None for leaf in given["accelerator"])
    assert not any(isinstance(leaf, np.ndarray) for leaf in given["cpu"])
    jax.tree.map(np.testing.assert_array_equal, found["accelerator"], found["cpu"])
    assert any((one != other).any() for one, other in zip(*map(leaves, found["cpu"]), strict=True))


# Several steps a dispatch


@pytest.mark.slow
def test_several_steps_a_dispatch_are_the_same_steps(stacked, tmp_path):
    """Alone; of a group, resuming above says it."""
    wanted, run = stacked[0]["plain"], RunDir(tmp_path)
    two = config(**MEMBERS["plain"], train__steps_per_dispatch=2)
    _, [found] = loop.train([TrainingRun(two, run, handful.prepared(copies=2))])
    close(lines(run), lines(wanted))
    close_states(final_state(run), final_state(wanted))
    close({key: found[key] for key in found if key not in ("seconds", "origins", "dev")}, result(wanted)["train"])
    close(found["dev"], {which: result(wanted)[f"dev_{which}"] for which in found["dev"]})


@pytest.mark.parametrize("name", ["steps", "log_every", "eval_every", "checkpoint_every"])
def test_steps_per_dispatch_must_divide_what_happens_between_steps(name):
    everything = dict.fromkeys(("steps", "log_every", "eval_every", "checkpoint_every"), 8) | {name: 6}
    with pytest.raises(UserError) as caught:
        tiny.config(train__steps_per_dispatch=4, **{f"train__{key}": value for key, value in everything.items()})
    assert str(caught.value) == f"train.{name}=6 is no multiple of train.steps_per_dispatch=4"


def test_steps_per_dispatch_is_not_another_experiment(tmp_path):
    run = RunDir(tmp_path)
    run.config.write_text(to_json({"config": config().to_dict()}))
    refuse_other_configuration(config(train__steps_per_dispatch=2), run)
    with pytest.raises(UserError, match=r"train\.steps: 6 there"):
        refuse_other_configuration(config(train__steps=8, train__steps_per_dispatch=2), run)


# What goes wrong


def test_what_cannot_train_side_by_side_is_refused(tmp_path):
    def refused(wanted, *runs):
        with in_memory(), pytest.raises(UserError) as caught:
            experiment.run_experiments([(c, RunDir(tmp_path / name)) for c, name in runs])
        assert "\n" not in str(caught.value)
        assert wanted in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    other = config(model__norm="pre", model__dropout=0.0, train__seed=2)
    assert compile_key(other) != compile_key(config())
    refused("model.norm, model.dropout differ", (config(), "a"), (other, "b"))
    refused("train.steps_per_dispatch differ", (config(), "a"), (config(train__steps_per_dispatch=2), "b"))
    refused("model.kernels=pallas needs one NVIDIA GPU; here", (config(model__kernels="pallas"), "a"))
    refused("one --workdir", (config(), "a"), (config(train__seed=2), "a"))


@pytest.fixture
def untrained(monkeypatch):
    """Training that only says that it is done."""

    def train(members, interruption):
        told = {"steps": 9, "epochs": 1.0, "target_tokens": 1, "flops": 1.0}
        told |= {"seconds": 1.0, "dev": {"last": {}, "best": {}}}
        for m in members:
            m.run.metrics.touch()
            if not m.progress.origins:
                m.progress.computed_with(m.origin, m.config.train.steps)
        each = TrainState(np.int32(9), {"w": np.zeros(3, np.float32)}, {})
        return stack([each] * len(members)), [told | {"origins": m.progress.origins} for m in members]

    monkeypatch.setattr(experiment, "train", train)
    chosen = Chosen({"w": np.ones(3)}, {"split": "validation", "nll": 0.0, "ppl": 1.0})
    monkeypatch.setattr(experiment, "select_all", lambda members, state: [chosen] * len(members))


def translated(c, *_):
    """Scores of nothing."""
    kinds = ("bleu", "chrf", "bleu_tokenized", "bleu_compound", "bleu_lower", "exact_match")
    return {c.decode.splits: TranslatedSplit(dict.fromkeys(kinds, 0.0) | {"signature": ""}, [], [], [])}


def test_one_that_fails_after_training_leaves_the_others_be(untrained, monkeypatch, tmp_path):
    def translate(c, params, data, run, apart):
        assert apart  # else the others would wait while this one is scored
        if c.train.seed == 2:
            raise ArithmeticError("no BLEU today")
        return translated(c)

    monkeypatch.setattr(outcome, "evaluate_translations", translate)
    names = ["plain", "other", "last"]
    with pytest.raises(ArithmeticError, match="no BLEU today"):
        experiments(tmp_path, names)
    assert [RunDir(tmp_path / name).result.exists() for name in names] == [True, False, True]
    assert [RunDir(tmp_path / name).error.exists() for name in names] == [False, True, False]
    error = RunDir(tmp_path / "other").read("error")
    assert (error["seed"], error["error"]) == (2, "ArithmeticError: no BLEU today")
    monkeypatch.setattr(outcome, "evaluate_translations", translated)
    experiments(tmp_path, names)
    assert RunDir(tmp_path / "other").result.exists()
    assert not RunDir(tmp_path / "other").error.exists()


def test_a_result_lists_what_it_was_computed_with_where_that_was_not_one_thing(untrained, monkeypatch, tmp_path):
    untold = experiment.train

    def train(members, interruption):
        for m in members:
            m.progress.computed_with(m.origin, STEPS)
            m.progress.step = 4
            other = {"versions": {"jax": "0.0.1"}} if m.config.train.seed == 2 else {}
            m.progress.computed_with(m.origin | other, STEPS)
        return untold(members, interruption)

    monkeypatch.setattr(experiment, "train", train)
    monkeypatch.setattr(outcome, "evaluate_translations", translated)
    made = experiments(tmp_path, ["plain", "other"])
    assert "origins" not in made["plain"].read("result")
    one, two = made["other"].read_result().origins
    assert (one.step, two.step) == (1, 5)
    assert (one.program["side_by_side"], one.device.platform) == (2, "cpu")
    assert two.versions == {"jax": "0.0.1"} != one.versions


def test_training_that_fails_fails_for_all_that_were_in_it(untrained, monkeypatch, tmp_path):
    monkeypatch.setattr(outcome, "evaluate_translations", translated)
    experiments(tmp_path, ["plain"])

    def train(members, interruption):
        raise MemoryError("of the device")

    monkeypatch.setattr(experiment, "train", train)
    with pytest.raises(MemoryError):
        experiments(tmp_path, ["plain", "other", "last"])
    found = [RunDir(tmp_path / name).error.exists() for name in ("plain", "other", "last")]
    assert found == [False, True, True]


# Launched


@pytest.mark.slow
def test_a_launch_trains_side_by_side_in_one_process(tmp_path):
    """The real command line, but for the text, which is the handful of pairs."""
    script = tmp_path / "train.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})\n"
        "import handful\nfrom tx import train\nfrom tx.data import tokenized\n"
        "tokenized.prepare = lambda *_: handful.prepared()\ntrain.main(sys.argv[1:])\n"
    )
    sizes = {
        "model.vocab_size": handful.VOCAB_SIZE,
        "model.num_layers": 1,
        "model.d_model": 16,
        "data.row_length": 32,
        "data.batch_rows": 2,
        "train.steps": 2,
        "optim.warmup_steps": 1,  # else two steps are too small to tell the runs apart
        "decode.beam": 1,
        "decode.extra_length": 1,
    }
    reported = []
    status = local.main(
        [
            *("table3/base@smoke", "table3/D/eps_ls=0.0@smoke", "--seeds=2", f"--workdir={tmp_path / 'runs'}"),
            *(f"--set={field}={value}" for field, value in sizes.items()),
            "--stack",
        ],
        command=lambda runs: [sys.executable, str(script), *plan.arguments(runs)],
        prepare=lambda runs: None,
        report=reported.append,
    )
    sweep = tmp_path / "runs" / "table3@smoke"
    folders = [sweep / variant / f"seed{seed}" for variant in ("base", "D/eps_ls=0.0") for seed in (1, 2)]
    log = (folders[0] / "log.txt").read_text()
    assert status == 0, log
    assert reported == [[sweep]]
    for folder in folders:
        found = RunDir(folder).read("result")
        assert found["timing"]["stacked"] == 4
        assert folder.as_posix().endswith(f"seed{found['seed']}")
        assert f"{found['name']} seed {found['seed']}: step 2" in log
    assert str(folders[0] / "log.txt") in (folders[3] / "log.txt").read_text()
    assert len({json.dumps(RunDir(folder).read("result")["dev"]) for folder in folders}) == 4

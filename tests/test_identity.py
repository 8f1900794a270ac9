"""Whose a checkpoint is: what is gone on with is of the same run, and what is not is set aside, with a line."""

import dataclasses
import json
import shutil

import handful
import pytest
import tiny

from tx import files
from tx.data import tokenized
from tx.errors import UserError
from tx.runs import provenance, run_config
from tx.runs.checkpoint_files import APART, read_progress
from tx.runs.metrics_log import read_metrics
from tx.runs.run_config import Request
from tx.runs.run_dir import RunDir
from tx.runs.selection import select_parameters
from tx.training import experiment, loop
from tx.training.drawn import Drawn
from tx.training.hooks import StepEnd
from tx.training.run_group import RunGroup
from tx.training.step import TrainState

SETTINGS = {
    "model__vocab_size": handful.VOCAB_SIZE,
    "model__num_layers": 1,
    "data__batch_rows": 2,
    "train__steps": 8,
    "train__log_every": 1,
    "train__eval_every": 8,
    "train__checkpoint_every": 2,
    "decode__splits": "validation",
    "decode__extra_length": 1,
}


class Stopped(UserError):
    """As a process that is killed: nothing is recorded of it."""


def little(**diff):
    return tiny.config(**(SETTINGS | diff))


@pytest.fixture
def go(monkeypatch):
    """Trains runs, which learn nothing, until after a step; returns the step that they went on from."""
    data = handful.prepared(copies=2)

    def go(folder, until=5, text=data, **diff):
        seen = []

        def step(state, batch):
            seen.append(int(state.step))
            if len(seen) > until - seen[0]:
                raise Stopped("after a step")
            return TrainState(state.step + 1, state.params, state.opt_state), tiny.metrics(1 / (1 + seen[-1]))

        monkeypatch.setattr(tokenized, "prepare", lambda *_: text)
        monkeypatch.setattr(loop, "make_step_over_devices", lambda *_: step)
        monkeypatch.setattr(loop, "make_eval", lambda *_: lambda params: [{"nll": 1.0, "ppl": 2.7, "tokens": 9}])
        with pytest.raises(Stopped):
            experiment.run_experiments([(little(**diff), RunDir(folder))])
        return seen[0]

    return go


def steps(run):
    return sorted(int(path.name) for path in run.checkpoints.iterdir())


def sealed(folder, edit):
    """Changes what a checkpoint says of its progress, as one that is whole."""
    file = folder / "progress" / "metadata"
    progress = json.loads(file.read_text())
    edit(progress)
    file.write_text(json.dumps(progress))
    files.write_checksums(folder, apart=APART)


def test_what_is_left_alone_goes_on(tmp_path, go, capsys):
    run = RunDir(tmp_path)
    assert go(tmp_path) == 0
    assert steps(run) == [2, 4]
    assert go(tmp_path, 7) == 4
    assert go(tmp_path, 7) == 6
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3, 4, 5, 6, 7]
    assert not (tmp_path / "stale").exists()
    assert "note:" not in capsys.readouterr().out


def test_neither_decoding_nor_where_text_and_run_lie_makes_another_run(tmp_path, go):
    """They would be another configuration, but config.json is edited by hand."""
    assert go(tmp_path) == 0
    assert go(tmp_path, parallel__threads=2, train__steps_per_dispatch=1, decode__batch_tokens=4096) == 4
    run = RunDir(tmp_path)
    head = run.read("config")
    head["config"]["decode"]["beam"], head["config"]["data"]["dir"] = 1, "/elsewhere"
    run.config.write_text(files.to_json(head))
    assert go(tmp_path, decode__beam=1, data__dir="/elsewhere") == 4


def begins_anew(go, run, capsys, *wanted, **asked):
    """Asserts that a run starts over, says why in a line, and keeps what was there."""
    before = sorted(path.relative_to(run.checkpoints) for path in run.checkpoints.rglob("*"))
    capsys.readouterr()
    assert go(run.path, **asked) == 0
    (note,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("note: "))
    (aside,) = (run.path / "stale").iterdir()
    assert note.endswith(f": begun anew; see {aside}")
    for text in wanted:
        assert text in note
    assert sorted(path.relative_to(aside / "checkpoints") for path in aside.glob("checkpoints/**/*")) == before
    assert steps(run) == [2, 4]


@pytest.mark.parametrize(
    ("content", "launched", "diff"),
    [
        (None, False, {}),
        (None, True, {"model__dropout": 0.3}),
        ("", True, {}),
        ("[]", False, {"model__dropout": 0.3}),
        ('{"config": 3}', True, {}),
    ],
)
def test_checkpoints_without_a_configuration_are_nobodys(tmp_path, go, capsys, content, launched, diff):
    """A launcher writes config.json before the run starts: then, too."""
    run = RunDir(tmp_path)
    assert go(tmp_path) == 0
    run.config.unlink()
    if content is not None:
        run.config.write_text(content)
    if launched:
        run_config.hand_over(Request(little(**diff), run))
    begins_anew(go, run, capsys, "holds checkpoints, but no config.json of a run that has saved them", **diff)


def test_a_configuration_that_was_edited_does_not_take_the_checkpoints_over(tmp_path, go, capsys):
    run = RunDir(tmp_path)
    assert go(tmp_path) == 0
    head = run.read("config")
    head["config"]["model"]["dropout"] = 0.3
    run.config.write_text(files.to_json(head))
    wanted = "checkpoint 2 is of another configuration (model.dropout was 0.1, is now 0.3)"
    begins_anew(go, run, capsys, wanted, model__dropout=0.3)


@pytest.mark.parametrize(
    ("diff", "wanted"),
    [
        ({"train__seed": 2}, "checkpoint 4 is of another configuration (train.seed was 2, is now 1)"),
        ({"model__dropout": 0.3}, "checkpoint 4 is of another configuration (model.dropout was 0.3, is now 0.1)"),
        ({"model__num_layers": 2}, "checkpoint 4 is of another configuration (model.num_layers was 2, is now 1)"),
    ],
    ids=str,
)
def test_the_checkpoint_of_another_run_is_not_gone_on_with(tmp_path, go, capsys, diff, wanted):
    run, other = RunDir(tmp_path / "run"), RunDir(tmp_path / "other")
    assert go(run.path) == go(other.path, **diff) == 0
    shutil.rmtree(run.checkpoints / "4")
    shutil.copytree(other.checkpoints / "4", run.checkpoints / "4")
    begins_anew(go, run, capsys, wanted)


def test_a_checkpoint_under_the_number_of_another_is_not_gone_on_with(tmp_path, go, capsys):
    run = RunDir(tmp_path)
    assert go(tmp_path) == 0
    shutil.rmtree(run.checkpoints / "4")
    (run.checkpoints / "2").rename(run.checkpoints / "4")
    begins_anew(go, run, capsys, "checkpoint 4 was saved at step 2")


def without(progress):
    del progress["identity"]


def of_other_code(progress):
    progress["identity"]["numerics"] = "0123456789ab"


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (without, "checkpoint 4 says of no run that it is its own"),
        (of_other_code, "checkpoint 4 is of other code (fingerprint 0123456789ab, now "),
    ],
)
def test_a_checkpoint_that_does_not_say_whose_it_is_or_is_of_other_code(tmp_path, go, capsys, edit, wanted):
    run = RunDir(tmp_path)
    assert go(tmp_path) == 0
    sealed(run.checkpoints / "4", edit)
    begins_anew(go, run, capsys, wanted)


def test_one_that_is_damaged_is_no_reason_to_begin_anew(tmp_path, go, capsys):
    """What it says of whose it is may be the damage."""
    run = RunDir(tmp_path)
    assert go(tmp_path) == 0
    file = run.checkpoints / "4" / "progress" / "metadata"
    file.write_text(file.read_text().replace('"train.seed": 1', '"train.seed": 3'))
    assert go(tmp_path) == 2
    assert "checkpoint 4 is damaged" in capsys.readouterr().err
    assert not (tmp_path / "stale").exists()


@pytest.mark.parametrize("which", ["text", "vocabulary"])
def test_other_text_or_subwords_begin_anew(tmp_path, go, capsys, which):
    run, text = RunDir(tmp_path), handful.prepared(copies=2)
    assert go(tmp_path) == 0
    if which == "text":
        text = dataclasses.replace(text, corpus=dataclasses.replace(text.corpus, fingerprint="another"))
        begins_anew(go, run, capsys, "checkpoint 2 is of other text (fingerprint f, now another)", text=text)
    else:
        vocabulary = handful.Vocabulary.learn(["ein", "eine", "einer"] * 9, 270)
        text = dataclasses.replace(text, vocabulary=vocabulary)
        begins_anew(go, run, capsys, "checkpoint 2 is of other subwords (fingerprint ", text=text)


def test_members_of_a_group_do_not_begin_anew_because_of_one(tmp_path, monkeypatch, capsys):
    """The others go on from where they were, before it or after it; one that fails leaves the others be."""
    monkeypatch.setattr(tokenized, "prepare", lambda *_: handful.prepared(copies=2))
    runs = [(little(train__seed=seed), RunDir(tmp_path / f"seed{seed}")) for seed in (1, 2, 3)]
    started = []

    def train(members, interruption):
        group = RunGroup(members)
        state, first = group.start()
        started.append(([m.config.train.seed for m in members], first))
        programs = [m.progress.origins[-1]["program"]["side_by_side"] for m in members]
        assert programs == [len(members)] * len(members)
        if first == 0:
            with group.recording(first, state.params):
                group.save(StepEnd(4, state, {}, Drawn({}, [], {}), last=False, asked=False))
        raise Stopped(f"from {first}")

    monkeypatch.setattr(experiment, "train", train)
    with pytest.raises(Stopped, match="from 0"):
        experiment.run_experiments(runs)
    runs[0][1].config.unlink()
    with pytest.raises(Stopped, match="from 0"):
        experiment.run_experiments(runs)
    assert started == [([1, 2, 3], 0), ([1], 0), ([2, 3], 4)]
    out = capsys.readouterr().out
    assert "no config.json of a run that has saved them: begun anew" in out
    name = runs[0][0].name
    assert f"note: {name} seed 1 has no checkpoint in common with {name} seed 2, {name} seed 3: trained one" in out
    assert [(run.path / "stale").exists() for _, run in runs] == [True, False, False]


@pytest.mark.parametrize(
    ("averaged", "diff", "wanted"),
    [
        (1, {"train__seed": 2}, "is of another configuration (train.seed was 2, is now 1)"),
        (2, {"train__seed": 2}, "is of another configuration (train.seed was 2, is now 1)"),
        (1, {}, "is of other text (fingerprint f, now another)"),
    ],
)
def test_parameters_are_not_taken_from_the_checkpoint_of_another_run(tmp_path, go, diff, wanted, averaged):
    run, other = RunDir(tmp_path / "run"), RunDir(tmp_path / "other")
    text = handful.prepared(copies=2)
    if not diff:
        text = dataclasses.replace(text, corpus=dataclasses.replace(text.corpus, fingerprint="another"))
    assert go(run.path, text=text) == go(other.path, **diff) == 0
    config = little(decode__average_last=averaged)
    assert select_parameters(config, run).step == 4
    shutil.rmtree(run.checkpoints / "4")
    shutil.copytree(other.checkpoints / "4", run.checkpoints / "4")
    with pytest.raises(UserError) as caught:
        select_parameters(config, run)
    advice = "it is not this run's; put its own back, or train it anew"
    assert str(caught.value) == f"{run.checkpoints / '4'} {wanted}: {advice}"


def test_parameters_of_before_checkpoints_said_whose_they_are(tmp_path, go, capsys):
    """They are taken where none says it, with a line; not beside those that do."""
    run = RunDir(tmp_path)
    assert go(tmp_path) == 0
    sealed(run.checkpoints / "4", without)
    with pytest.raises(UserError, match="checkpoints/4 says of no run that it is its own: it is not this run's"):
        select_parameters(little(), run)
    sealed(run.checkpoints / "2", without)
    capsys.readouterr()
    assert select_parameters(little(), run).step == 4
    assert capsys.readouterr().err == f"note: none of {run.checkpoints} says which run it is of\n"


def test_the_best_was_computed_as_the_newest_says(tmp_path, go):
    """Of the same run on other threads its last digits may be others."""
    run, config = RunDir(tmp_path), little(train__eval_every=4, train__checkpoint_every=4, train__select="best")
    diff = {"train__eval_every": 4, "train__checkpoint_every": 4, "train__select": "best"}
    assert go(tmp_path, 7, **diff) == 0
    assert select_parameters(config, run).step == 4

    def evaluated(progress):
        progress["step"] = 8

    shutil.copytree(run.checkpoints / "4", run.checkpoints / "8")
    sealed(run.checkpoints / "8", evaluated)
    assert select_parameters(config, run).step == 4

    def on_other_threads(progress):
        progress["origins"][0]["device"]["threads"] = 7

    sealed(run.checkpoints / "4", on_other_threads)
    with pytest.raises(UserError, match="checkpoints/4 was not computed on what checkpoint 8 says: it is not this"):
        select_parameters(config, run)


@pytest.mark.parametrize(
    ("edit", "first"),
    [
        (lambda lines: [*lines[:3], lines[3][:9]], 2),  # cut in the middle of the line of step 4
        (lambda lines: [*lines[:2], b"damaged", *lines[3:]], 2),
        (lambda lines: [*lines[:2], lines[2].replace(b"0.", b"1."), *lines[3:]], 2),
        (lambda lines: [*lines[:4], b"damaged", b""], 4),  # after what the newest checkpoint was saved after
        (lambda lines: [*lines[:4], lines[4][:9]], 4),
        (lambda lines: [*lines[:4], *lines[1:3], *lines[4:]], 4),  # another's, of steps before the checkpoint's
    ],
)
def test_a_log_that_lacks_lines_of_the_newest_checkpoint(tmp_path, go, capsys, edit, first):
    run = RunDir(tmp_path)
    assert go(tmp_path) == 0
    before = read_metrics(run)
    assert read_progress(run.checkpoints / "4")["log"]["lines"] == 4
    run.metrics.write_bytes(b"\n".join(edit(run.metrics.read_bytes().split(b"\n"))))
    assert go(tmp_path) == first
    out = capsys.readouterr().out
    said = "note: metrics.jsonl has not the lines that checkpoints were saved after (step 4): an earlier one is taken"
    assert (said in out) == (first == 2)
    assert [line | {"timing": 0} for line in read_metrics(run)] == [line | {"timing": 0} for line in before]
    assert not (tmp_path / "stale").exists()


@pytest.mark.parametrize("content", [None, b"", b'{"step": 1, '])
def test_a_log_that_lacks_lines_of_every_checkpoint(tmp_path, go, capsys, content):
    run = RunDir(tmp_path)
    assert go(tmp_path) == 0
    run.metrics.unlink()
    if content is not None:
        run.metrics.write_bytes(content)
    begins_anew(go, run, capsys, "metrics.jsonl has not the lines that checkpoint 2 was saved after")
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3, 4, 5]


def test_a_result_without_a_configuration_is_compared_by_its_own(tmp_path, go, capsys):
    run = RunDir(tmp_path)
    run.result.write_text(files.to_json({"config": little().to_dict()}))
    experiment.run_experiments([(little(), run)])
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"another configuration \(model.dropout: 0.1 there, 0.3 asked for\)"):
        experiment.run_experiments([(little(model__dropout=0.3), run)])


def origins(run):
    """What the newest checkpoint says that each stretch was computed with, by its first step."""
    found = {each.pop("step"): each for each in read_progress(run.checkpoints / str(steps(run)[-1]))["origins"]}
    assert all(each.pop("seconds") > 0 for each in found.values())
    return found


@pytest.mark.slow
def test_what_only_decides_last_digits_is_recorded_and_gone_on_with(tmp_path, go, monkeypatch, capsys):
    """Threads, versions, processor, mode and devices, and where it goes on as before, no more."""
    run, describe = RunDir(tmp_path), provenance.describe
    changes = [{}, {"device": {"threads": 7}}, {"versions": {"jax": "0.0.1"}}, {"device": {"kind": "Another"}}, {}]
    for number, change in enumerate(changes):

        def changed(config=None, change=change):
            found = describe(config)
            return {name: value | change.get(name, {}) if name in change else value for name, value in found.items()}

        monkeypatch.setattr(provenance, "describe", changed)
        mode = {"parallel__mode": "pmap"} if number == 3 else {}
        for until in (3, 5):
            first = go(tmp_path, 2 * number + until, train__steps=40, train__eval_every=40, **mode)
    assert first == 10
    found = origins(run)
    assert list(found) == [1, 5, 7, 9, 11]
    assert found[1] == found[11]
    assert found[1]["program"] == {
        **{"mode": "jit", "fsdp_shards": 1, "deterministic": False, "steps_per_dispatch": 1, "side_by_side": 1}
    }
    assert found[5] == found[1] | {"device": found[1]["device"] | {"threads": 7}}
    assert found[7]["versions"] == found[1]["versions"] | {"jax": "0.0.1"}
    assert (found[9]["device"]["kind"], found[9]["program"]["mode"]) == ("Another", "pmap")
    assert "note:" not in capsys.readouterr().out


def test_the_devices_of_an_origin_are_those_that_are_used():
    """Nor do the cores of a GPU's host matter."""
    gpu = {"platform": "gpu", "kind": "H", "count": 8, "threads": 16}
    for asked, used in ((0, 8), (1, 1), (4, 4)):
        found = provenance.describe_computing(little(parallel__devices=asked), {"device": gpu, "versions": {}}, 2)
        assert found["device"] == {"platform": "gpu", "kind": "H", "count": used}
    assert found["program"]["side_by_side"] == 2

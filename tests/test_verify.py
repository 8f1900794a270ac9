"""A work folder that was copied: what is whole, what is damaged, and what is missing."""

import json
import math
import shutil

import fabricated
import handful
import pytest
import tiny
from rich.console import Console

from experiments import launches
from experiments.launches import AskedRow
from launch import command_line, compilation_cache, failures, plan, verify
from tx import files
from tx.data import tokenized
from tx.errors import UserError
from tx.evaluation import scores
from tx.runs import verification
from tx.runs.checkpoint_files import APART
from tx.runs.lease import Lease
from tx.runs.run_dir import RunDir
from tx.training import experiment, loop
from tx.training.step import TrainState

NAME = "table3/base@smoke"
STEPS = (2, 4, 6, 8)


class Stopped(UserError):
    """Nothing is recorded of it."""


def stop(*_):
    raise Stopped("trained")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A work folder with one run that is done; what it has learned is nothing."""
    work = tmp_path_factory.mktemp("verified")
    run = RunDir(work / "table3@smoke" / "base" / "seed1")
    settings = {"model__vocab_size": handful.VOCAB_SIZE, "model__num_layers": 1, "data__batch_rows": 2}
    settings |= {"train__steps": STEPS[-1], "train__log_every": 1, "train__eval_every": 8, "train__checkpoint_every": 2}
    config = tiny.config(name=NAME, decode__splits="test", **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenized, "prepare", lambda *_: handful.prepared(copies=2))
        patch.setattr(loop, "make_eval", lambda *_: lambda params: [{"nll": 1.0, "ppl": math.e, "tokens": 9}])
        patch.setattr(loop, "make_step_over_devices", lambda *_: learn_nothing)
        patch.setattr(experiment, "select_all", stop)
        with pytest.raises(Stopped):
            experiment.run_experiments([(config, run)])
    stats = [[4, 5, 3, 2, 1, 1, 4, 3, 2, 1], [6, 6, 5, 4, 3, 2, 6, 5, 4, 3]]
    result = fabricated.result_of(config.to_dict())
    result["tests"] = {"test": result["tests"]["test"] | {"sentences": 2, "stats": stats}}
    result["tests"]["test"]["bleu"] = scores.bleu_from_stats(stats)
    run.result.write_text(files.to_json(result))
    run.translations("test").write_text("ein Haus\nder Hund\n")
    return work


def learn_nothing(state, batch):
    return TrainState(state.step + 1, state.params, state.opt_state), tiny.metrics(1.0)


@pytest.fixture
def work(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def run_of(work):
    return RunDir(work / "table3@smoke" / "base" / "seed1")


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def verdict(run, name=NAME):
    """The verdict, which changes nothing."""
    before = contents(run.path)
    found = verification.verify(run, name)
    assert contents(run.path) == before
    return found


def test_what_is_whole_is_called_so(work, capsys):
    run = run_of(work)
    assert sorted(int(path.name) for path in run.checkpoints.iterdir()) == list(STEPS)
    assert verdict(run) == verification.Verdict("whole")
    launches.record(work / "table3@smoke", [AskedRow("base", "base", {}, {}, (1,))], {"imports": []})
    assert verify.main([str(work)]) == 0
    assert capsys.readouterr().out == "1 whole\n"
    assert verify.main([str(work / "table3@smoke"), "--all"]) == 0
    assert NAME in capsys.readouterr().out


@pytest.mark.slow
def test_a_byte_or_an_end_that_is_lost_of_any_file_of_a_checkpoint_is_found(work):
    run = run_of(work)
    sealed = [path for path in contents(run.checkpoints) if path.name not in APART]
    assert len(sealed) > 10 * len(STEPS)
    for path in sealed:
        step, whole = path.relative_to(run.checkpoints).parts[0], path.read_bytes()
        for damaged in (bytes([whole[0] ^ 1]) + whole[1:], whole[:-3]):
            path.write_bytes(damaged)
            found = verification.verify(run, NAME)
            assert found.name == "damaged"
            assert any(f"checkpoint {step}: " in reason for reason in found.reasons), (path, found)
        path.write_bytes(whole)
    assert verdict(run).name == "whole"


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def of_seed_2(head):
    head["config"]["train"]["seed"] = 2


def of_another_row(run):
    for path in (run.config, run.result):
        edit(path, lambda head: head["config"].update(name="table3/big@smoke"))


def of_another_run(run):
    """A checkpoint that is whole, and another run's."""
    folder = run.checkpoints / "4"
    edit(folder / "progress" / "metadata", lambda progress: progress["identity"]["config"].update({"train.seed": 7}))
    files.write_checksums(folder, apart=APART)


def without_first_line(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


FAULTS = {
    "the result cut": (lambda run: run.result.write_bytes(run.result.read_bytes()[:-200]), "result.json is damaged"),
    "a digit of BLEU": (
        lambda run: edit(run.result, lambda r: r["tests"]["test"].update(bleu=99.0)),
        "tests.test.bleu is not what its statistics give",
    ),
    "a digit of perplexity": (lambda run: edit(run.result, lambda r: r["dev"].update(ppl=5.1)), "dev.ppl"),
    "a sentence's statistics": (lambda run: edit(run.result, lambda r: r["tests"]["test"]["stats"].pop()), "1 of 2"),
    "the configuration cut": (lambda run: run.config.write_text("{"), "config.json is not JSON"),
    "the configuration lost": (lambda run: run.config.unlink(), "config.json does not exist"),
    "another configuration": (
        lambda run: edit(run.config, lambda head: head["config"]["model"].update(dropout=0.3)),
        "config.json is not of result.json: model.dropout",
    ),
    "another seed": (lambda run: edit(run.config, of_seed_2), "is of seed 2, not of seed 1"),
    "another row": (of_another_row, "is of table3/big@smoke"),
    "the log lost": (lambda run: run.metrics.unlink(), "metrics.jsonl is missing"),
    "the log cut": (lambda run: without_first_line(run.metrics), "has not the lines that checkpoint 2 was"),
    "a checkpoint lost": (lambda run: shutil.rmtree(run.checkpoints / "6"), "checkpoint 6 is missing"),
    "all checkpoints lost": (lambda run: shutil.rmtree(run.checkpoints), "checkpoint 8 is missing"),
    "another's checkpoint": (of_another_run, "checkpoint 4 is of another configuration (train.seed"),
    "another step's": (
        lambda run: (run.checkpoints / "6").rename(run.checkpoints / "5"),
        "checkpoint 5: was saved at step 6",
    ),
    "translations lost": (lambda run: run.translations("test").unlink(), "translations.test.txt is missing"),
    "translations cut": (lambda run: without_first_line(run.translations("test")), "has 1 lines, not 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_damaged_is_named(work, fault, capsys):
    damage, wanted = FAULTS[fault]
    damage(run_of(work))
    before = contents(work)
    assert verify.main([str(work), "--all"]) == 1
    assert contents(work) == before
    said = " ".join(capsys.readouterr().out.split())
    assert wanted in said
    assert "1 damaged" in said


def test_what_is_not_done_is_whole_as_far_as_it_is(work):
    run = run_of(work)
    run.result.unlink()
    run.translations("test").unlink()
    assert verdict(run).name == "unfinished"
    shutil.rmtree(run.checkpoints / "8")  # it may have been cut off while this one was written
    assert verdict(run).name == "unfinished"
    shutil.rmtree(run.checkpoints / "6")
    assert verdict(run) == verification.Verdict("damaged", ("checkpoint 6 is missing",))
    (run.path / "damaged").mkdir()
    (run.path / "damaged" / "6.123").mkdir()  # set aside, with a warning, where it was trained
    assert verdict(run).name == "unfinished"


def test_what_failed_before_it_began_is_not_damaged(work, capsys):
    launches.record(work / "table3@smoke", [AskedRow("base", "base", {}, {}, (1, 2))], {"imports": []})
    run = RunDir(run_of(work).path.with_name("seed2"))
    run.create()
    failures.add(run, "no memory")
    run.error.write_text('{"error": "no memory"}')
    assert verify.main([str(work)]) == 0
    assert capsys.readouterr().out == "1 whole, 1 unfinished\n"


def test_what_is_damaged_is_made_anew_as_it_says(work, capsys):
    """A launch counts as done what has a result that it can read."""
    run = run_of(work)
    shutil.rmtree(run.checkpoints)
    assert verify.main([str(work)]) == 1
    assert "and what is damaged once its folder is deleted" in capsys.readouterr().out
    args = command_line.parser_of().parse_args(["table3/base@smoke", f"--workdir={work}"])
    assert plan.make(args)[0].state.finished
    shutil.rmtree(run.path)
    assert plan.make(args)[0].state.name == "pending"


def test_what_is_being_made_is_left_alone(work):
    run = run_of(work)
    with Lease(run.path):
        shutil.rmtree(run.checkpoints / "8")
        assert verification.verify(run, NAME).name == "running"
    assert verification.verify(run, NAME).name == "damaged"


def test_a_result_alone_suffices(work):
    run = run_of(work)
    for path in (run.config, run.metrics, run.translations("test")):
        path.unlink()
    shutil.rmtree(run.checkpoints)
    assert verdict(run) == verification.Verdict("whole", ("result.json alone",))


def test_what_was_asked_for_and_is_not_there_is_missing(work, capsys):
    asked = [AskedRow("base", "base", {}, {}, (1, 2)), AskedRow("big", "big", {}, {}, (1,))]
    launches.record(work / "table3@smoke", asked, {"imports": []})
    assert verify.main([str(work)]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [NAME, "2", "missing"] in lines
    assert ["table3/big@smoke", "1", "missing"] in lines
    assert ["1", "whole,", "2", "missing"] in lines


def test_a_run_whose_parameters_are_anothers(work):
    run, other = run_of(work), RunDir(work / "table3@smoke" / "big" / "seed1")
    shutil.copytree(run.path, other.path, ignore=shutil.ignore_patterns("checkpoints", "metrics.jsonl", "lease"))
    edit(other.config, lambda head: head.update(trained_in="../../base/seed1"))
    assert verdict(other, "").name == "whole"
    shutil.rmtree(run.path)
    assert "the run that it takes parameters of is missing" in verdict(other, "").reasons[0]


def test_a_sweep_that_cannot_be_read_does_not_hide_the_others(work, capsys):
    (work / "table9@smoke").mkdir()
    with pytest.raises(SystemExit) as ended:
        verify.main([str(work)])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert "1 whole" in said.out or "whole, " in said.out
    assert "table9" in said.err


def test_compiled_programs_are_told_and_left(work):
    cache = work / compilation_cache.FOLDER
    cache.mkdir()
    (cache / "step-cache").write_bytes(b"program")
    launches.record(work / "table3@smoke", [AskedRow("base", "base", {}, {}, (1,))], {"imports": []})
    console = Console(record=True)
    assert verify.show(work, console)
    assert "1 compiled programs are not as they were written" in console.export_text()
    assert (cache / "step-cache").exists()
    with Lease(run_of(work).path):  # its launch is at work, and has not come to that one
        assert verify.show(work, console := Console(record=True))
    assert "compiled programs" not in console.export_text()

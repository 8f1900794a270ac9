"""Updates in one call of an accelerator, and runs side by side on it, where nobody has said; no accelerator is here."""

import argparse

import pytest

import tx.config
from experiments import registry
from launch import dispatch, grouping, local, plan
from launch import ray as ray_command
from launch import slurm as slurm_command
from launch.plan import __main__ as plan_command
from launch.plan import selection
from tx.files import to_json
from tx.runs import identity, run_config
from tx.runs.run_dir import RunDir
from tx.runtime import backend

SMALL, LARGE = "table3/base@multi30k", "table3/base@paper"
PER_CALL = dispatch.FIELD


@pytest.fixture
def devices(monkeypatch):
    """Lays so many GPUs of NVIDIA, and JAX's plugin for them, into this machine's place."""

    def lay(count):
        paths = {"/dev/nvidia[0-9]*": [f"/dev/nvidia{i}" for i in range(count)]}
        monkeypatch.setattr(backend.glob, "glob", lambda pattern: paths.get(pattern, []))
        monkeypatch.setattr(backend, "_cuda_plugin", lambda: True)
        for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)

    return lay


def planned(*arguments, accelerated=True):
    parser = argparse.ArgumentParser()
    selection.add_arguments(parser)
    parser.set_defaults(accelerated=accelerated)
    return plan.make(parser.parse_intermixed_args(arguments))


def per_call(runs):
    return [run.config.train.steps_per_dispatch for run in runs]


def dry(tmp_path, capsys, *arguments, main=local.main):
    assert main([f"--workdir={tmp_path}", "--dry_run", *arguments]) == 0
    return capsys.readouterr().out


def test_small_steps_go_many_at_a_time_and_large_ones_one_by_one(tmp_path):
    runs = planned("table3/*@multi30k", "table3/*@smoke", "table3/*@paper", f"--workdir={tmp_path}")
    for run in runs:
        train, count = run.config.train, run.config.train.steps_per_dispatch
        tx.config.validate(run.config)
        assert count == 1 or all(not train[name] % count for name in ("log_every", "eval_every", "checkpoint_every"))
    count = {run.name: run.config.train.steps_per_dispatch for run in runs}
    assert (count[SMALL], count["table3/base@smoke"], count[LARGE]) == (50, 50, 1)
    assert {n for name, n in count.items() if name.endswith("@paper")} == {1}
    assert set(per_call(planned("table3/*@multi30k", f"--workdir={tmp_path}", accelerated=False))) == {1}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([f"--set={PER_CALL}=1"], [1]),
        ([f"--set={PER_CALL}=5"], [5]),
        (["--grid", f"{PER_CALL}=1,2", "--only=*+*"], [1, 2]),
        (["--set=parallel.mode=pmap"], [1]),
        (["--set=parallel.devices=0"], [1]),
        (["--set=train.log_every=30", "--set=train.eval_every=90", "--set=train.checkpoint_every=90"], [30]),
        (["--set=train.steps=7", "--set=train.log_every=7"], [1]),
    ],
)
def test_what_the_user_or_the_devices_say_stands(tmp_path, given, wanted):
    assert per_call(planned(SMALL, f"--workdir={tmp_path}", *given)) == wanted


def test_the_choice_is_no_part_of_what_a_run_is(tmp_path):
    plain, chosen = (planned(SMALL, f"--workdir={tmp_path}", accelerated=those)[0] for those in (False, True))
    assert per_call([plain, chosen]) == [1, 50]
    assert identity.fields(plain.config) == identity.fields(chosen.config)
    assert tx.config.training_fields(plain.config) == tx.config.training_fields(chosen.config)
    assert registry.get_config(SMALL).model == chosen.config.model
    assert not tx.config.describe_differences(plain.config.to_dict(), chosen.config.to_dict())


@pytest.mark.parametrize("begun", [1, 10])
def test_what_is_begun_goes_on_as_it_was_begun(tmp_path, begun):
    (run,) = planned(SMALL, f"--workdir={tmp_path}", f"--set={PER_CALL}={begun}")
    run.folder.create()
    run.folder.config.write_text(to_json({"config": run.config.to_dict()}))
    assert per_call(planned(SMALL, f"--workdir={tmp_path}")) == [50]  # nothing is saved that could go on
    (run.folder.checkpoints / "250").mkdir(parents=True)
    assert run.checkpoints == {250}
    assert per_call(planned(SMALL, f"--workdir={tmp_path}", "--seeds=2")) == [begun, 50]


@pytest.mark.parametrize(("cards", "sizes"), [(1, [8, 8, 4]), (4, [5] * 4), (20, [1] * 20), (50, [1] * 20)])
def test_seeds_are_stacked_and_no_device_is_left_without_one(devices, tmp_path, cards, sizes):
    devices(cards)
    runs = planned(SMALL, "--seeds=20", f"--workdir={tmp_path}")
    assert [len(group) for group in grouping.groups(runs, dispatch.CHOSEN)] == sizes
    large = planned(LARGE, "--seeds=3", f"--workdir={tmp_path}")
    assert [len(group) for group in grouping.groups(large, dispatch.CHOSEN)] == [1] * 3
    cudnn = ("--set=model.attention_backend=cudnn", "--set=model.dtype=bfloat16", "--set=data.row_length=128")
    those = planned(SMALL, "--seeds=3", f"--workdir={tmp_path}", "--set=model.attention_dropout=0.0", *cudnn)
    assert [len(group) for group in grouping.groups(those, dispatch.CHOSEN)] == ([3] if cards == 1 else [1] * 3)


def test_the_plan_says_what_was_chosen(devices, tmp_path, capsys):
    given = (SMALL, "--seeds=2")
    assert "accelerator" not in dry(tmp_path, capsys, *given)  # conftest has JAX compute on the CPU
    devices(1)
    out = dry(tmp_path, capsys, *given)
    assert f"on an accelerator: updates in one call of it: 50 (2 runs); --set {PER_CALL}=1 makes one" in out
    assert "on an accelerator: up to 2 runs side by side; --stack=1 makes them one by one" in out
    assert out.split()[:4] == ["name", "seed", "state", "group"]
    assert "accelerator" not in dry(tmp_path, capsys, *given, "--stack=1", f"--set={PER_CALL}=1")
    assert "side by side" not in dry(tmp_path, capsys, *given, "--gpus=1", main=ray_command.main)
    assert "50 (2 runs)" in dry(tmp_path, capsys, *given, "--gpus=1", main=ray_command.main)
    assert "accelerator" not in dry(tmp_path, capsys, *given, main=ray_command.main)  # a task gets none there
    assert plan_command.main([*given, "--device=h100", "--estimate", f"--workdir={tmp_path}"]) == 0
    assert "note: updates in one call of the device: 50 (2 runs)" in capsys.readouterr().out


def test_what_takes_the_parameters_of_another_run_makes_no_updates(devices, tmp_path, capsys):
    devices(1)
    rows = ("decoding@multi30k", "--seeds=1")
    assert "updates in one call of it: 25 (1 runs);" in dry(tmp_path, capsys, *rows)
    assert plan_command.main([*rows, "--device=h100", "--estimate", f"--workdir={tmp_path}"]) == 0
    assert "note: updates in one call of the device: 25 (1 runs)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("main", "arguments", "wanted"),
    [
        (ray_command.main, ["--cpu=2"], "unrecognized arguments: --cpu=2; python -m launch.ray --help"),
        (slurm_command.main, ["--time=10", "--worker=4"], "unrecognized arguments: --worker=4; python -m launch.slurm"),
        (ray_command.main, ["--gpus=1.5"], "--gpus must be whole where it is above 1: Ray shares a single GPU alone"),
        (ray_command.main, ["--gpus=0.00001"], "--gpus must be at least 0.0001, the least that Ray counts; got 1e-05"),
        (ray_command.main, ["--cpus=inf"], "--cpus must be above 0"),
    ],
)
def test_an_engine_refuses_in_a_line_what_its_workers_could_not_take(tmp_path, capsys, main, arguments, wanted):
    with pytest.raises(SystemExit) as ended:
        main([f"--workdir={tmp_path / 'runs'}", SMALL, "--dry_run", *arguments])
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert said.startswith(f"error: {wanted}")


def test_a_launch_hands_over_what_it_chose_and_says_it(devices, tmp_path, capsys):
    devices(1)
    handed = []

    def command(runs):
        handed.append([run_config.handed_over(RunDir(run.folder.path))[0] for run in runs])
        return ["false"]

    given = [f"--workdir={tmp_path}", "--retries=0", "--no_rehearsal", SMALL, "--seeds=3"]
    assert local.main(given, command=command, prepare=lambda _: None, report=lambda _: None) == 1
    assert [[config.train.steps_per_dispatch for config in configs] for configs in handed] == [[50] * 3]
    assert "updates in one call of it: 50 (3 runs)" in capsys.readouterr().out

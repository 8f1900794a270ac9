"""Slurm, as this machine's own cluster of one node: arrays of workers, time limits, what is refused."""

import os
import pickle
import re
import signal
import sys
import time

import engine_sweep as sweep
import pytest

pytest.importorskip("submitit", reason="submitit missing; pip install -e '.[slurm]'")

from launch import local, slurm_worker
from launch import slurm as slurm_launch
from tx import plugins
from tx.errors import one_line_errors
from tx.runs import lease


def wait(slurm, look=lambda: None, timeout=400):
    """Waits until no job is left, or `look` says that it has seen enough."""
    deadline = time.monotonic() + timeout
    while slurm.jobs() and not look():
        assert time.monotonic() < deadline, slurm("scontrol", "show", "jobs")
        time.sleep(0.5)


def said(workdir):
    return "\n".join(path.read_text(errors="replace") for path in sorted((workdir / "slurm").glob("*_log.out")))


def test_an_array_makes_each_run_once_and_writes_the_tables(slurm, tmp_path):
    options = ["--workers=3", "--time=30", "--notice=60", "--setup=export SAID_BY_SETUP=yes"]
    submitted = sweep.finished(sweep.launched("launch.slurm", *sweep.arguments(tmp_path), *options))
    assert "submitted 3 workers for 4 runs: job " in submitted
    status = []

    def look():
        status.append(sweep.finished(sweep.launched("launch.slurm", "--status", tmp_path)))

    wait(slurm, look)
    folders = sweep.run_folders(tmp_path)
    assert len(folders) == len(sweep.ROWS)
    assert all((folder / "result.json").exists() for folder in folders), said(tmp_path)
    held = [sweep.claims(folder) for folder in folders]
    assert [len(claims) for claims in held] == [1] * len(folders)  # no other process was at work, ever
    engines = {claim["engine"] for [claim] in held}
    assert len(engines) == 3
    assert all(re.fullmatch(r"slurm job \d+_[012]", engine) for engine in engines)
    assert any(re.search(r"running .* process \d+ of slurm job \d+_[012] on ", text) for text in status)
    assert (tmp_path / "table3@smoke" / "table.md").exists()
    again = sweep.finished(sweep.launched("launch.slurm", *sweep.arguments(tmp_path), *options))
    assert "0 to run, 4 done before: nothing is submitted" in again
    assert slurm.jobs() == {}


def test_a_time_limit_interrupts_a_run_which_goes_on_to_the_same_bits(slurm, tmp_path):
    (tmp_path / "slowed.py").write_text(sweep.SLOWED)
    rows = ["C/N=2"]
    every = {"train__steps": 300, "train__checkpoint_every": 100, "train__eval_every": 100}
    wanted, alone = (sweep.arguments(tmp_path / name, rows, **every) for name in ("runs", "alone"))
    plugin = f"--import={tmp_path / 'slowed.py'}"
    limits, fast = ["--time=3", "--notice=60"], tmp_path / "fast"  # Slurm's notice may come up to a minute early
    sweep.finished(sweep.launched("launch.slurm", *wanted, plugin, *limits, SLOW_UNTIL=str(fast)))
    sweep.finished(sweep.launched("launch.local", *alone, plugin))
    requeued = []

    def look():
        if "Restarts=0" not in slurm("scontrol", "show", "jobs"):
            requeued.append(True)
            fast.touch()
            slurm.start_requeued()

    wait(slurm, look, timeout=500)
    [folder], [reference] = sweep.run_folders(tmp_path / "runs"), sweep.run_folders(tmp_path / "alone")
    assert requeued, said(tmp_path / "runs")
    assert (folder / "result.json").exists(), said(tmp_path / "runs")
    assert len(sweep.claims(folder)) > 1
    assert not (folder / "error.json").exists()
    assert sweep.learnt(folder) == sweep.learnt(reference)
    assert "interrupted: the same command goes on from here" in said(tmp_path / "runs")


class Environment:
    """Environment of a job, as submitit has it there."""

    USR_SIG, job_id = "USR2", "12_0"


@pytest.fixture
def job(monkeypatch):
    """What submitit has done in this process, as in a job: a list that gets True where the requeue is asked for."""
    requeued = []
    monkeypatch.setattr(slurm_worker.submitit, "JobEnvironment", Environment)
    monkeypatch.setenv(lease.ENGINE, "")
    before = signal.signal(signal.SIGUSR2, lambda *_: requeued.append(True))
    yield requeued
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("noticed", [True, False])
def test_a_notice_before_the_first_run_or_after_the_last_requeues_too(job, monkeypatch, noticed):
    @one_line_errors
    def main(arguments, place):
        signal.raise_signal(signal.SIGUSR2 if noticed else signal.SIGINT)

    monkeypatch.setattr(local, "main", main)
    with pytest.raises(SystemExit) as ended:
        slurm_worker.SlurmWorker(["table3@smoke"], 0, 0.0, 120.0)()
    assert (ended.value.code, job) == (130, [True] * noticed)


def test_a_worker_brings_files_and_folders_where_sbatch_passes_nothing_on(job, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, "mine.py")
    monkeypatch.setenv("TX_CACHE_DIR", "/shared")
    monkeypatch.setenv("TX_DATA_DIR", "/text")
    made, found = pickle.dumps(slurm_worker.SlurmWorker([], 0, 0.0, 120.0)), {}
    monkeypatch.delenv(plugins.VARIABLE)
    monkeypatch.delenv("TX_DATA_DIR")
    monkeypatch.setenv("TX_CACHE_DIR", "/local")  # by --setup, on the node
    monkeypatch.setattr(local, "main", lambda arguments, place: found.update(os.environ) or 0)
    pickle.loads(made)()
    wanted = {plugins.VARIABLE: "mine.py", "TX_DATA_DIR": "/text", "TX_CACHE_DIR": "/local"}
    assert found.items() >= wanted.items()


def test_what_sbatch_refuses_is_one_line(slurm, tmp_path, capsys):
    options = ["--time=30", "--partition=none"]
    with pytest.raises(SystemExit) as ended:
        slurm_launch.main([*sweep.arguments(tmp_path), *options], prepare=lambda runs: None)
    assert ended.value.code == 2
    assert re.fullmatch(r"error: sbatch refused: .*invalid partition.*\n", capsys.readouterr().err)


def test_the_script_is_shown_where_there_is_no_slurm(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = sweep.arguments(tmp_path / "runs")
    options = ["--workers=8", "--gpus=1", "--time=1-4", "--setup=module load cuda", "--sbatch=constraint=a100"]
    options += ["--cpus=6", "--mem=1.5"]
    assert slurm_launch.main([*arguments, *options, "--dry_run"]) == 0
    shown = capsys.readouterr().out
    for line in (
        *("#SBATCH --array=0-7%8", "#SBATCH --gpus-per-node=1", "#SBATCH --time=1680", "#SBATCH --requeue"),
        *("#SBATCH --signal=USR2@120", "#SBATCH --constraint=a100", "module load cuda"),
        *("#SBATCH --cpus-per-task=6", "#SBATCH --mem=1536M"),
    ):
        assert f"\n{line}\n" in shown
    assert "\nsrun --unbuffered --output " in shown
    assert f" --cpus-per-task=6 {sys.executable} -u -m submitit.core._submit {tmp_path / 'runs' / 'slurm'}" in shown
    assert list(tmp_path.iterdir()) == []  # nothing is left
    with pytest.raises(SystemExit):
        slurm_launch.main([*arguments, *options], prepare=lambda runs: None)
    assert "srun is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--workers=0", "--workers must be at least 1"),
        ("--time=soon", "argument --time: takes minutes, H:M:S or D-H:M:S; got 'soon'"),
        ("--time=0:00", "must be above 0"),
        ("--notice=1000", "--notice must be above 0 and at most half of --time"),
        ("--sbatch=a100", "--sbatch takes OPTION=VALUE"),
        ("--jobs=0", "--jobs must be at least 1"),
        ("--worker=4", "unrecognized arguments: --worker=4"),
        ("--mem=nan", "--mem must be above 0; got nan"),
        ("--mem=inf", "--mem must be above 0; got inf"),
        ("--cpus=0", "--cpus must be above 0; got 0"),
        ("--gpus=-1", "--gpus must be at least 0; got -1"),
        ("--workdir=50%A", "50%A': Slurm takes '%' for something else"),
    ],
)
def test_options_that_are_refused(option, expected, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        slurm_launch.main([*sweep.arguments(tmp_path), "--time=10", option, "--dry_run"])
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("2:30", 3), ("4:00:00", 240), ("1-0", 1440), ("1-4:30", 1710), ("2-01:00:01", 2941)],
)
def test_time_limits_as_sbatch_takes_them(text, minutes):
    assert slurm_launch._minutes(text) == minutes

"""Workers on one folder: what each takes, leaves to others, and gives up; runs are made by a fake trainer."""

import io
import json
import os
import sys
import time

import pytest
from rich.console import Console

from launch import command_line, failures, local, plan, pool, queue, resources, worker
from launch.worker import Place
from tx.files import to_json
from tx.runs import lease, state
from tx.runs.lease import Lease
from tx.runs.run_dir import RunDir

MAKE = (
    "import sys\nfrom tx.files import to_json\nfrom tx.runs.run_config import handed_over\n"
    "from tx.runs.run_dir import RunDir\n"
    "config, run, _ = handed_over(RunDir(sys.argv[1]))\n"
    "run.result.write_text(to_json({'config': config.to_dict()}))\n"
)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "POLL", 0.01)
    monkeypatch.setattr(queue, "PATIENCE", 0.05)
    args = command_line.parser_of().parse_args(["table3@smoke", "--only=base,A/h=1,big", f"--workdir={tmp_path}"])
    return plan.make(args)


def work(runs, code, retries=0, **place):
    """The lines that a worker prints, and its tally."""
    out = io.StringIO()
    command = lambda those: [sys.executable, "-c", code, *plan.arguments(those)]  # noqa: E731
    groups = [[run] for run in runs if not run.read_again().state.finished]
    workdir = runs[0].folder.path.parents[2]
    tally = local.launch(runs, groups, workdir, 1, Console(file=out, width=250), command, retries, place=Place(**place))
    return tally, out.getvalue()


def test_workers_that_start_together_begin_with_different_runs(runs):
    for number, expected in enumerate([0, 1, 2, 0]):
        taken = queue.Queue([[run] for run in runs], 0, first=number)
        assert taken.next() == [runs[expected]]
        assert taken.next() == [next(run for run in runs if run is not runs[expected])]  # then the longest


def test_a_worker_leaves_to_others_what_they_make_and_stays_where_it_is_to(runs):
    with Lease(runs[0].folder.path):
        tally, said = work(runs, MAKE, number=0, stays=False)
        assert tally == worker.Tally(failed=0, left=1)
        assert "leaves 1 runs" in said
    assert work(runs, MAKE, number=0, stays=False)[0] == worker.Tally()
    assert all(run.folder.result.exists() for run in runs)


def test_what_another_has_given_up_is_given_up(runs):
    fails = "import sys; sys.exit('error: no loss today')"
    since = time.time()
    (tally, said), first = work(runs[:1], fails, retries=1, since=since), runs[0].folder
    assert tally.failed == 1
    assert said.count("start ") == 2
    assert failures.count(first, since) == 2
    tally, said = work(runs[:1], fails, retries=1, since=since)  # another worker of that launch
    assert tally.failed == 1
    assert "start " not in said
    assert "in another launch: no loss today" in said
    assert work(runs[:1], MAKE, retries=1)[0] == worker.Tally()  # a new launch tries again


def test_what_a_launch_with_other_arguments_has_made_meanwhile_is_not_done(runs):
    first, second, *_ = runs
    other = {**first.config.to_dict(), "train": {**first.config.train.to_dict(), "steps": 20}}
    for run in (first, second):
        run.folder.create()
    first.folder.result.write_text(to_json({"config": other}))  # the launch had planned it, and not yet begun
    second.folder.result.write_text(to_json({"config": second.config.to_dict()}))
    out = io.StringIO()
    groups, workdir = [[first], [second]], first.folder.path.parents[2]
    tally = local.launch(runs[:2], groups, workdir, 1, Console(file=out, width=250), lambda _: ["false"], 1)
    assert tally == worker.Tally(failed=1)
    assert "train.steps: 20 there, 750 asked for" in out.getvalue()
    assert f"{second.label} by another launch" in out.getvalue()
    for run, name in (first, "failed"), (second, "done"):  # and where the process of such a run had begun
        assert pool.outcome(pool.Job([run], resources.Slot(()), None, error="it is held"), run).name == name


def test_failures_before_the_launch_and_damaged_lines_do_not_count(tmp_path):
    folder = RunDir(tmp_path)
    failures.add(folder, "first")
    with (tmp_path / failures.FILE).open("a", encoding="utf-8") as file:
        file.write('{"time": "never"}\n[]\n{"ti')
    assert failures.count(folder, 0.0) == 1
    assert failures.count(folder, time.time() + 1) == 0
    assert failures.count(RunDir(tmp_path / "nowhere"), 0.0) == 0


def test_failures_whose_time_is_yet_to_come_do_not_count(runs, monkeypatch):
    """As those of a machine whose clock was ahead, which every later launch would take for its own."""
    first, clock = runs[0].folder, time.time()
    first.create()
    for ahead in (10 * lease.EXPIRY, lease.EXPIRY / 2):
        with monkeypatch.context() as patch:
            patch.setattr(failures.time, "time", lambda ahead=ahead: clock + ahead)
            failures.add(first, "no loss today")
    assert failures.count(first, clock) == 1  # clocks that differ a little are those of one launch
    first.error.write_text(to_json({"error": "no loss today"}))
    tally, said = work(runs[:1], MAKE, retries=1)
    assert (tally, said.count("start ")) == (worker.Tally(), 1)


def test_a_lease_says_which_engine_its_process_is_of(tmp_path, monkeypatch):
    monkeypatch.setenv(lease.ENGINE, "slurm job 12_3")
    folder = RunDir(tmp_path / "seed1")
    with Lease(folder.path):
        assert lease.holder(folder.path).engine == "slurm job 12_3"
        assert f"process {os.getpid()} of slurm job 12_3 on " in state.of(folder, lambda _: "").reason
        record = folder.path / "lease" / "1"
        without = {k: v for k, v in json.loads(record.read_text()).items() if k != "engine"}
        record.write_text(to_json(without))  # as older versions wrote it
        assert lease.holder(folder.path).engine == ""
        assert lease.holder(folder.path).pid == os.getpid()

"""The watchdog: what shows no progress is ended, with its stacks; what works, computes or is stopped goes on."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from test_launch import fails, planned

from launch import local, pool, preparation, watchdog
from tx.runs import lease
from tx.runtime import liveness

STALLED = 1.0  # seconds
WORKS = """
    from tx.runs.lease import Lease
    from tx.runtime import liveness
    liveness.EVERY = 0.0
    with Lease(pathlib.Path(sys.argv[1])) as held:
        held.set_status("training after step 5")
        for _ in range(35):
            liveness.show_progress()
            time.sleep(0.1)
    pathlib.Path(sys.argv[1], "result.json").write_text("{}")
"""
HANGS = """
    from tx.runs.lease import Lease
    from tx.runtime.signals import write_stacks_when_asked
    def scoring_for_ever():
        time.sleep(600)
    write_stacks_when_asked()
    print(subprocess.Popen(["sleep", "600"], start_new_session=True).pid, flush=True)
    with Lease(pathlib.Path(sys.argv[1])) as held:
        held.set_status("translating")
        scoring_for_ever()
"""
COMPUTES = "while True: pass"
STOPPED = "os.kill(os.getpid(), signal.SIGSTOP)"


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """Four processes under a watchdog: {which: (its job, after how many seconds it was found)}; and the log of one."""
    monkeypatch.setattr(watchdog, "GRACE", 0.5)
    rows = dict(zip((WORKS, HANGS, COMPUTES, STOPPED), ("base", "A/h=1", "A/h=4", "A/h=16"), strict=True))
    runs = planned(*(f"table3/{row}@smoke" for row in rows.values()), f"--workdir={tmp_path}")
    codes = dict(zip((run.folder.path for run in runs), rows, strict=True))
    head = "import os, pathlib, signal, subprocess, sys, time\n"

    def command(runs):
        code = head + textwrap.dedent(codes[runs[0].folder.path])
        return [sys.executable, "-c", code, str(runs[0].folder.path)]

    found = {}
    with pool.Pool(len(runs), command, {}, stalled=STALLED) as started:
        jobs = {codes[run.folder.path]: started.start([run]) for run in runs}
        until = time.monotonic() + 60
        while started.running != [jobs[STOPPED]] and time.monotonic() < until:
            for job in started.finished():
                found[codes[job.runs[0].folder.path]] = job
            time.sleep(0.02)
        stopped = jobs[STOPPED]
        assert stopped.process.poll() is None
        assert stopped.seconds > 3 * STALLED
        assert not stopped.error
    return found


@pytest.mark.slow
def test_what_shows_no_progress_is_ended_with_its_stacks(ended):
    assert ended.keys() == {WORKS, HANGS, COMPUTES}
    outcomes = {code: pool.outcome(job, job.runs[0]) for code, job in ended.items()}
    assert outcomes[WORKS] == pool.Outcome("done")
    job = ended[HANGS]
    line = outcomes[HANGS].error
    assert line.startswith("no progress for ")
    assert line.endswith(f", translating: ended; its stacks are in {job.log}")
    assert job.runs[0].folder.read("error")["error"] == line
    assert "in scoring_for_ever" in job.log.read_text()
    assert "in _beat" in job.log.read_text()  # of every thread
    assert outcomes[COMPUTES].error.startswith("no progress for ")
    assert ended[HANGS].seconds < ended[COMPUTES].seconds
    assert ended[COMPUTES].seconds >= watchdog.LONGER * STALLED
    child = int(next(line for line in job.log.read_text().splitlines() if line.isdigit()))
    deadline = time.monotonic() + 20
    while watchdog._usage(child)[0] not in ("", "Z"):  # in a session of its own, too
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_launcher_is_watched_too():
    code = (
        "import time\nfrom launch.watchdog import watched\nfrom tx.runtime import liveness\n"
        "with watched('waiting', 0.5):\n"
        "    for _ in range(10):\n        time.sleep(0.1)\n        liveness.show_progress()\n"
        "print('on', flush=True)\n"
        "with watched('preparing text', 0.5):\n    time.sleep(600)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "on\n")
    *stacks, line = done.stderr.splitlines()
    assert line.startswith("error: no progress for ")
    assert line.endswith("while preparing text; ended here, the same command goes on")
    assert any('File "<string>", line 10' in text for text in stacks)


def test_who_tries_the_largest_run_is_watched(monkeypatch):
    monkeypatch.setattr(watchdog, "GRACE", 0.0)
    hangs = [sys.executable, "-c", "import time; time.sleep(600)"]
    status, said = preparation._try(hangs, 0.5)
    assert status == -signal.SIGUSR1
    assert said.startswith("no progress for ")
    assert preparation._try([sys.executable, "-c", "print('fine')"], 60.0)[0] == 0
    assert preparation._try([sys.executable, "-c", "import sys; sys.exit('error: no')"], 60.0) == (1, "no")
    latin = "import sys; sys.stdout.buffer.write('error: caf\u00e9'.encode('latin-1')); sys.exit(1)"
    assert preparation._try([sys.executable, "-c", latin], 60.0) == (1, "caf\ufffd")


def test_a_holder_that_makes_no_progress_says_so(tmp_path, monkeypatch):
    with lease.Lease(tmp_path) as held:
        held.set_status("translating")
        sign = tmp_path / lease.LEASE / liveness.NAME
        assert lease.holder(tmp_path).quiet < lease.QUIET
        assert "no progress" not in str(lease.holder(tmp_path))
        then = time.time() - 1200
        sign.touch()
        os.utime(sign, (then, then))
        assert "no progress" not in str(lease.holder(tmp_path))  # the sign is of an earlier process
        held._record["since"] = then - 1
        held._write()
        assert str(lease.holder(tmp_path)).endswith("(translating, no progress for 20 minutes)")
    monkeypatch.setattr(liveness, "_written", 0.0)
    sign.unlink()
    liveness.show_progress()
    assert not sign.exists()  # who has released it leaves no signs


def test_signs_are_few_and_never_raise(tmp_path, monkeypatch):
    monkeypatch.setattr(liveness, "_written", 0.0)
    with liveness.shown_in(tmp_path / "gone"), liveness.shown_in(tmp_path):
        liveness.show_progress()
        (tmp_path / liveness.NAME).unlink()
        liveness.show_progress()  # too soon after the one before
    assert not (tmp_path / liveness.NAME).exists()
    assert time.monotonic() - liveness.last_progress() < 10


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_a_time_of_nothing_is_refused(capsys, tmp_path, minutes):
    fails(
        lambda: local.main(["table3/base@smoke", f"--workdir={tmp_path}", f"--stalled={minutes}"]),
        capsys,
        "--stalled must be above 0 minutes",
    )


def test_minutes_are_for_people():
    assert [watchdog.describe_minutes(seconds) for seconds in (60, 1800, 1801, 90)] == [
        "1 minute",
        "30 minutes",
        "30 minutes",
        "1.5 minutes",
    ]

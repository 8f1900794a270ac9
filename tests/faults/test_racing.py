"""Two launches on one folder, of which one is killed: every run is done once."""

import json
import signal
import subprocess
import time

import pytest
import sweep

from tx.runs import lease
from tx.runs.run_dir import RunDir

ROWS = ("base", "A/h=1", "A/h=4", "A/h=16", "D/P_drop=0.2")


def has_a_run(launch, run):
    """Whether a process that the launch has started holds a run's lease."""
    held = lease.holder(run.path) if run.path.exists() else None
    asked = ["ps", "-o", "ppid=", "-p", str(held.pid)] if held else ["true"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip() == str(launch.pid)


@pytest.mark.slow
def test_launches_side_by_side_share_the_runs_and_take_over_from_the_dead(tmp_path):
    log = tmp_path / "done.txt"
    arguments = [*sweep.arguments(tmp_path / "work", *ROWS, train__steps=24), "--jobs=2"]
    runs = [RunDir(tmp_path / "work" / "table3@smoke" / row / "seed1") for row in ROWS]
    launches, deadline = [], time.monotonic() + 240
    try:
        for _ in range(2):  # each has a run before the next starts, or one could make them all before the other looks
            launches.append(sweep.started("launch", *arguments, FAULT_LOG=str(log)))
            while not any(has_a_run(launches[-1], run) for run in runs):
                assert time.monotonic() < deadline
                assert launches[-1].poll() is None
                time.sleep(0.01)
        while not log.exists():  # the first run is done
            assert time.monotonic() < deadline
            assert None in [launch.poll() for launch in launches]
            time.sleep(0.01)
        launches[0].send_signal(signal.SIGKILL)
        out, _ = launches[1].communicate(timeout=240)
    finally:
        for launch in launches:
            launch.kill()
            launch.communicate()
    assert launches[1].returncode == 0, out
    assert sorted(log.read_text().splitlines()) == sorted(f"table3/{row}@smoke seed 1" for row in ROWS), out
    assert all(run.result.exists() and not run.error.exists() for run in runs)
    assert not any(lease.holder(run.path) for run in runs)
    assert "by another launch" in out or "waits  " in out, out
    # Whoever goes on with a run has a lease of its own.
    made = [len(list((run.path / lease.LEASE).glob("[1-9]*"))) for run in runs]
    assert all(1 <= number <= 3 for number in made), made
    newest = [run.path / lease.LEASE / str(number) for run, number in zip(runs, made, strict=True)]
    assert all(json.loads(path.read_text())["released"] for path in newest)

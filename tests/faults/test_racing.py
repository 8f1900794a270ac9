"""Two launches on one folder, of which one is killed: every run is done once."""

import json
import signal
import time

import pytest
import sweep

from tx.runs import lease
from tx.runs.run_dir import RunDir

ROWS = ("base", "A/h=1", "A/h=4", "A/h=16", "D/P_drop=0.2")


@pytest.mark.slow
def test_launches_side_by_side_share_the_runs_and_take_over_from_the_dead(tmp_path):
    log = tmp_path / "done.txt"
    arguments = [*sweep.arguments(tmp_path / "work", *ROWS, train__steps=24), "--jobs=2"]
    runs = [RunDir(tmp_path / "work" / "table3@smoke" / row / "seed1") for row in ROWS]
    launches = [sweep.started("launch", *arguments, FAULT_LOG=str(log)) for _ in range(2)]
    try:
        deadline = time.monotonic() + 240
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

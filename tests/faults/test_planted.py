"""Faults planted in one variant of a sweep: it fails with its cause on file, and the others are done."""

import json

import handful
import pytest
import sweep

from tx.runs.run_dir import RunDir

pytestmark = pytest.mark.slow

ROWS = ("base", "D/P_drop=0.2", "E")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep in which one row raises and one meets NaN; its folder, exit status and output."""
    folder = tmp_path_factory.mktemp("planted")
    process = sweep.started(
        "launch",
        *sweep.arguments(folder, *ROWS),
        "--retries=1",
        FAULT_RAISE="table3/D/P_drop=0.2@smoke",
        FAULT_POISON="table3/E@smoke",
    )
    out, _ = process.communicate(timeout=300)
    return folder / "table3@smoke", process.returncode, out


def test_the_others_go_on_and_the_exit_status_tells(swept):
    folder, status, out = swept
    assert status == 1, out
    assert [RunDir(folder / row / "seed1").result.exists() for row in ROWS] == [True, False, False]
    assert "1 done, 2 failed, 0 done before" in out
    assert out.count("again  ") == 2


def test_an_exception_is_on_file_with_its_traceback(swept):
    error = RunDir(swept[0] / ROWS[1] / "seed1").read("error")
    assert error["error"] == "ZeroDivisionError: planted"
    assert 'raise ZeroDivisionError("planted")' in error["traceback"]


def test_a_nan_is_on_file_with_the_sentences_that_it_came_with(swept):
    run = RunDir(swept[0] / ROWS[2] / "seed1")
    error = run.read("error")
    assert error["error"].startswith(f"Diverged: the loss is nan at step {error['step']}, the gradient not finite in ")
    pairs = {tuple(pair) for pair in error["sentences"]}
    assert ("good morning", "guten Morgen") in pairs
    assert pairs <= set(handful.TRAIN)
    assert "nan" in error["gradient_norms"].values()
    assert json.dumps(error)

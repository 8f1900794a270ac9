"""What state a run is in: one answer, for a launch, for --status and for reports."""

import json

import pytest
from fabricated import put

from tx.errors import Diverged
from tx.files import to_json
from tx.runs import lease, state
from tx.runs.run_dir import RunDir
from tx.runs.state import RunState


def unchanged(_):
    return ""


@pytest.fixture
def done(tmp_path):
    return RunDir(put(tmp_path, "table3/base@smoke", 1))


def begun(done, **changes):
    """The folder of a run that was begun, and has no result."""
    head = done.read("result") | changes
    done.config.write_text(to_json(head))
    done.result.unlink()
    return done


def test_a_run_goes_from_pending_to_done(done, tmp_path):
    assert state.of(RunDir(tmp_path / "nowhere"), unchanged) == RunState("pending")
    found = state.of(done, unchanged)
    assert (found.name, found.reason, found.finished) == ("done", "", True)
    run = begun(done)
    assert (state.of(run, unchanged).name, state.of_files(run).name) == ("interrupted", "interrupted")
    with lease.Lease(run.path):
        assert state.of(run, unchanged).name == "running"
        assert state.of_files(run).name == "interrupted"
    run.error.write_text(json.dumps({"error": "two\nlines"}))
    assert (state.of(run, unchanged).name, state.of(run, unchanged).reason) == ("failed", "two lines")


def test_other_code_makes_stale_what_has_not_failed(done):
    changed = done.read("result") | {"numerics": "0123456789ab"}
    done.result.write_text(to_json(changed))
    found = state.of(done, unchanged)
    assert (found.name, found.finished, found.clash, found.numerics) == ("stale", True, False, "0123456789ab")
    assert found.reason.startswith("other code made it: the fingerprint was 0123456789ab, is now ")
    assert state.read(done)[0].name == "done"
    run = begun(done)
    assert (state.of(run, unchanged).name, state.of(run, unchanged).finished) == ("stale", False)
    run.error.write_text(json.dumps({"error": "no loss"}))
    assert state.of(run, unchanged).name == "failed"


def test_another_configuration_comes_before_all_else(done):
    def changes(config):
        return f"train.steps was {config['train']['steps']}"

    for run in (done, begun(done)):
        found = state.of(run, changes)
        assert (found.name, found.clash, found.finished) == ("stale", True, run.result.exists())
        assert found.reason.startswith("train.steps was ")


def test_one_that_diverged_is_told_from_other_failures(done):
    run = begun(done)
    report = {"step": 3, "loss": "nan", "gradient_norms": {}, "checkpoint": None}
    for error, diverged in ((Diverged(report), True), (ValueError("Diverged: not"), False)):
        run.error.write_text(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        assert state.of_files(run).diverged == diverged


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": ""}'])
def test_an_error_that_is_damaged_is_a_failure_too(done, text):
    run = begun(done)
    run.error.write_text(text)
    assert state.read(run) == (RunState("failed", "error.json is damaged"), None)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_result_has_failed_for_a_launch_as_for_a_report(done, text):
    done.result.write_text(text)
    found, result = state.read(done)
    assert (found.name, found.finished, found.damaged, result) == ("failed", True, True, None)
    assert "result.json is damaged (not JSON of a run)" in found.reason
    assert state.of(done, unchanged) == found

"""One run's trouble stays its own: what goes wrong with a run, its folder or its process ends no other."""

import os
import signal
import sys
import textwrap

import pytest
from test_launch import planned

from launch import compilation_cache, local, pool, resources, worker
from tx.errors import last_error
from tx.runs.run_dir import RunDir
from tx.runtime.signals import PARENT, Interrupted, Interruption, taken

# A trainer that imports nothing, and does what the row's name stands for.
TROUBLE = textwrap.dedent(
    """
    import os, pathlib, shutil, sys

    run = pathlib.Path(sys.argv[1])
    row = "/".join(run.parent.parts[-2:])
    pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"], f"{run.parent.name}-cache").write_text("program")
    if row == "A/h=1":
        (run / "error.json").write_text('{"error": ')
        sys.exit(1)
    if row == "A/h=4":
        shutil.rmtree(run)
        sys.exit("error: nowhere to write")
    if row == "A/h=16":
        os.kill(os.getpid(), 40)
    if row == "B/d_k=16":
        print("error: no such text")
        sys.exit("WARNING: a library has the last word")
    (run / "metrics.jsonl").mkdir()
    (run / "result.json").write_text("{}")
    if row == "B/d_k=32":
        os.kill(os.getpid(), 9)
    """
)
FAILED = {
    "A/h=1": "error.json is damaged",
    "A/h=4": "exit status 1",
    "A/h=16": "killed by signal 40",
    "A/h=32": "cannot start in ",
    "B/d_k=16": "no such text",
}
DONE = ("base", "B/d_k=32")


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Launches rows of Table 3 with a trainer of this text, and returns the exit status."""
    monkeypatch.setattr(worker, "POLL", 0.01)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    script = tmp_path / "trainer.py"

    def started(text, *arguments):
        script.write_text(text)
        return local.main(
            [f"--workdir={tmp_path / 'work'}", *arguments],
            command=lambda runs: [sys.executable, str(script), *(str(run.folder.path) for run in runs)],
            prepare=lambda runs: None,
            report=lambda folders: None,
        )

    return started


@pytest.mark.parametrize("retries", [0, 1])
def test_every_run_has_its_own_end(tmp_path, launch, capsys, retries):
    sweep = tmp_path / "work" / "table3@smoke"
    (sweep / "A" / "h=32" / "seed1" / "error.json").mkdir(parents=True)
    (tmp_path / "work" / ".jax_cache" / compilation_cache.NAME / "full").mkdir(parents=True)  # it cannot be replaced
    rows = [f"table3/{row}@smoke" for row in (*FAILED, *DONE)]
    assert launch(TROUBLE, *rows, f"--retries={retries}", "--jobs=2") == 1
    out = capsys.readouterr().out.splitlines()
    assert f"{len(DONE)} done, {len(FAILED)} failed, 0 done before" in out
    for row, why in FAILED.items():
        told = [line for line in out if f"table3/{row}@smoke seed 1" in line and line.startswith(("again", "FAILED"))]
        assert len(told) == 1 + retries
        assert all(why in line for line in told), told
    for row in DONE:
        assert RunDir(sweep / row / "seed1").result.exists()
        assert not RunDir(sweep / row / "seed1").error.exists()


def test_the_compilation_cache_is_optional(tmp_path, launch, capsys):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".jax_cache").write_text("no folder")
    trainer = textwrap.dedent(
        """
        import os, pathlib, sys
        assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
        pathlib.Path(sys.argv[1], "result.json").write_text("{}")
        """
    )
    assert launch(trainer, "table3/base@smoke") == 0
    assert f"note: cannot write to {tmp_path / 'work' / '.jax_cache'}: File exists" in capsys.readouterr().out


def test_what_was_said_before_a_process_is_not_its_own(tmp_path):
    (run,) = planned("table3/base@smoke", f"--workdir={tmp_path}")
    run.folder.create()
    pool.log_path(run).write_text("error: of yesterday\n")
    with pool.Pool(1, lambda runs: [sys.executable, "-c", "print('today')"], {}) as started:
        job = started.start([run])
        job.process.wait()
        assert job.lines() == ["today"]
        pool.log_path(run).unlink()
        assert job.lines() == []


def test_a_process_that_cannot_start_gives_its_slot_back(tmp_path):
    (run,) = planned("table3/base@smoke", f"--workdir={tmp_path}")
    with pool.Pool(1, lambda runs: ["/no/such/program"], {}) as started:
        assert started.start([run]).process is None
        assert started.free == []
        (job,) = started.finished()
        assert started.free == resources.slots(1)
    assert pool.outcome(job, run) == pool.Outcome(
        "failed", "cannot start in /no/such/program: No such file or directory"
    )
    assert not run.folder.config.exists()


def test_the_last_error_is_not_the_last_line():
    assert last_error(["error: one", "error: two", "note: three", ""]) == "two"
    assert last_error(["one", "two ", " "]) == "two"
    assert last_error(["", ""]) == last_error([]) == ""


@pytest.fixture
def ignored(request):
    """Ignores a signal for a while."""
    before = signal.signal(request.param, signal.SIG_IGN)
    yield request.param
    signal.signal(request.param, before)


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT], indirect=True)
def test_a_signal_that_was_ignored_at_the_start_of_a_launch_stays_ignored(ignored):
    with local.interruptible():
        signal.raise_signal(ignored)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(ignored)
    assert signal.getsignal(ignored) == signal.SIG_IGN
    assert ignored not in taken(ignored, signal.SIGTERM)


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGTERM], indirect=True)
def test_a_run_ignores_it_too_but_for_what_its_launcher_asks(ignored, monkeypatch):
    with Interruption():
        signal.raise_signal(ignored)
    monkeypatch.setenv(PARENT, str(os.getppid()))
    with pytest.raises(Interrupted, match="SIGTERM"), Interruption():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(ignored) == signal.SIG_IGN

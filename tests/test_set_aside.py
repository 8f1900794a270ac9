"""Runs that are made anew: what was there is set aside as a whole, when nothing else is in the way, with a word."""

import pathlib
import textwrap

import pytest
from test_launch import Launcher, hold, planned

from launch import local, preparation, worker
from tx.errors import UserError
from tx.files import to_json
from tx.runs.run_dir import RunDir

FILES = ("config.json", "metrics.jsonl", "result.json", "checkpoints", "tensorboard")


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "POLL", 0.01)
    made = Launcher(tmp_path)
    monkeypatch.setenv("FAKE_LOG", str(made.log))
    return made


def put(path):
    """The folder of a run with all FILES, a log and a lease."""
    for name in ("checkpoints/20", "tensorboard", "lease"):
        (path / name).mkdir(parents=True)
    for name in ("config.json", "metrics.jsonl", "result.json", "log.txt", "lease/1", "checkpoints/20/params"):
        (path / name).write_text(name)
    return RunDir(path)


class Killed(BaseException):
    """The end of the process."""


@pytest.mark.parametrize("moves", range(len(FILES) + 2))
def test_a_run_is_in_one_folder_wherever_it_is_killed(tmp_path, monkeypatch, moves):
    run, rename, left = put(tmp_path / "seed1"), pathlib.Path.rename, [moves]

    def cut_off(path, target):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", cut_off)
        try:
            run.set_aside("0123")
        except Killed:
            assert moves < len(FILES) + 1
        else:
            assert moves == len(FILES) + 1
    assert not run.result.exists() or moves == 0
    run.finish_setting_aside()
    assert sorted(path.name for path in run.path.iterdir()) == ["lease", "log.txt", "stale"]
    assert [path.name for path in (run.path / "stale").iterdir()] == ["0123"]
    assert sorted(path.name for path in (run.path / "stale" / "0123").iterdir()) == sorted(FILES)
    run.finish_setting_aside()  # nothing is left to do
    run.config.write_text("another run's")
    assert run.set_aside("0123").name == "0123.2"
    assert [path.name for path in (run.path / "stale" / "0123.2").iterdir()] == ["config.json"]


def test_who_hands_a_run_over_goes_on_with_it_first(tmp_path):
    (run,) = planned("table3/base@smoke", f"--workdir={tmp_path}")
    put(run.folder.path)
    (run.folder.path / "stale" / ".part.0123").mkdir(parents=True)
    run.hand_over()
    assert (run.folder.path / "stale" / "0123" / "result.json").read_text() == "result.json"
    assert run.folder.read("config")["config"] == run.config.to_dict()


@pytest.fixture
def stale(launcher):
    """A run that is done, by other code; its folder and result."""
    assert launcher("table3/base@smoke") == 0
    folder = RunDir(launcher.workdir / "table3@smoke" / "base" / "seed1")
    other = folder.read("result") | {"numerics": "0123456789ab"}
    folder.result.write_text(to_json(other))
    return folder, other


def test_nothing_is_set_aside_before_all_is_prepared(launcher, stale, capsys):
    folder, other = stale

    def prepare(runs):
        assert [run.label for run in runs] == ["table3/base@smoke seed 1"]
        raise UserError("the text is gone")

    with pytest.raises(SystemExit):
        local.main(["table3/base@smoke", f"--workdir={launcher.workdir}", "--rerun_stale"], prepare=prepare)
    assert "the text is gone" in capsys.readouterr().err
    assert folder.read("result") == other
    assert not (folder.path / "stale").exists()
    assert launcher("table3/base@smoke", "--rerun_stale") == 0
    assert RunDir(folder.path / "stale" / "0123456789ab").read("result") == other
    assert "anew   table3/base@smoke seed 1: other code made it" in capsys.readouterr().out


def test_what_another_process_holds_is_left_to_it(launcher, stale, capsys):
    folder, other = stale
    process = hold(folder.path)
    assert launcher("table3/base@smoke", "--rerun_stale") == 0
    process.communicate()
    assert folder.read("result") == other
    assert "is held by process" in capsys.readouterr().out
    assert len(launcher.ran()) == 1


def test_what_another_launch_has_made_anew_meanwhile_stays(launcher, stale, capsys):
    folder, other = stale
    (before,) = planned("table3/base@smoke", f"--workdir={launcher.workdir}")
    assert before.state.name == "stale"
    now = {name: value for name, value in other.items() if name != "numerics"}
    folder.result.write_text(to_json(now))
    preparation._set_aside([before], None)
    assert folder.read("result") == now
    assert not (folder.path / "stale").exists()


def test_what_a_process_notes_is_said_on_the_terminal_once(launcher, capsys):
    launcher.script.write_text(
        textwrap.dedent(
            """
            import pathlib, sys
            print("note: other code has begun this run: begun anew; see there", flush=True)
            print("step 1  loss 7", flush=True)
            print("note: other code has begun this run: begun anew; see there", flush=True)
            print("warning: checkpoint 20 is damaged", file=sys.stderr)
            pathlib.Path(sys.argv[1], "result.json").write_text("{}")
            print("note: half a line", end="")
            """
        )
    )
    assert launcher("table3/base@smoke") == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note ")]
    assert told == [
        "note   table3/base@smoke seed 1: other code has begun this run: begun anew; see there",
        "note   table3/base@smoke seed 1: checkpoint 20 is damaged",
    ]

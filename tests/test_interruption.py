"""Being asked to end: the step under way is saved, and a run that goes on ends as one that was never stopped."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import handful
import pytest
import tiny
from saved import restored
from test_parallel import started

from tx.runs.checkpoints import Checkpoints
from tx.runs.metrics_log import read_metrics
from tx.runs.run_dir import RunDir
from tx.runtime.signals import PARENT, STATUS, Interrupted, Interruption, launcher_watched
from tx.training import experiment, loop
from tx.training.run_group import RunGroup
from tx.training.step import TrainState
from tx.training.training_run import TrainingRun

SETTINGS = {
    "model__vocab_size": handful.VOCAB_SIZE,
    "model__num_layers": 1,
    "data__batch_rows": 2,
    "train__steps": 40,
    "train__log_every": 8,
    "train__eval_every": 10,
    "train__checkpoint_every": 20,
    "decode__splits": "validation",
    "decode__extra_length": 1,
}


def test_outside_of_a_step_a_signal_ends_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"), Interruption():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_while_held_a_signal_waits():
    with Interruption() as interruption:
        with interruption.held():
            signal.raise_signal(signal.SIGINT)
            assert interruption.asked
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)


def test_a_process_asks_itself_to_end_when_its_launcher_is_gone(monkeypatch):
    monkeypatch.setenv(PARENT, str(os.getppid()))
    with Interruption() as interruption, interruption.held():
        with launcher_watched():
            assert not interruption.asked
        monkeypatch.setenv(PARENT, "1")
        with launcher_watched():
            deadline = time.monotonic() + 60
            while not interruption.asked:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_the_step_under_way_is_saved(tmp_path, monkeypatch):
    """Between two steps, where no checkpoint is due."""
    config, run = tiny.config(**SETTINGS), RunDir(tmp_path)
    counted = itertools.count(1)

    def step(state, batch):
        if next(counted) == 7:
            signal.raise_signal(signal.SIGTERM)
        return TrainState(state.step + 1, state.params, state.opt_state), tiny.metrics()

    monkeypatch.setattr(loop, "make_step_over_devices", lambda *_: step)
    member = TrainingRun(config, run, handful.prepared(copies=2))
    with Interruption() as interruption, pytest.raises(Interrupted, match="after step 7"):
        loop.train([member], interruption)
    progress = restored(run, config).progress
    assert progress["step"] == 7
    assert progress["tokens"]["target"] > 0


def test_a_further_signal_does_not_end_the_wait_for_what_is_saved(tmp_path, monkeypatch):
    config, run, close = tiny.config(**SETTINGS), RunDir(tmp_path), Checkpoints.close

    def step(state, batch):
        signal.raise_signal(signal.SIGTERM)
        return TrainState(state.step + 1, state.params, state.opt_state), tiny.metrics()

    def interrupted_close(self):
        signal.raise_signal(signal.SIGINT)
        close(self)

    monkeypatch.setattr(loop, "make_step_over_devices", lambda *_: step)
    monkeypatch.setattr(Checkpoints, "close", interrupted_close)
    with Interruption() as interruption:
        with pytest.raises(Interrupted, match="after step 1"):
            loop.train([TrainingRun(config, run, handful.prepared(copies=2))], interruption)
        with pytest.raises(Interrupted, match="SIGINT"):  # from then on it ends at once again
            signal.raise_signal(signal.SIGINT)
    monkeypatch.undo()
    assert [path.name for path in run.checkpoints.iterdir()] == ["1"]
    assert restored(run, config).progress["step"] == 1


@pytest.mark.parametrize("late", ["evaluation", "save"])
def test_asked_after_the_last_step_it_ends_too_and_the_next_start_trains_no_more(tmp_path, monkeypatch, late):
    config, data, save = tiny.config(**SETTINGS), handful.prepared(copies=2), RunGroup.save
    made, asking = [], True

    def step(state, batch):
        made.append(int(state.step) + 1)
        return TrainState(state.step + 1, state.params, state.opt_state), tiny.metrics()

    def ask(where):
        if asking and where == late and made[-1] == 40:
            signal.raise_signal(signal.SIGTERM)

    def evaluate(params):
        ask("evaluation")
        return [{"nll": 1.0, "ppl": 2.7, "tokens": 9}]

    def asked_save(self, end):
        save(self, end)
        ask("save")

    monkeypatch.setattr(loop, "make_step_over_devices", lambda *_: step)
    monkeypatch.setattr(loop, "make_eval", lambda *_: evaluate)
    monkeypatch.setattr(RunGroup, "save", asked_save)
    with Interruption() as interruption, pytest.raises(Interrupted, match="after step 40"):
        loop.train([TrainingRun(config, RunDir(tmp_path), data)], interruption)
    assert made == list(range(1, 41))
    asking = False
    with Interruption() as interruption:
        state, [summary] = loop.train([TrainingRun(config, RunDir(tmp_path), data)], interruption)
    assert len(made) == 40
    assert (int(state.step), summary["dev"]["last"]["step"]) == (40, 40)


@pytest.mark.parametrize(("stopped", "first"), [(7, 0), (23, 20), (24, 24)])
def test_other_steps_a_dispatch_go_on_from_a_step_that_leads_to_the_last(tmp_path, monkeypatch, capsys, stopped, first):
    run, data, each, seen = RunDir(tmp_path), handful.prepared(copies=2), 1, []

    def step(state, batch):
        seen.append(int(state.step) + each)
        if seen[-1] == stopped and each == 1:
            signal.raise_signal(signal.SIGTERM)
        return TrainState(state.step + each, state.params, state.opt_state), tiny.metrics()

    monkeypatch.setattr(loop, "make_step_over_devices", lambda *_: step)
    monkeypatch.setattr(loop, "make_eval", lambda *_: lambda params: [{"nll": 1.0, "ppl": 2.7, "tokens": 9}])
    with Interruption() as interruption, pytest.raises(Interrupted):
        loop.train([TrainingRun(tiny.config(**SETTINGS), run, data)], interruption)
    assert seen[-1] == stopped
    each, further = 4, SETTINGS | {"train__steps_per_dispatch": 4, "train__eval_every": 20}
    seen.clear()
    state, [summary] = loop.train([TrainingRun(tiny.config(**further), run, data)])
    assert seen == list(range(first + 4, 41, 4))
    assert (int(state.step), summary["dev"]["last"]["step"]) == (40, 40)
    told = f"note: step {stopped} is no multiple of train.steps_per_dispatch=4: training goes on from step {first}"
    assert (told in capsys.readouterr().out) == (stopped != first)


def test_one_that_is_asked_to_end_waits_for_no_translation(tmp_path, monkeypatch):
    config, data, over, ended = tiny.config(**SETTINGS), handful.prepared(copies=2), [], threading.Event()
    members = [TrainingRun(config, RunDir(tmp_path / name), data) for name in "ab"]

    def translate(member, *_, **__):
        if member is members[0]:
            time.sleep(0.5)  # until the main thread does nothing but wait
            os.kill(os.getpid(), signal.SIGTERM)
        ended.wait(20)
        over.append(member)

    monkeypatch.setattr(experiment, "_finish", translate)
    chosen = [experiment.Chosen({}, {})] * 2
    with Interruption(), pytest.raises(Interrupted):
        experiment.finish_all(members, [{}, {}], chosen, [{}, {}])
    assert over == []
    ended.set()


def test_no_thread_keeps_a_process_that_is_interrupted():
    code = "import threading\nfrom tx import train\n"
    code += "threading.Thread(target=threading.Event().wait).start()\nprint('said')\n"
    code += "train._end_interrupted(train.Interrupted('SIGTERM'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == STATUS
    assert (done.stdout, done.stderr) == ("said\n", "interrupted (SIGTERM): the same command goes on from here\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_interrupted_goes_on_to_the_same_end(tmp_path, number):
    file = tmp_path / "little.py"
    file.write_text(f"import tiny\n\n\ndef get_config():\n    return tiny.config(**{SETTINGS})\n")

    def start(name):
        return started("handful_train", f"--config={file}", f"--workdir={tmp_path / name}")

    def finish(process):
        _, error = process.communicate(timeout=240)
        return process.returncode, error

    straight = start("straight")
    assert finish(straight)[0] == 0
    process = start("stopped")
    for line in process.stdout:
        if line.startswith("step 8 "):
            break
    process.send_signal(number)
    status, error = finish(process)
    assert status == STATUS, error[-3000:]
    assert "interrupted (after step " in error
    stopped = RunDir(tmp_path / "stopped")
    assert not stopped.result.exists()
    assert not stopped.error.exists()
    steps = [line["step"] for line in read_metrics(stopped) if "loss" in line]
    assert steps == list(range(8, steps[-1] + 1, 8))
    assert 8 <= steps[-1] < 40
    assert finish(start("stopped"))[0] == 0
    one, other = (RunDir(tmp_path / name) for name in ("straight", "stopped"))
    for kept, again in zip(read_metrics(one), read_metrics(other), strict=True):
        assert kept | {"timing": 0} == again | {"timing": 0}
    results = [run.read("result") for run in (one, other)]
    for result in results:
        del result["timing"]
    assert results[0] == results[1]
    assert other.translations("validation").read_text() == one.translations("validation").read_text()

"""What a training loop does between steps: when, and in which order."""

import signal

import handful
import numpy as np
import pytest
import tiny

from tx.runs.run_dir import RunDir
from tx.runtime.signals import Interrupted, Interruption
from tx.training import loop
from tx.training.drawn import Drawn
from tx.training.hooks import Hook, StepEnd
from tx.training.loss_monitor import LossMonitor
from tx.training.run_group import Log
from tx.training.step import TrainState
from tx.training.training_run import TrainingRun


@pytest.mark.parametrize("when_asked", [False, True])
def test_a_hook_is_due_every_so_many_steps_at_the_last_and_perhaps_when_asked_to_end(when_asked):
    hook, state = Hook(lambda end: None, every=4, when_asked=when_asked), TrainState(0, {}, {})

    def due(asked):
        ends = [StepEnd(n, state, {}, Drawn({}, [], {}), last=n == 10, asked=asked) for n in range(1, 11)]
        return [end.step for end in ends if hook.due(end)]

    assert due(asked=False) == [4, 8, 10]
    assert due(asked=True) == (list(range(1, 11)) if when_asked else [4, 8, 10])


@pytest.fixture
def events(monkeypatch):
    """What is done, in order, in training that learns nothing and is asked to end in its third step."""
    done = []

    def noted(target, name, what):
        method = getattr(target, name)

        def call(self, *args, **kwargs):
            done.append(what(*args))
            return method(self, *args, **kwargs)

        monkeypatch.setattr(target, name, call)

    def step(state, batch):
        done.append("step")
        if done.count("step") == 3:
            signal.raise_signal(signal.SIGTERM)
        return TrainState(state.step + 1, state.params, state.opt_state), tiny.metrics()

    noted(LossMonitor, "observe", lambda *_: "observe")
    noted(Log, "write", lambda step, values, timing: "line" if "loss" in values else "dev")
    noted(TrainingRun, "save", lambda *_: "save")
    monkeypatch.setattr(loop, "make_step_over_devices", lambda *_: step)
    monkeypatch.setattr(loop, "make_eval", lambda *_: lambda params: [{"nll": 1.0, "ppl": np.e, "tokens": 9}])
    return done


@pytest.mark.parametrize(("every", "third"), [(1, ["line", "dev", "save"]), (2, ["save"])])
def test_a_line_then_dev_then_the_checkpoint_and_the_end_last(tmp_path, events, every, third):
    """Where all is due, and where nothing is but being asked to end."""
    settings = dict.fromkeys(("train__log_every", "train__eval_every", "train__checkpoint_every"), every)
    config = tiny.config(
        model__vocab_size=handful.VOCAB_SIZE, model__num_layers=1, data__batch_rows=2, train__steps=8, **settings
    )
    with Interruption() as interruption, pytest.raises(Interrupted, match="after step 3"):
        loop.train([TrainingRun(config, RunDir(tmp_path), handful.prepared(copies=2))], interruption)
    all_due = ["step", "observe", "line", "dev", "save"]
    first = all_due if every == 1 else ["step", "observe"]
    assert events == [*first, *all_due, "step", "observe", *third]

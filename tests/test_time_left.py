"""The time left of a launch, beside what a simulated one goes on to take."""

import argparse
import json
import random
import types

import pytest

from launch import plan, pool, resources, time_left
from launch.plan import selection
from tx.runs import metrics_log

RATE = 8e10  # FLOPs a second
STEP = 0.04  # seconds of a step, beside its FLOPs: at scale smoke about as long as those take
OTHERS = {"starts": 9.0, "translates": 6.0}
LOG = 25  # steps between lines


class Simulated:
    """Launch of runs on some slots, in a time of its own; every run takes what `seconds` says."""

    def __init__(self, monkeypatch, tmp_path, selector, *settings, slots):
        parser = argparse.ArgumentParser()
        selection.add_arguments(parser)
        arguments = [selector, f"--workdir={tmp_path}", *(f"--set={one}" for one in settings)]
        runs = plan.make(parser.parse_intermixed_args(arguments))
        self.runs = sorted(runs, key=lambda run: -run.flops)
        self.now, self.random = 0.0, random.Random(1)
        monkeypatch.setattr(time_left, "time", types.SimpleNamespace(time=lambda: 1e9 + self.now))
        for module in (time_left, pool):
            monkeypatch.setattr(module, "running_time", lambda: self.now)
        self.slots, self.waiting, self.running = slots, list(self.runs), []
        self.clock = time_left.Clock(self.runs)
        self.step_seconds = {run.label: self._step_seconds(run) for run in self.runs}

    def _step_seconds(self, run):
        return (STEP + run.flops / run.config.train.steps / RATE) * self.random.uniform(0.85, 1.15)

    def seconds(self, run):
        return sum(OTHERS.values()) + self.step_seconds[run.label] * run.config.train.steps

    def until(self, moment):
        """Goes on until a time, or the end."""
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.slots:
                job = pool.Job([self.waiting.pop(0)], resources.Slot(()), None, began=self.now)
                self.running.append(job)
                self.clock.started(job, len(self.running))
            first = min(self.running, key=lambda job: job.began + self.seconds(job.runs[0]))
            if first.began + self.seconds(first.runs[0]) > moment:
                break
            self.now = first.ended = first.began + self.seconds(first.runs[0])
            self._log(first)
            self.running.remove(first)
            self.clock.ended(first, first.runs[0], True)
        self.now = min(moment, max(self.now, moment if self.running else 0.0))
        for job in self.running:
            self._log(job)

    def _log(self, job):
        run, each = job.runs[0], self.step_seconds[job.runs[0].label]
        begun = job.began + OTHERS["starts"]
        last = min(int((self.now - begun) / each), run.config.train.steps)
        run.folder.path.mkdir(parents=True, exist_ok=True)
        steps = range(LOG, last + 1, LOG)
        lines = [{"step": step, "timing": {"time": 1e9 + begun + each * step}} for step in steps]
        run.folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("selector", "settings", "slots"),
    [
        ("table3@smoke", (), 2),
        ("table3@smoke", (), 8),
        ("table3@smoke", ("train.steps=4000",), 3),
        ("depth@smoke", (), 1),
    ],
)
def test_the_time_left_is_what_it_goes_on_to_take(monkeypatch, tmp_path, selector, settings, slots):
    whole = Simulated(monkeypatch, tmp_path / "whole", selector, *settings, slots=slots)
    whole.until(1e9)
    end = whole.now
    launch = Simulated(monkeypatch, tmp_path, selector, *settings, slots=slots)
    assert launch.clock.left([]) is None
    for part in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9):
        launch.until(part * end)
        left = launch.clock.left(launch.running)
        assert left.seconds <= 1.25 * (end - launch.now) + 5
        if not left.least:
            assert left.seconds >= 0.8 * (end - launch.now) - 5
    launch.until(1e9)
    assert launch.clock.left([]).seconds == 0


def test_until_a_run_is_over_the_time_left_is_the_least(monkeypatch, tmp_path):
    launch = Simulated(monkeypatch, tmp_path, "table3@smoke", slots=2)
    launch.until(OTHERS["starts"] - 1)
    assert launch.clock.left(launch.running) is None  # nobody has made a step
    launch.until(60.0)
    assert launch.clock.left(launch.running).least
    launch.until(1e9)
    assert not launch.clock.left([]).least


def test_a_run_that_goes_on_is_timed_by_the_steps_of_now(monkeypatch, tmp_path):
    launch = Simulated(monkeypatch, tmp_path, "table3/base@smoke", slots=1)
    (run,) = launch.runs
    launch.until(30.0)
    assert len(metrics_log.newest_lines(run.folder)) > 3
    launch.now = 5000.0  # it was interrupted, and goes on much later
    again = time_left.Clock([run])
    job = pool.Job([run], resources.Slot(()), None, began=launch.now)
    again.started(job, 1)
    before = metrics_log.newest(run.folder)["step"]
    assert again.left([job]) is None  # its lines are of another process
    each = launch.step_seconds[run.label]
    with run.folder.metrics.open("a") as log:
        for i in (1, 2, 3):
            line = {"step": before + i * LOG, "timing": {"time": 1e9 + launch.now + 9 + each * i * LOG}}
            log.write(json.dumps(line) + "\n")
    launch.now += 9 + each * 3 * LOG
    wanted = (run.config.train.steps - before - 3 * LOG) * each
    assert again.left([job]).seconds == pytest.approx(wanted, rel=0.05)

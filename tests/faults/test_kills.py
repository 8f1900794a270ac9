"""Processes killed at any moment, in a sweep that is launched again until it is done: it ends as one left in peace.

What was hit is read off what the killed process left: its lease says what it was doing, an unfinished folder that it
was saving. The moments are drawn from a seed; FAULTS_SEED sets another.
"""

import collections
import contextlib
import json
import os
import random
import signal
import time

import jax
import numpy as np
import pytest
import sweep
from saved import arrays, restored

from tx import config as config_lib
from tx.runs import lease
from tx.runs.metrics_log import read_metrics
from tx.runs.run_dir import RunDir

ROWS = ("base", "A/h=1")
PHASES = ("training", "saving", "evaluating", "translating")
WANTED = {"training": 8, "saving": 8, "evaluating": 6, "translating": 6, "launcher": 4}
SEED = int(os.environ.get("FAULTS_SEED", "1"))
PATIENCE = 400  # seconds for a sweep to end


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory):
    """The folder of a sweep that nothing disturbs."""
    folder = tmp_path_factory.mktemp("peaceful")
    process = sweep.started("launch", *sweep.arguments(folder, *ROWS))
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    return folder


class Killer:
    """Kills the processes of a sweep.

    Args:
      folder: the sweep's work folder.
      wanted: {phase: how many processes to kill in it}; "launcher" is the launching process itself, at any moment.

    Attributes:
      log: a line for each kill: what was seen before it, and what the process had left.
      hits: how many were found to have been in each phase.
    """

    def __init__(self, folder, wanted):
        self.folder, self.wanted = folder, collections.Counter(wanted)
        self.random, self.log, self.hits = random.Random(SEED), [], collections.Counter()
        self.runs = [RunDir(folder / "table3@smoke" / row / "seed1") for row in ROWS]

    def run(self):
        """Launches until the sweep is done; returns the output of the last launch."""
        deadline = time.monotonic() + PATIENCE
        while True:
            launcher = sweep.started("launch", *sweep.arguments(self.folder, *ROWS), "--retries=100")
            try:
                until = time.monotonic() + self.random.uniform(2, 12) if self.wanted["launcher"] else float("inf")
                while launcher.poll() is None and time.monotonic() < min(until, deadline):
                    self._strike()
                    time.sleep(self.random.uniform(0, 0.003))
                assert time.monotonic() < deadline, "\n".join(self.log)
                if launcher.poll() is None:
                    launcher.kill()
                    self.wanted["launcher"] -= 1
                    self.hits["launcher"] += 1
                    self.log.append("launcher")
                    continue
                return launcher.stdout.read()
            finally:
                launcher.kill()
                launcher.wait()
                launcher.stdout.close()

    def _strike(self):
        """Kills at most one process, if it does what is wanted just now."""
        for run in self.runs:
            record = newest(run)
            seen = phase(run, record) if record and not record["released"] else ""
            if self.wanted[seen] > 0 and self.random.random() < 0.5 and lease.holder(run.path):
                if seen == "training":
                    time.sleep(self.random.uniform(0, 0.5))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record["pid"], signal.SIGKILL)
                    self._note(run, seen, record)
                return

    def _note(self, run, seen, record):
        while lease.holder(run.path) and newest(run)["pid"] == record["pid"]:
            time.sleep(0.001)
        left = newest(run)
        if left["pid"] == record["pid"] and not left["released"]:
            hit = phase(run, left)
            self.hits[hit] += 1
            self.wanted[hit] -= 1
            self.log.append(f"{run.path.relative_to(self.folder)}: saw {seen}, hit {hit} ({left['doing']})")


def newest(run):
    """What the newest lease of a run says; None where there is none."""
    try:
        numbers = [int(name) for name in os.listdir(run.path / lease.LEASE) if name.isdigit()]
        return json.loads((run.path / lease.LEASE / str(max(numbers))).read_text())
    except (FileNotFoundError, ValueError):
        return None


def phase(run, record):
    """What a process is, or was, at."""
    if run.checkpoints.is_dir() and any("orbax-checkpoint-tmp" in name for name in os.listdir(run.checkpoints)):
        return "saving"
    return next((phase for phase in PHASES if record["doing"].startswith(phase)), "")


def same(one, two):
    """Asserts that two runs have left the same, clock readings aside."""
    results = [run.read("result") for run in (one, two)]
    for result in results:
        del result["timing"]
    assert results[0] == results[1]
    lines = [[line | {"timing": 0} for line in read_metrics(run)] for run in (one, two)]
    assert lines[0] == lines[1]
    assert one.translations("validation").read_bytes() == two.translations("validation").read_bytes()
    states = [final(run) for run in (one, two)]
    for first, second in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(first, second)
    assert events(one) == events(two)
    assert not [path for path in two.path.rglob("*tmp*") if path.parent.name != lease.LEASE]


def final(run):
    config = config_lib.get_config()
    config_lib.update(config, config_lib.fields(run.read("config")["config"]))
    return arrays(restored(run, config))


def events(run):
    """(name, step, value) of TensorBoard's scalars, clock readings aside."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    read = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"tensors": 0})
    read.Reload()
    return sorted(
        (name, event.step, float(make_ndarray(event.tensor_proto)))
        for name in read.Tags()["tensors"]
        if not name.endswith("tokens_per_s")
        for event in read.Tensors(name)
    )


@pytest.mark.slow
def test_a_sweep_whose_processes_are_killed_ends_as_one_left_in_peace(peaceful, tmp_path):
    killer = Killer(tmp_path, WANTED)
    out = killer.run()
    told = "\n".join([f"seed {SEED}", *killer.log, out])
    print(told)
    for kind, count in WANTED.items():
        assert killer.hits[kind] >= count, told
    for row in ROWS:
        same(*(RunDir(folder / "table3@smoke" / row / "seed1") for folder in (peaceful, tmp_path)))

"""`python -m experiments.bench seeds`: seeds of one configuration, stacked in one program and as runs of their own."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from ml_collections import ConfigDict

from experiments.bench.harness import rounds
from experiments.bench.harness.contestant import cores, variables
from experiments.bench.training import OURS
from tx import config as config_lib
from tx.errors import UserError
from tx.model.flops import parameter_count
from tx.runs.run_config import Request, hand_over
from tx.runs.run_dir import RunDir

ONE_BY_ONE = "tx, one by one"
TAIL = 2000  # characters of a log that an error shows


@dataclasses.dataclass(frozen=True)
class Way:
    """Way to make the runs of all seeds: `together` in a process, `processes` at a time, `threads` each."""

    together: int
    processes: int
    threads: int


def ways(seeds: int, threads: int, platform: str) -> dict[str, Way]:
    """Returns the ways that are compared; several processes on a CPU alone, since they would share a GPU."""
    compared = {OURS: Way(seeds, 1, threads), ONE_BY_ONE: Way(1, 1, threads)}
    if threads > 1 and platform == "cpu":
        compared[f"tx, {threads} processes of a thread"] = Way(1, threads, 1)
    return compared


def measure_seeds(
    config: ConfigDict, *, seeds: int, threads: int, turns: int, platform: str, alone: int | None = None
) -> dict:
    """Returns the result of `seeds`: whole runs an hour of every way, evaluation and translation included.

    What is compiled is compiled before: it lies in a persistent cache, as that of a sweep.

    Args:
      config: of any seed.
      seeds: how many runs.
      threads: of a way, over all its processes.
      turns: rounds.
      platform: "cpu" or "gpu".
      alone: how many of the runs are made where it is one by one; None for all.
    """
    cores(threads)
    compared, short = ways(seeds, threads, platform), {"train.steps": config.train.steps_per_dispatch}
    with tempfile.TemporaryDirectory() as folder:
        start = functools.partial(_run, config, pathlib.Path(folder), platform)
        counts = dict.fromkeys(compared, seeds) | {ONE_BY_ONE: alone or seeds}
        for label, way in compared.items():
            rounds.say(f"{label}: compiling")
            start(way, min(seeds, way.together * way.processes), short)
        each = {label: functools.partial(start, way, counts[label], {}) for label, way in compared.items()}
        measured = rounds.take_turns(each, turns)
    results = {
        label: {
            "settings": dataclasses.asdict(compared[label]) | {"runs": counts[label]},
            "rounds": taken,
            "median": rounds.medians(taken),
        }
        for label, taken in measured.items()
    }
    return {
        "kind": "seeds",
        "what": config.name,
        "config": config.to_dict(),
        "parameters": parameter_count(config.model),
        "seeds": seeds,
        "contestants": results,
        "ratios": {
            label: {"runs_per_hour": rounds.ratio(measured[OURS], taken, "runs_per_hour")}
            for label, taken in measured.items()
            if label != OURS
        },
    }


def _run(config, folder, platform, way, seeds, changed):
    """Makes the runs of so many seeds in one way; returns {"seconds", "runs_per_hour"}."""
    there = cores()
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        changed = changed | {"parallel.threads": way.threads}
        each = [_request(config, seed, pathlib.Path(runs, str(seed)), changed) for seed in range(1, seeds + 1)]
        waiting = [each[i : i + way.together] for i in range(0, seeds, way.together)]
        free, running, began = list(range(way.processes)), [], time.perf_counter()
        while waiting or running:
            while waiting and free:
                slot = free.pop()
                bound = there[slot * way.threads : (slot + 1) * way.threads]
                running.append((slot, _start(waiting.pop(0), bound, folder, platform, runs)))
            # Whichever ends first: a poll costs nothing beside a run.
            time.sleep(0.02)
            for slot, (process, log) in [one for one in running if one[1][0].poll() is not None]:
                if process.returncode:
                    raise UserError(f"a run broke off with status {process.returncode}: {log.read_text()[-TAIL:]}")
                running.remove((slot, (process, log)))
                free.append(slot)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "runs_per_hour": 3600 * seeds / seconds}


def _request(config, seed, folder, changed):
    """Makes a run's folder, with a config.json of these fields in place of the configuration's."""
    made = config_lib.get_config()
    config_lib.update(made, config_lib.fields(config) | {"train.seed": seed, **changed})
    run = RunDir(folder)
    run.create()
    hand_over(Request(made, run))
    return run


def _start(group, bound, folder, platform, runs):
    """Starts a process that makes a group of runs; returns it and its log."""
    log = pathlib.Path(tempfile.mkstemp(dir=runs)[1])
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        "JAX_ENABLE_COMPILATION_CACHE": "true",
    }
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "tx.train", *(str(run.path) for run in group)],
            stdout=stream,
            stderr=stream,
            env=os.environ | variables(len(bound), platform) | cache,
        )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, bound)
    return process, log

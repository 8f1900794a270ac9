"""Preparation of a launch: text, memory, folders and results that are made anew, before the first run starts.

What stands in the way of a run is found here, with one line, and nothing is left half begun.
"""

import argparse
import collections
import contextlib
import dataclasses
import math
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rich.console import Console

from launch import dispatch, grouping, plan, request
from launch.display import say
from launch.plan import PlannedRun
from launch.pool import Command, describe_signal, train_command
from launch.resources import default_jobs, devices_per_process, slots
from launch.text import with_text
from launch.tuning import Stage
from launch.watchdog import Watch, watched
from launch.worker import ALONE, POLL, Place
from tx.errors import UserError, last_error
from tx.model import flops
from tx.runs.lease import Lease
from tx.runs.run_dir import RunDir
from tx.runs.state import RunState

MEMORY_PER_RUN = 2 << 30  # bytes that a small run is given, so that processes side by side do not swap
TRIED = 1 << 30  # bytes of a training step, from which on it is tried whether there are so many
NAMED = 10  # stale runs of one reason that are named one by one


def prepare(runs: Sequence[PlannedRun]) -> None:
    """Prepares corpora, vocabularies and tokens that the runs share, once each.

    What is wrong with the text, or with a component's name, and a sentence longer than a model can take raise UserError
    here and not in every run.
    """
    from tx.data import tokenized  # slow to import, and not needed to plan
    from tx.decoding.limits import check_corpus
    from tx.evaluation.translation import split_names
    from tx.runtime import backend, environment
    from tx.training.checks import check_config

    environment.refuse_other_numbers()
    backend.refuse_missing()
    for run in runs:
        check_config(run.config)
    prepared = {}
    for config in (run.config for run in runs):
        key = config.data.to_json(), config.decode.splits, config.model.vocab_size
        if key not in prepared:
            prepared[key] = data = tokenized.prepare(config.data, config.model.vocab_size)
            for split in ("train", "validation", *split_names(config, data)):
                _ = data.splits[split]  # made when first asked for
        check_corpus(config, prepared[key], split_names(config, prepared[key]))


class Share(NamedTuple):
    """Share of this machine that each process of a launch gets; what `launch.resources.slots` takes.

    Attributes:
      jobs: how many processes at once.
      threads: the most in one.
      devices: GPUs of one, where there are any.
    """

    jobs: int
    threads: int
    devices: int


def share(groups: Sequence[Sequence[PlannedRun]], jobs: int | None) -> Share:
    """Returns the share of each process that makes one of some groups; UserError as `most_devices`.

    Args:
      jobs: how many processes at once, where that is asked for.
    """
    threads, devices = most_threads(groups), most_devices(groups)
    jobs = jobs or default_jobs(len(groups), max(map(memory, groups), default=0.0), threads, devices)
    return Share(jobs, threads, devices)


def most_threads(groups: Sequence[Sequence[PlannedRun]]) -> int:
    """Returns the most threads that a process computes with."""
    return max((run.config.parallel.threads for group in groups for run in group), default=1)


def most_devices(groups: Sequence[Sequence[PlannedRun]], there: int | None = None) -> int:
    """Returns how many GPUs each process gets; see `launch.resources.devices_per_process`, UserError too.

    What translates alone counts for one: it has no use for several.
    """
    trained = [run for group in groups for run in group if run.trained_in is None]
    return devices_per_process([run.config.parallel.devices for run in trained], there)


def check_memory(
    groups: Sequence[Sequence[PlannedRun]],
    command: Command = train_command,
    stalled: float = math.inf,
    jobs: int | None = None,
) -> None:
    """Runs the largest shapes of what is to be trained, where large; UserError where memory does not suffice.

    Likewise where that shows no progress for `stalled` seconds. What only translates is not tried: a batch of it is
    small beside a step. What is tried has the GPUs, and the part of their memory, that one of `jobs` processes has.
    """
    trained = [group for group in groups if group[0].trained_in is None]
    largest = max(trained, key=_bytes, default=None)
    if largest is None or _bytes(largest) < TRIED:
        return
    with tempfile.TemporaryDirectory() as apart:  # in the runs' own folders nothing has begun
        shapes = [dataclasses.replace(run, folder=RunDir(pathlib.Path(apart, str(i)))) for i, run in enumerate(largest)]
        for run in shapes:
            run.hand_over()
        argv = [*command(shapes), "--rehearse"]
        status, said = _try(argv, stalled, slots(*share(groups, jobs))[0].variables)
    if status:
        raise UserError(f"{largest[0].label}, the largest, cannot run here: {said}")


def _try(argv, stalled, variables: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Runs a command; returns its exit status and, where that is not 0, what went wrong, in one line."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    env = os.environ | (variables or {})
    text = {"encoding": "utf-8", "errors": "replace"}  # a library, or a path, may say anything
    with subprocess.Popen(argv, **pipes, **text, env=env, start_new_session=True) as process:
        watch = Watch(process, [], stalled)
        try:
            while process.returncode is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    said, _ = process.communicate(timeout=POLL)
                watch.look()
        except BaseException:
            process.kill()
            raise
    status = process.returncode
    ended = describe_signal(-status) if status < 0 else last_error(said.splitlines()) or f"exit status {status}"
    return status, watch.found or ended


def _bytes(group):
    return len(group) * flops.step_bytes(group[0].config)


def memory(group):
    """Returns the bytes that a job is given: a generous small-scale run's for each, or twice what the estimate says."""
    return max(len(group) * MEMORY_PER_RUN, 2 * _bytes(group))


def make_ready(
    stage: Stage,
    args: argparse.Namespace,
    console: Console,
    command: Command = train_command,
    prepare: Callable[[Sequence[PlannedRun]], None] = prepare,
    place: Place = ALONE,
    gpus: int | None = None,
) -> tuple[list[PlannedRun], list[list[PlannedRun]]]:
    """Prepares what the runs of a stage need and records what is asked for; returns all runs, and groups of what to do.

    Raises UserError where something stands in their way.

    Args:
      gpus: how many each worker has on another machine; None where the runs are made on this one.
    """
    runs = with_text(stage.plan())
    plan.refuse_clashes(runs)
    stale = [run for run in runs if _is_done_otherwise(run)]
    anew = {run.label for run in stale} if args.rerun_stale else set()
    asked = [dataclasses.replace(run, state=RunState("pending")) if run.label in anew else run for run in runs]
    groups = grouping.groups(asked, args.stack)
    if not args.rerun_stale:
        _say_stale(stale, console)
        _refuse_stale_parameters(groups, stale)
    if not place.pool:  # else what a run has is chosen, and refused, elsewhere
        most_devices(groups, gpus)  # UserError before anything is begun
    with contextlib.ExitStack() as new:
        for folder in (args.workdir, *dict.fromkeys(args.workdir / run.sweep for run in runs)):
            new.enter_context(_new_folder(folder))  # the tables are to lie there at the end
        if groups:
            with watched("preparing text", args.stalled * 60):
                prepare([run for group in groups for run in group])
            if not args.no_rehearsal:
                check_memory(groups, command, args.stalled * 60, args.jobs)
    if anew:  # now that nothing else is in the way
        _set_aside(stale, console)
        runs = with_text(stage.plan())
        groups = grouping.groups(runs, args.stack)
    if place.number is None:  # else who submitted it has
        request.remember(args, runs)
    stage.begun()
    if stage.title:
        say(console, f"{stage.title}: {len(runs)} runs")
    say_differences(runs, args, console)
    say_dispatch(groups, args, console)
    return runs, groups


def _is_done_otherwise(run):
    return run.state.finished and run.state.name != "done"


def _say_stale(runs, console) -> None:
    """Names the runs that are stale, or whose result is damaged, each in a line, or many of one reason in one."""
    alike = collections.defaultdict(list)
    for run in runs:
        alike[run.state.name, run.state.reason].append(run)
    for (name, reason), those in alike.items():
        if len(those) > NAMED:
            say(
                console,
                f"{name:<6} {len(those)} runs, {those[0].label} to {those[-1].label}: {reason}; "
                "--rerun_stale makes them anew, --status names each",
            )
            continue
        for run in those:
            say(console, f"{name:<6} {run.label}: {reason}; --rerun_stale makes it anew")


def _refuse_stale_parameters(groups, stale):
    """Raises UserError where a run that is to be made takes the parameters of a stale one: it would be of two codes."""
    trained = {run.folder.path: run for run in stale}
    those = [run for group in groups for run in group if run.trained_in and run.trained_in.path in trained]
    if those:
        first, more = those[0], len(those) - 1
        other = trained[first.trained_in.path]
        raise UserError(
            f"{first.label}{f' (and {more} more runs)' if more else ''} takes the parameters of {other.label}, which "
            f"{'has failed' if other.state.damaged else 'is stale'}: {other.state.reason}; launch with --rerun_stale, "
            "or choose another --workdir"
        )


def _set_aside(runs, console) -> None:
    """Sets results aside that are to be made anew; those that another process holds, or has made anew, are left."""
    known = {}
    for run in runs:
        try:
            with Lease(run.folder.path):
                (now,) = with_text([run.read_again()], known)
                if _is_done_otherwise(now):
                    aside = run.folder.set_aside(now.state.numerics)
                    say(console, f"anew   {run.label}: {now.state.reason}; what was made is kept in {aside}")
        except UserError as error:
            say(console, f"{run.state.name:<6} {run.label}: {error}; left as it is")


@contextlib.contextmanager
def _new_folder(path: pathlib.Path):
    """Makes a folder, and takes it back if the body fails; UserError where it cannot be written."""
    new = not path.exists()
    RunDir(path).create()
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):  # it is not empty any more
                path.rmdir()
        raise


def say_differences(runs: Sequence[PlannedRun], args: argparse.Namespace, console: Console) -> None:
    """Says where the points of a grid differ in size, and what evens them."""
    if args.grid and (note := request.differences(runs)):
        mend = "" if args.match or "parameters" not in note else "; --match=params lets d_ff take up the slack"
        say(console, note + mend)


def say_dispatch(groups: Sequence[Sequence[PlannedRun]], args: argparse.Namespace, console: Console) -> None:
    """Says how many updates an accelerator makes in one call, and how many runs side by side, where that was chosen."""
    if not args.accelerated:
        return
    largest = max(map(len, groups), default=1)
    if found := dispatch.describe(run.config for group in groups for run in group if run.trained_in is None):
        say(console, f"on an accelerator: updates in one call of it: {found}; --set {dispatch.FIELD}=1 makes one")
    if largest > 1 and args.stack == dispatch.CHOSEN:
        say(console, f"on an accelerator: up to {largest} runs side by side; --stack=1 makes them one by one")

"""Runs a sweep on this machine.

    python -m launch.local table3@smoke --workdir=DIR [--seeds=3] [--jobs=N] [--only='A/*,big'] [--dry_run]
        [--set train.steps=500] [--grid model.num_heads=1,2,4 --grid model.dropout=0,0.1] [--stack[=N]]
        [--grid model.num_heads,model.d_k=1:64,2:32,4:16 --match=params]
        [--tune optim.lr_factor=0.5,0.7,1,1.4,2]

What is done under the same configuration is skipped, what failed or was interrupted is run again, another
configuration in the same place is refused before anything starts. With --stack, runs that differ in nothing but
numbers (seeds, dropout rates, label smoothing, learning rate) train side by side in one process. With --tune, every
row is run at each value with seed 1, and then with fresh seeds at the one of the lowest dev loss.

Exit status: 0; 1 where a run failed; 2 for what the caller has to mend; 130 when interrupted (what was running is
ended, and goes on at the next launch).
"""

import argparse
import contextlib
import dataclasses
import functools
import math
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from rich.console import Console

from launch import compilation_cache, display, grouping, plan, power, request, status, tuning, worker
from launch.display import plan_table, say
from launch.plan import PlannedRun
from launch.pool import Command, Pool, describe_signal
from launch.resources import default_jobs
from launch.text import with_text
from launch.tuning import Stage
from launch.watchdog import Watch, watched
from launch.worker import ALONE, POLL, Place, Tally
from tx import cli, plugins
from tx.errors import UserError, last_error, one_line_errors
from tx.model import flops
from tx.runs import imports
from tx.runs.lease import Lease
from tx.runs.run_dir import RunDir
from tx.runs.state import RunState
from tx.runtime.signals import taken

MEMORY_PER_RUN = 2 << 30  # bytes that a small run is given, so that processes side by side do not swap
TRIED = 1 << 30  # bytes of a training step, from which on it is tried whether there are so many
RETRIES = 1
STALLED = 30.0  # minutes
INTERRUPTED = 130  # exit status of a launch that was (128 + SIGINT)


def train_command(runs: Sequence[PlannedRun]) -> list[str]:
    """Returns the command line of the process that makes runs side by side."""
    return [sys.executable, "-m", "tx.train", *plan.arguments(runs)]


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


def check_memory(
    groups: Sequence[Sequence[PlannedRun]], command: Command = train_command, stalled: float = math.inf
) -> None:
    """Runs the largest shapes of what is to run, where they are large; UserError where memory does not suffice.

    Likewise where that shows no progress for `stalled` seconds.
    """
    largest = max(groups, key=_bytes)
    if _bytes(largest) < TRIED:
        return
    with tempfile.TemporaryDirectory() as apart:  # in the runs' own folders nothing has begun
        shapes = [dataclasses.replace(run, folder=RunDir(pathlib.Path(apart, str(i)))) for i, run in enumerate(largest)]
        for run in shapes:
            run.hand_over()
        argv = [*command(shapes), "--rehearse"]
        status, said = _try(argv, stalled)
    if status:
        raise UserError(f"{largest[0].label}, the largest, cannot run here: {said}")


def _try(argv, stalled) -> tuple[int, str]:
    """Runs a command; returns its exit status and, where that is not 0, what went wrong, in one line."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(argv, **pipes, text=True, start_new_session=True) as process:
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


def _memory(group):
    """Returns the bytes that a job is given: a generous small-scale run's for each, or twice what the estimate says."""
    return max(len(group) * MEMORY_PER_RUN, 2 * _bytes(group))


def report(folders: Sequence[pathlib.Path]) -> None:
    """Prints the tables of some SWEEP@SCALE folders, and writes and names their pages.

    A page is to look at: that it cannot be made is said in a line, and fails nothing.
    """
    from experiments.report import tables, write  # slow to import, and not needed to plan

    write.report(folders, None, console := tables.console())
    try:
        from experiments.page import write as page

        for path in page.pages(folders):
            say(console, f"Page: {path}")
    except Exception as error:  # whatever it is, libraries included
        say(console, f"note: no page: {type(error).__name__}: {error}")


def launch(
    runs: Sequence[PlannedRun],
    groups: Sequence[Sequence[PlannedRun]],
    workdir: pathlib.Path,
    jobs: int | None,
    console: Console,
    command: Command = train_command,
    retries: int = RETRIES,
    stalled: float = math.inf,
    place: Place = ALONE,
) -> Tally:
    """Runs what is not done, and returns what became of it; see `launch.worker.work`.

    Args:
      workdir: where the runs' shared compilation cache lies.
      jobs: how many processes at once; None for `default_jobs`.
      command: the command line of a process.
      stalled: seconds without progress after which a process is ended.
    """
    threads = max((run.config.parallel.threads for group in groups for run in group), default=1)
    cache = workdir / compilation_cache.FOLDER
    if why := compilation_cache.why_unusable(cache):
        say(console, f"note: {why}: what one process has compiled, others compile again")
    defaults = {} if why else compilation_cache.variables(cache)
    if place.pool:
        pool = place.pool(jobs, command, defaults, threads, stalled)
    else:
        jobs = jobs or default_jobs(len(groups), max(map(_memory, groups), default=0.0), threads)
        pool = Pool(jobs, command, defaults, threads, stalled, place.grace)
    return worker.work(
        runs, groups, pool, console, retries, place, functools.partial(compilation_cache.write_checksums, cache)
    )


def _status_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(add_help=False)
    parser.add_argument(
        "--status",
        type=cli.path,
        metavar="DIR",
        help="print the state of every run in a work folder; start nothing",
    )
    return parser


def parser_of(
    prog: str = "python -m launch.local",
    description: str = "Runs a sweep on this machine.",
    parents: Sequence[argparse.ArgumentParser] = (),
) -> argparse.ArgumentParser:
    """Returns the parser of a launch's arguments, and those of `parents`, which an engine has besides."""
    parser = cli.Parser(prog=prog, description=description, parents=[_status_parser(), *parents])
    plan.add_arguments(parser)
    parser.add_argument("--jobs", type=int, metavar="N", help="processes at once (default: by cores and memory)")
    parser.add_argument(
        "--stack",
        type=_stack,
        nargs="?",
        const=None,
        default=1,
        metavar="N",
        help="train runs of one program side by side in one process, at most N (default: all of them)",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=RETRIES,
        metavar="N",
        help="how many times a run that fails is started again (default: %(default)s)",
    )
    parser.add_argument(
        "--stalled",
        type=float,
        default=STALLED,
        metavar="MINUTES",
        help="end a run, with its stacks in log.txt, that shows no progress for so long (default: %(default)g; "
        "inf: never); what computes meanwhile, as compiling does, is given four times as long",
    )
    parser.add_argument(
        "--rerun_stale", action="store_true", help="make anew what other code has made, or what is done on other text"
    )
    parser.add_argument(
        "--no_rehearsal",
        action="store_true",
        help="start at once; without it, the largest shapes are tried first where they are large, which compiles them",
    )
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="print the plan and start nothing")
    return parser


def _stack(text: str) -> int:
    try:
        if (most := int(text)) > 0:
            return most
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"takes a number from 1, or none where it stands last; got {text!r}")


@one_line_errors
def main(
    argv: Sequence[str] | None = None,
    *,
    command: Command = train_command,
    prepare: Callable[[Sequence[PlannedRun]], None] = prepare,
    report: Callable[[Sequence[pathlib.Path]], None] = report,
    place: Place = ALONE,
) -> int:
    """Plans, runs and reports; returns the exit status. All keywords but the last take training's place in tests.

    Args:
      place: of this launch among those that make the sweep.
    """
    console = display.console()
    argv = plugins.take(list(sys.argv[1:] if argv is None else argv))
    if show_status(argv, console):
        return 0
    args = checked(parser_of().parse_args(argv))
    stages = tuning.stages(args)
    if args.dry_run:
        show_plan(stages, args, console)
        return 0
    for line in plan.left_out(args):
        say(console, line)
    if place.since is None:
        place = place._replace(since=time.time())
    failed = left = 0
    folders = {}
    with _interruptible():
        try:
            for stage in stages:
                stays = place.stays or stage is not stages[-1]  # the next one goes by all of this one
                runs, tally = _carry_out(stage, args, console, command, prepare, place._replace(stays=stays))
                failed, left = failed + tally.failed, left + tally.left
                folders |= dict.fromkeys(args.workdir / run.sweep for run in runs)
            if not left:  # else who makes the last run has more to report
                with watched("making the tables", args.stalled * 60):
                    report(list(folders))
        except KeyboardInterrupt:
            console.print("interrupted: the same command goes on from here")
            return INTERRUPTED
    return 1 if failed else 0


def show_status(argv: Sequence[str], console: Console) -> bool:
    """Prints the state of every run where arguments ask for that with --status; returns whether they do."""
    if (found := _status_parser().parse_known_args(argv)[0].status) is None:
        return False
    imports.recall([found])
    status.show(found, console)
    return True


def checked(args: argparse.Namespace) -> argparse.Namespace:
    """Returns parsed arguments; UserError for a number that is none of its kind."""
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs must be at least 1; got {args.jobs}")
    if not args.stalled > 0:
        raise UserError(f"--stalled must be above 0 minutes; got {args.stalled:g}")
    if args.retries < 0:
        raise UserError(f"--retries must be at least 0; got {args.retries}")
    return args


def show_plan(stages: Sequence[Stage], args: argparse.Namespace, console: Console) -> None:
    """Prints what a launch would run; UserError where a folder holds another configuration."""
    for line in plan.left_out(args):
        say(console, line)
    runs = [run for stage in stages for run in _shown(stage, args, console)]
    plan.refuse_clashes(runs)
    for line in power.lines(runs, args.workdir):
        say(console, line)


def _shown(stage: Stage, args: argparse.Namespace, console: Console) -> list[PlannedRun]:
    """Prints the plan of a stage, with groups where runs train side by side, and returns its runs."""
    if stage.title:
        say(console, f"{stage.title}:")
    runs = with_text(stage.preview())
    console.print(plan_table(runs, grouping.groups(runs, args.stack) if args.stack != 1 else ()))
    _say_differences(runs, args, console)
    return runs


def _say_differences(runs: Sequence[PlannedRun], args: argparse.Namespace, console: Console) -> None:
    """Says where the points of a grid differ in size, and what evens them."""
    if args.grid and (note := request.differences(runs)):
        mend = "" if args.match or "parameters" not in note else "; --match=params lets d_ff take up the slack"
        say(console, note + mend)


def _carry_out(stage, args, console, command, prepare, place) -> tuple[list[PlannedRun], Tally]:
    """Makes the runs of a stage that are not done; returns all of them, and what became of them."""
    runs, groups = make_ready(stage, args, console, command, prepare, place)
    tally = launch(runs, groups, args.workdir, args.jobs, console, command, args.retries, args.stalled * 60, place)
    for line in stage.ended():
        say(console, line)
    return runs, tally


def make_ready(
    stage: Stage,
    args: argparse.Namespace,
    console: Console,
    command: Command = train_command,
    prepare: Callable[[Sequence[PlannedRun]], None] = prepare,
    place: Place = ALONE,
) -> tuple[list[PlannedRun], list[list[PlannedRun]]]:
    """Prepares what the runs of a stage need and records what is asked for; returns all runs, and groups of what to do.

    Raises UserError where something stands in their way.
    """
    planned = stage.plan()
    runs = with_text(planned)
    plan.refuse_clashes(runs)
    stale = [run for run in runs if _is_done_otherwise(run)] if args.rerun_stale else []
    for before, run in zip(planned, runs, strict=True):
        if run.state != before.state and not stale:
            say(console, f"stale  {run.label}: {run.state.reason}; --rerun_stale makes it anew")
    anew = {run.label for run in stale}
    asked = [dataclasses.replace(run, state=RunState("pending")) if run.label in anew else run for run in runs]
    groups = grouping.groups(asked, args.stack)
    with contextlib.ExitStack() as new:
        for folder in (args.workdir, *dict.fromkeys(args.workdir / run.sweep for run in runs)):
            new.enter_context(_new_folder(folder))  # the tables are to lie there at the end
        if groups:
            with watched("preparing text", args.stalled * 60):
                prepare([run for group in groups for run in group])
            if not args.no_rehearsal:
                check_memory(groups, command, args.stalled * 60)
    if stale:  # now that nothing else is in the way
        _set_aside(stale, console)
        runs = with_text(stage.plan())
        groups = grouping.groups(runs, args.stack)
    if place.number is None:  # else who submitted it has
        request.remember(args, runs)
    stage.begun()
    if stage.title:
        say(console, f"{stage.title}: {len(runs)} runs")
    _say_differences(runs, args, console)
    return runs, groups


def _is_done_otherwise(run):
    return run.state.name == "stale" and run.state.finished


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
            say(console, f"stale  {run.label}: {error}; left as it is")


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


@contextlib.contextmanager
def _interruptible():
    """Turns the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt.

    Later ones are ignored, so that they cannot cut the ending of the runs short. What was ignored before stays so:
    under nohup SIGHUP ends nothing.
    """
    before = taken(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(*_):
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())

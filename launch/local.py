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
import functools
import math
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console

from launch import command_line, compilation_cache, display, grouping, plan, power, status, tuning, worker
from launch.display import plan_table, say
from launch.plan import PlannedRun, selection
from launch.pool import Command, Pool, train_command
from launch.preparation import make_ready, most_threads, prepare, say_differences, say_dispatch, share
from launch.text import with_text
from launch.tuning import Stage
from launch.watchdog import watched
from launch.worker import ALONE, Place, Tally
from tx import plugins
from tx.errors import INTERRUPTED_STATUS, UserError, one_line_errors
from tx.runs import imports
from tx.runtime import backend
from tx.runtime.signals import taken


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
    retries: int = command_line.RETRIES,
    stalled: float = math.inf,
    place: Place = ALONE,
) -> Tally:
    """Runs what is not done, and returns what became of it; see `launch.worker.work`.

    Args:
      workdir: where the runs' shared compilation cache lies.
      jobs: how many processes at once; None for what `launch.preparation.share` chooses.
      command: the command line of a process.
      stalled: seconds without progress after which a process is ended.
    """
    cache = workdir / compilation_cache.FOLDER
    if why := compilation_cache.why_unusable(cache):
        say(console, f"note: {why}: what one process has compiled, others compile again")
    defaults = {} if why else compilation_cache.variables(cache)
    if place.pool:
        pool = place.pool(jobs, command, defaults, most_threads(groups), stalled)
    else:
        jobs, threads, devices = share(groups, jobs)
        pool = Pool(jobs, command, defaults, threads, stalled, place.grace, devices)
    return worker.work(
        runs, groups, pool, console, retries, place, functools.partial(compilation_cache.write_checksums, cache)
    )


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
    accelerated = not backend.computes_on_cpu() if place.accelerated is None else place.accelerated
    args = command_line.parser_of().parse_args(argv)
    command_line.check(args, accelerated, alone=place.number is None and not place.pool)
    stages = tuning.stages(args)
    if args.dry_run:
        show_plan(stages, args, console)
        return 0
    for line in selection.left_out(args):
        say(console, line)
    if place.since is None:
        place = place._replace(since=time.time())
    failed = left = 0
    folders = {}
    with interruptible():
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
            return INTERRUPTED_STATUS
    return 1 if failed else 0


def show_status(argv: Sequence[str], console: Console) -> bool:
    """Prints the state of every run where arguments ask for that with --status; returns whether they do.

    Raises UserError where they ask for anything else besides.
    """
    args, rest = command_line.status_parser().parse_known_args(argv)
    if (found := args.status) is None:
        return False
    if rest:
        raise UserError(f"--status takes a folder, and nothing besides; leave {' '.join(rest)} out")
    imports.recall([found])
    status.show(found, console)
    return True


def show_plan(stages: Sequence[Stage], args: argparse.Namespace, console: Console) -> None:
    """Prints what a launch would run; UserError where a folder holds another configuration."""
    for line in selection.left_out(args):
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
    groups = grouping.groups(runs, args.stack)
    console.print(plan_table(runs, groups if args.stack != 1 else ()))
    say_differences(runs, args, console)
    say_dispatch(groups, args, console)
    return runs


def _carry_out(stage, args, console, command, prepare, place) -> tuple[list[PlannedRun], Tally]:
    """Makes the runs of a stage that are not done; returns all of them, and what became of them.

    Those have failed, too, whose damaged result is left as it is.
    """
    runs, groups = make_ready(stage, args, console, command, prepare, place)
    tally = launch(runs, groups, args.workdir, args.jobs, console, command, args.retries, args.stalled * 60, place)
    for line in stage.ended():
        say(console, line)
    return runs, tally._replace(failed=tally.failed + sum(run.state.damaged for run in runs))


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
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

"""Runs a sweep on a Slurm cluster: an array of workers, each of which takes the longest run that nobody has in hand.

    python -m launch.slurm table3@multi30k --workdir=SHARED --workers=8 --gpus=1 --time=4:00:00 [--partition=P]
        [--setup='module load cuda'] [--dry_run] [ARGUMENTS OF launch.local ...]

What the runs need is prepared here, then sbatch is called once, and nothing has to stay logged in. Before its time
limit a worker has its runs saved and its job requeued, and goes on from there. Workers end when all that is left is in
the hands of others; the last one writes the tables. The folder must be shared by all nodes, and so must the cache
(TX_CACHE_DIR), or every node prepares its own. What the workers say is in WORKDIR/slurm, what a run says in its
log.txt. `--status DIR` shows who is at work on what.

Exit status: 0 once the array is submitted; 2 for what the caller has to mend.
"""

import argparse
import contextlib
import io
import math
import re
import sys
import time
from collections.abc import Callable, Sequence

from launch import command_line, display, local, tuning
from launch.display import say
from launch.plan import PlannedRun
from launch.preparation import make_ready, most_devices, prepare
from tx import cli, plugins
from tx.errors import UserError, one_line_errors
from tx.runs.run_dir import RunDir

FOLDER = "slurm"  # in the work folder: what the workers say
NOTICE = 120  # seconds
REQUEUES = 10**6  # as good as no limit: what a time limit interrupts has gone on meanwhile


def _own_parser() -> argparse.ArgumentParser:
    """Returns the parser of what Slurm takes besides a launch's arguments."""
    parser = cli.Parser(add_help=False)
    group = parser.add_argument_group("Slurm")
    group.add_argument("--workers", type=int, default=1, metavar="N", help="jobs in the array (default: %(default)s)")
    group.add_argument(
        "--time", type=_minutes, metavar="LIMIT", help="time limit of a job, as sbatch takes it: 4:00:00"
    )
    group.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs a worker (default: %(default)s)")
    group.add_argument("--cpus", type=int, metavar="N", help="cores a worker")
    group.add_argument("--mem", type=float, metavar="GIB", help="memory a worker, in GiB")
    group.add_argument("--partition", metavar="NAME", help="the cluster's default where left out; so are the next two")
    group.add_argument("--account", metavar="NAME")
    group.add_argument("--qos", metavar="NAME")
    group.add_argument(
        "--setup", action="append", default=[], metavar="COMMAND", help="for the shell before Python; repeatable"
    )
    group.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="another option of sbatch, e.g. constraint=a100; repeatable",
    )
    group.add_argument(
        "--notice",
        type=int,
        default=NOTICE,
        metavar="SECONDS",
        help="how long before its time limit a worker saves and is requeued (default: %(default)s)",
    )
    return parser


def _minutes(text: str) -> int:
    """Returns a time limit of sbatch (M, M:S, H:M:S, D-H, D-H:M, D-H:M:S) in minutes, rounded up."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"takes minutes, H:M:S or D-H:M:S; got {text!r}")
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    found = 1440 * int(days or 0) + 60 * hours + minutes + math.ceil(seconds / 60)
    if not found:
        raise argparse.ArgumentTypeError(f"must be above 0; got {text!r}")
    return found


@one_line_errors
def main(argv: Sequence[str] | None = None, *, prepare: Callable[[Sequence[PlannedRun]], None] = prepare) -> int:
    """Prepares and submits; returns the exit status."""
    console = display.console()
    argv = plugins.take(list(sys.argv[1:] if argv is None else argv))
    if local.show_status(argv, console):
        return 0
    parser = command_line.parser_of("python -m launch.slurm", __doc__.splitlines()[0], [_own_parser()])
    args = parser.parse_args(argv)
    command_line.check(args, accelerated=args.gpus > 0, alone=False)
    _check(args)
    rest = _own_parser().parse_known_args(argv)[1]
    stages = tuning.stages(args)
    if args.dry_run:
        local.show_plan(stages, args, console)
        for line in _script(args).splitlines():
            say(console, line)
        return 0
    executor = _executor(args, shown=False)
    args.no_rehearsal = True  # the memory here is not that of a node
    runs, groups = make_ready(stages[0], args, console, prepare=prepare, gpus=args.gpus)
    if not groups and len(stages) == 1:
        say(console, f"0 to run, {display.done_before(runs, ())}: nothing is submitted")
        return 1 if any(run.state.damaged for run in runs) else 0
    from launch.slurm_worker import SlurmWorker

    number = args.workers if len(stages) > 1 else min(args.workers, len(groups))
    # The runs of a second stage are not known yet, but are of the same rows; and those may be done.
    devices = most_devices([runs] if len(stages) > 1 else groups, args.gpus)
    jobs_each = args.jobs or max(1, args.gpus // devices)
    arguments = [*rest, f"--workdir={args.workdir}", f"--jobs={jobs_each}", "--no_rehearsal"]
    since = time.time()
    RunDir(args.workdir / FOLDER).create()
    with _sbatch_errors():
        jobs = executor.submit_array([SlurmWorker(arguments, i, since, args.notice) for i in range(number)])
    say(console, f"submitted {number} workers for {len(groups)} runs: job {', '.join(job.job_id for job in jobs)}")
    say(console, f"what they say is in {args.workdir / FOLDER}; --status {args.workdir} shows who makes what")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.time is None:
        raise UserError("--time is missing: the time limit of a job, e.g. --time=4:00:00; a run may take many of them")
    if wrong := re.search(r"[%\n]", str(args.workdir)):
        raise UserError(f"{str(args.workdir)!r}: Slurm takes {wrong[0]!r} for something else; choose another --workdir")
    if args.workers < 1:
        raise UserError(f"--workers must be at least 1; got {args.workers}")
    for option, number, least in ("--mem", args.mem, 0), ("--cpus", args.cpus, 0), ("--gpus", args.gpus, -1):
        if number is not None and not least < number < math.inf:
            raise UserError(f"{option} must be {'at least 0' if least < 0 else 'above 0'}; got {number:g}")
    if not 0 < args.notice <= 30 * args.time:
        raise UserError(f"--notice must be above 0 and at most half of --time; got {args.notice} seconds")
    for option in args.sbatch:
        if not re.fullmatch(r"[\w-]+=.+", option):
            raise UserError(f"--sbatch takes OPTION=VALUE, e.g. constraint=a100; got {option!r}")


def _executor(args: argparse.Namespace, shown: bool):
    """Returns submitit's executor; UserError where submitit or, unless its script is only shown, Slurm is missing."""
    try:
        import submitit
    except ImportError:
        raise UserError("submitit is missing; pip install -e '.[slurm]' in the checkout") from None

    class Shown(submitit.SlurmExecutor):
        @classmethod
        def affinity(cls):
            return 1  # its script can be shown where there is no Slurm

    folder = args.workdir / FOLDER
    try:
        executor = (Shown if shown else submitit.SlurmExecutor)(folder, max_num_timeout=REQUEUES)
    except RuntimeError:
        raise UserError("srun is missing: launch from a machine of a Slurm cluster, or --dry_run") from None
    optional = {"partition": args.partition, "account": args.account, "qos": args.qos}
    optional |= {"cpus_per_task": args.cpus, "gpus_per_node": args.gpus or None, "setup": args.setup or None}
    # Since Slurm 22.05 srun does not take the number of cores from the job.
    optional["srun_args"] = None if args.cpus is None else [f"--cpus-per-task={args.cpus}"]
    others = {"requeue": True} | ({} if args.mem is None else {"mem": f"{math.ceil(1024 * args.mem)}M"})
    executor.update_parameters(
        job_name="tx",
        time=args.time,
        signal_delay_s=args.notice,
        array_parallelism=args.workers,
        stderr_to_stdout=True,
        additional_parameters=others | dict(option.split("=", 1) for option in args.sbatch),
        **{name: value for name, value in optional.items() if value is not None},
    )
    return executor


def _script(args: argparse.Namespace) -> str:
    """Returns the script that sbatch would be given."""
    executor = _executor(args, shown=True)
    if args.workers > 1:
        executor.parameters["map_count"] = args.workers
    return executor._make_submission_file_text(executor._submitit_command_str, "")


@contextlib.contextmanager
def _sbatch_errors():
    """Turns what sbatch refuses into UserError."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints there what it raises too
            yield
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("sbatch: error:")] or lines[-1:]
        raise UserError(f"sbatch refused: {'; '.join(said)}") from None


if __name__ == "__main__":
    sys.exit(main())

"""Command line of a launch: its arguments, wherever the runs are made, and what they may be."""

import argparse
from collections.abc import Sequence

from launch import dispatch
from launch.plan import selection
from tx import cli
from tx.errors import UserError

RETRIES = 1
STALLED = 30.0  # minutes


def status_parser() -> argparse.ArgumentParser:
    """Returns the parser of --status alone, which needs nothing else."""
    parser = cli.Parser(prog="python -m launch.local", add_help=False)
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
    parser = cli.Parser(prog=prog, description=description, parents=[status_parser(), *parents])
    selection.add_arguments(parser)
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="processes at once (default: by GPUs, else cores and memory; a Slurm worker without GPUs has one, Ray "
        "as many as its nodes have room for)",
    )
    parser.add_argument(
        "--stack",
        type=_stack,
        nargs="?",
        const=None,
        default=dispatch.CHOSEN,
        metavar="N",
        help="train runs of one program side by side in one process, at most N (default: all of them; without --stack "
        f"one by one, but up to {dispatch.TOGETHER} small ones on an accelerator of this machine)",
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
        help="start at once; without it, the largest shapes are tried first where they are large, which compiles them "
        "(never by Slurm or Ray)",
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


def check(args: argparse.Namespace, accelerated: bool, alone: bool = True) -> None:
    """Checks parsed arguments, and adds what the engine knows; UserError for a number that is none of its kind.

    Args:
      args: as parsed.
      accelerated: whether the runs are made on accelerators.
      alone: whether no other machine makes runs of the sweep, to which a stack of them would leave nothing.
    """
    args.accelerated = accelerated
    if args.stack == dispatch.CHOSEN and not (accelerated and alone):
        args.stack = 1
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs must be at least 1; got {args.jobs}")
    if not args.stalled > 0:
        raise UserError(f"--stalled must be above 0 minutes; got {args.stalled:g}")
    if args.retries < 0:
        raise UserError(f"--retries must be at least 0; got {args.retries}")

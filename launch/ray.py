"""Runs a sweep on a Ray cluster, a task a run.

    python -m launch.ray table3@multi30k --workdir=SHARED [--address=HOST:PORT] [--cpus=2] [--gpus=1]
        [--hosts=N] [ARGUMENTS OF launch.local ...]

Without --address it is the cluster of $RAY_ADDRESS, or one that runs on this machine; where there is none one is
started here, for as long as the launch lasts. What a task leaves undone because its node died is made on another. This
process plans, waits and writes the tables; what runs is ended with it, and goes on at the next launch. The folder must
be shared by all nodes, and the project installed there. With --jobs=N there are N tasks at once, some of them waiting
for room: a cluster that grows on demand then grows. With --hosts=N a run is one on many hosts: it takes N nodes, a
process and so many cores and GPUs on each; --set parallel.devices=0 has it use them all.

Exit status: as of `launch.local`.
"""

import argparse
import math
import pathlib
import sys
from collections.abc import Callable, Sequence

from launch import command_line, display, local, preparation
from launch.plan import PlannedRun
from launch.resources import RAY_PARTS
from launch.worker import Place
from tx import cli, plugins
from tx.errors import UserError, one_line_errors


def _own_parser() -> argparse.ArgumentParser:
    """Returns the parser of what Ray takes besides a launch's arguments."""
    parser = cli.Parser(add_help=False)
    group = parser.add_argument_group("Ray")
    group.add_argument("--address", metavar="ADDRESS", help="of the cluster (default: $RAY_ADDRESS, or one here)")
    group.add_argument("--cpus", type=float, default=1.0, metavar="N", help="cores a run (default: %(default)g)")
    group.add_argument(
        "--gpus", type=float, default=0.0, metavar="N", help="GPUs a run, or the share of one (default: %(default)g)"
    )
    group.add_argument("--hosts", type=int, default=1, metavar="N", help="nodes a run (default: %(default)d)")
    return parser


@one_line_errors
def main(
    argv: Sequence[str] | None = None,
    *,
    prepare: Callable[[Sequence[PlannedRun]], None] = preparation.prepare,
    report: Callable[[Sequence[pathlib.Path]], None] = local.report,
) -> int:
    """Plans, runs and reports; returns the exit status."""
    argv = plugins.take(list(sys.argv[1:] if argv is None else argv))
    if local.show_status(argv, display.console()):
        return 0
    args = command_line.parser_of("python -m launch.ray", __doc__.splitlines()[0], [_own_parser()]).parse_args(argv)
    _check(args)
    rest = [*_own_parser().parse_known_args(argv)[1], "--no_rehearsal"]  # the memory here is not that of a node

    def pool(*asked):
        ray_pool.join(args.address)  # once everything is prepared, and something is to do
        return ray_pool.RayPool(*asked, cpus=args.cpus, gpus=args.gpus, hosts=args.hosts)

    place = Place(pool=pool, accelerated=args.gpus > 0)
    if args.dry_run:
        return local.main(rest, place=place)
    try:
        import ray

        from launch import ray_pool
    except ImportError:
        raise UserError("Ray is missing; pip install -e '.[ray]' in the checkout") from None

    try:
        return local.main(rest, prepare=prepare, report=report, place=place)
    finally:
        ray.shutdown()


def _check(args: argparse.Namespace) -> None:
    if not (0 < args.cpus < math.inf and 0 <= args.gpus < math.inf):
        raise UserError(f"--cpus must be above 0, --gpus at least 0; got {args.cpus:g} and {args.gpus:g}")
    for option, number in ("--cpus", args.cpus), ("--gpus", args.gpus):
        if 0 < number * RAY_PARTS < 1:
            raise UserError(f"{option} must be at least {1 / RAY_PARTS:g}, the least that Ray counts; got {number:g}")
    if args.gpus > 1 and not args.gpus.is_integer():
        raise UserError(f"--gpus must be whole where it is above 1: Ray shares a single GPU alone; got {args.gpus:g}")
    if args.hosts < 1:
        raise UserError(f"--hosts must be at least 1; got {args.hosts}")


if __name__ == "__main__":
    sys.exit(main())

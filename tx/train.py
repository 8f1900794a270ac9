"""Trains a configuration, or several side by side, from text to result.json.

The command line names a configuration and may change its fields:

    python -m tx.train --config=experiments/config.py:table3/A/h=1@multi30k --workdir=DIR [--config.train.steps=500 ...]

A run's own folder suffices where its config.json is there already, as where a launcher wrote it:

    python -m tx.train RUN_DIR [RUN_DIR ...]

Runs that differ in nothing but numbers (`tx.training.stacking`), such as seeds, train side by side as a group, in one
compiled program, when their folders are named together. A run alone is a group of one.

SIGTERM and SIGINT let the step finish and save it; the exit status is then 75, and the same command goes on from there.
"""

import contextlib
import gc
import os
import sys
from typing import NoReturn

import jax

from tx import cli, plugins, streams
from tx.errors import UserError, one_line_errors, writing
from tx.runs.run_config import Request, handed_over
from tx.runs.run_dir import RunDir
from tx.runtime import backend, determinism, distributed, environment
from tx.runtime.backend import keep_freed_memory, one_step_at_a_time
from tx.runtime.signals import STATUS, Interrupted, Interruption, launcher_watched, write_stacks_when_asked
from tx.training.experiment import run_experiments
from tx.training.memory_check import check_memory
from tx.training.reevaluation import evaluate_with_trained_params


@one_line_errors
def main(argv: list[str]) -> None:
    write_stacks_when_asked()
    requests, only_check_memory = _asked(plugins.take(argv))
    environment.refuse_other_numbers()
    keep_freed_memory()
    gc.freeze()  # the imports' objects stay: looking through them again and again took half a second of a short run
    determinism.fix(requests[0].config.parallel)
    one_step_at_a_time()
    distributed.join()
    backend.start()
    if only_check_memory:
        if trained := [request.config for request in requests if request.trained_in is None]:
            check_memory(*trained)
        return
    try:
        _make(requests)
    except Interrupted as where:
        _end_interrupted(where)


def _asked(argv: list[str]) -> tuple[list[Request], bool]:
    """Reads a command line: the runs that it asks for, and whether only their memory is to be checked."""
    parser = cli.Parser(
        prog="python -m tx.train",
        description=__doc__.splitlines()[0],
        epilog="--config=FILE.py:NAME names the configuration, --config.FIELD=VALUE changes a field of it.",
    )
    parser.add_argument(
        "run_dir", nargs="*", type=cli.path, help="instead of --config and --workdir: a folder with a config.json"
    )
    parser.add_argument("--workdir", type=cli.path, help="the run's own folder")
    parser.add_argument(
        "--trained_in", type=cli.path, help="train nothing: take the parameters of that run, which was trained so"
    )
    parser.add_argument("--rehearse", action="store_true", help="only try whether the memory suffices; leave nothing")
    parser.add_argument(plugins.OPTION, metavar="FILE", help=plugins.HELP)
    spec, diff, rest = cli.split_config_arguments(argv)
    args = parser.parse_args(rest)
    if args.run_dir:
        if spec or diff or args.workdir or args.trained_in:
            raise UserError(
                f"{args.run_dir[0]} has its configuration in config.json; give folders alone, or --config and --workdir"
            )
        return [handed_over(RunDir(folder)) for folder in args.run_dir], args.rehearse
    if args.workdir is None:
        parser.error("the following arguments are required: --workdir")
    trained_in = None if args.trained_in is None else RunDir(args.trained_in)
    return [Request(cli.config_from(argv)[0], RunDir(args.workdir), trained_in)], args.rehearse


def _make(requests: list[Request]) -> None:
    """Makes runs that are trained, side by side, then those that take the parameters of another, one by one.

    Several processes stop at the same step (`tx.runtime.distributed`).
    """
    with contextlib.ExitStack() as closing:
        runs, others = [], []
        for config, folder, trained_in in requests:
            run = RunDir(closing.enter_context(distributed.one_voice(folder.path)))
            if trained_in is None:
                runs.append((config, run))
            else:
                others.append((config, run, trained_in))
        together = jax.process_count() > 1
        if others and together:
            raise UserError("--trained_in: one process is enough, and several cannot")
        interruption = None if together else closing.enter_context(Interruption())
        closing.enter_context(launcher_watched())  # what it sends is taken by now
        closing.enter_context(writing((runs or others)[0][1].path))
        try:
            if runs:
                run_experiments(runs, interruption)
            for other in others:
                evaluate_with_trained_params(*other)
                if interruption.asked:
                    raise Interrupted("between two runs")
        except Interrupted:
            distributed.part()  # once what process 0 has saved is there
            raise


def _end_interrupted(where: Interrupted) -> NoReturn:
    """Ends the process at once: Python's own end would wait for threads that translate."""
    streams.flush()
    with contextlib.suppress(OSError):
        print(f"interrupted ({where}): the same command goes on from here", file=sys.stderr, flush=True)
    os._exit(STATUS)


if __name__ == "__main__":
    main(sys.argv[1:])

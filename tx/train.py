"""Trains a configuration, or several side by side, from text to result.json.

The command line names a configuration and may change its fields:

    python -m tx.train --config=experiments/config.py:table3/A/h=1@multi30k --workdir=DIR [--config.train.steps=500 ...]

Runs that differ in nothing but numbers (`tx.training.stacking.program`), such as seeds, train side by side as a group,
in one compiled program, when --and stands between their arguments. A run alone is a group of one.

SIGTERM and SIGINT let the step finish and save it; the exit status is then 75, and the same command goes on from there.
"""

import argparse
import contextlib
import gc
import itertools
import pathlib
import sys

import jax

from tx import cli, plugins
from tx.errors import UserError, one_line_errors, writing
from tx.runs.lease import HELD_STATUS, LOST_STATUS, Held, Lost
from tx.runs.run_dir import RunDir
from tx.runtime import determinism, distributed
from tx.runtime.memory import keep_freed_memory, one_step_at_a_time
from tx.runtime.signals import STATUS, Interrupted, Interruption
from tx.training.experiment import run_experiments
from tx.training.memory_check import rehearse
from tx.training.reevaluation import translate_again


@one_line_errors
def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tx.train",
        description=__doc__.splitlines()[0],
        epilog="--config=FILE.py:NAME names the configuration, --config.FIELD=VALUE changes a field of it; "
        "--and comes before the arguments of one more run, to train beside it.",
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="the run's own folder")
    parser.add_argument(
        "--trained_in", type=pathlib.Path, help="train nothing: take the parameters of that run, which was trained so"
    )
    parser.add_argument("--rehearse", action="store_true", help="only try whether the memory suffices; leave nothing")
    parser.add_argument(plugins.OPTION, metavar="FILE", help=plugins.HELP)
    argv = plugins.take(argv)
    asked, parts = [], [list(part) for among, part in itertools.groupby(argv, "--and".__ne__) if among]
    for part in parts or [[]]:
        _, _, rest = cli.split_config_arguments(part)
        arguments = parser.parse_args(rest)
        asked.append((cli.config_from(part)[0], arguments.workdir, arguments.trained_in))
    keep_freed_memory()
    gc.freeze()  # the imports' objects stay: looking through them again and again took half a second of a short run
    determinism.fix(asked[0][0].parallel)
    one_step_at_a_time()
    distributed.join()
    if arguments.rehearse:
        rehearse(*(config for config, _, trained_in in asked if trained_in is None))
        return
    with contextlib.ExitStack() as closing:
        runs, others = [], []
        for config, workdir, trained_in in asked:
            run = RunDir(closing.enter_context(distributed.one_voice(workdir)))
            if trained_in is None:
                runs.append((config, run))
            else:
                others.append((config, run, RunDir(trained_in)))
        if others and jax.process_count() > 1:
            raise UserError("--trained_in: one process is enough, and several cannot")
        if jax.process_count() > 1:  # they would stop at different steps, and wait for one another
            run_experiments(runs)
            return
        interruption = closing.enter_context(Interruption())
        try:
            with writing((runs or others)[0][1].path):
                if runs:
                    run_experiments(runs, interruption)
                for other in others:
                    translate_again(*other)
                    if interruption.asked:
                        raise Interrupted("between two runs")
        except Interrupted as where:
            print(f"interrupted ({where}): the same command goes on from here", file=sys.stderr)
            sys.exit(STATUS)
        except (Held, Lost) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(HELD_STATUS if isinstance(error, Held) else LOST_STATUS)


if __name__ == "__main__":
    main(sys.argv[1:])

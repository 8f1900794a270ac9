"""A sweep of small runs on the handful of pairs, in processes of its own: a launcher, and the trainers that it starts.

sweep.launch(...) and sweep.train(...) are what `started` starts; the environment plants faults in the trainers:

FAULT_RAISE=NAME   an exception in a run's fifth step
FAULT_POISON=NAME  NaN in the embedding of a word that few sentences of a run have
FAULT_LOG=FILE     gets a line for every result.json that is written
"""

import os
import pathlib
import subprocess
import sys

import handful
from xla_flags import PLAIN_CODE

TESTS = pathlib.Path(__file__).resolve().parent.parent
POISONED = "morning"
SETTINGS = {
    "model.vocab_size": handful.VOCAB_SIZE,
    "model.num_layers": 1,
    "model.d_model": 16,
    "model.d_ff": 24,
    "data.row_length": 32,
    "data.batch_rows": 2,
    "train.steps": 48,
    "train.log_every": 6,
    "train.eval_every": 4,
    "train.checkpoint_every": 4,
    "train.keep_checkpoints": 3,
    "decode.splits": "validation",
    "decode.extra_length": 20,
}


def arguments(workdir: pathlib.Path, *rows: str, **settings: object) -> list[str]:
    """The command line of a launch of rows of Table 3."""
    fields = SETTINGS | {name.replace("__", "."): value for name, value in settings.items()}
    return [
        *(f"table3/{row}@smoke" for row in rows),
        f"--workdir={workdir}",
        *(f"--set={name}={value}" for name, value in fields.items()),
    ]


def started(function: str, *argv: object, **variables: str) -> subprocess.Popen:
    """A process that calls a function of this module."""
    path = [TESTS.parent, TESTS, TESTS / "faults", os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", f"import sys, sweep; sweep.{function}(*sys.argv[1:])", *map(str, argv)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "XLA_FLAGS": PLAIN_CODE} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def launch(*argv: str) -> None:
    from launch import local, plan

    code = "import sys, sweep; sweep.train(*sys.argv[1:])"
    status = local.main(
        list(argv),
        command=lambda runs: [sys.executable, "-W", "error", "-c", code, *plan.arguments(runs)],
        prepare=lambda runs: None,
        report=lambda folders: None,
    )
    sys.exit(status)


def train(*argv: str) -> None:
    from tx import train
    from tx.data import tokenized
    from tx.training import experiment, loop, training_run

    data = handful.prepared(copies=2)
    tokenized.prepare = lambda *_: data
    make, start, finish = loop.make_step_over_devices, training_run.init_state, experiment._finish

    def step_of(*configs):
        step, count = make(*configs), iter(range(5))
        raising = configs[0].name == os.environ.get("FAULT_RAISE")

        def broken(state, batch):
            if raising and next(count) == 4:
                raise ZeroDivisionError("planted")
            return step(state, batch)

        return broken

    def state_of(config):
        state = start(config)
        if config.name == os.environ.get("FAULT_POISON"):
            [ids] = data.vocabulary.encode([POISONED])
            table = state.params["embedding"].at[max(ids)].set(float("nan"))
            state = state.replace(params=state.params | {"embedding": table})
        return state

    def finished(m, *rest, **options):
        finish(m, *rest, **options)
        if log := os.environ.get("FAULT_LOG"):
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{m.label}\n")

    loop.make_step_over_devices, training_run.init_state, experiment._finish = step_of, state_of, finished
    train.main(list(argv))

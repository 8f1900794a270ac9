"""Small runs of Table 3 on an engine: the command lines, and what is found of them afterwards."""

import json
import os
import pathlib
import subprocess
import sys

from xla_flags import PLAIN_CODE

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS = ("base", "A/h=1", "A/h=4", "C/N=2")  # coincide at these sizes, or not: what counts is who makes them
SETTINGS = {
    "model.num_layers": 1,
    "model.d_model": 16,
    "model.d_ff": 24,
    "train.steps": 20,
    "train.log_every": 5,
    "train.eval_every": 10,
    "train.checkpoint_every": 10,
    "decode.splits": "validation",
    "decode.extra_length": 2,
    "decode.beam": 1,
}
SLOWED = """
import os, time
from tx.training import loop

make = loop.make_step_over_devices

def make_slowed(*configs):
    step = make(*configs)

    def slowed(state, batch):
        if not os.path.exists(os.environ.get("SLOW_UNTIL", "/")):
            time.sleep(1.0)
        return step(state, batch)

    return slowed

loop.make_step_over_devices = make_slowed
"""  # a file to import: a step takes a second until there is a file of a given name


def arguments(workdir, rows=ROWS, seeds=1, **settings) -> list[str]:
    """The arguments of a launch; `train__steps=50` is --set=train.steps=50."""
    fields = SETTINGS | {name.replace("__", "."): value for name, value in settings.items()}
    return [
        *(f"table3/{row}@smoke" for row in rows),
        f"--workdir={workdir}",
        f"--seeds={seeds}",
        "--no_rehearsal",
        *(f"--set={name}={value}" for name, value in fields.items()),
    ]


def environment(**variables) -> dict[str, str]:
    """The environment of a process that uses this checkout."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "XLA_FLAGS": PLAIN_CODE, "JAX_PLATFORMS": "cpu"} | variables


def launched(module: str, *argv: object, **variables: str) -> subprocess.Popen:
    """A process of `python -m MODULE ARGUMENTS`."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, argv)],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen, timeout: float = 400) -> str:
    """What a process has printed, once it has ended with status 0."""
    try:
        said, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, said
    return said


def run_folders(workdir) -> list[pathlib.Path]:
    """The folders of all runs below a work folder."""
    return sorted(path for path in pathlib.Path(workdir).glob("*@*/**/seed*") if path.is_dir())


def claims(folder: pathlib.Path) -> list[dict]:
    """What the processes that have held a run said of themselves, in their order: one for each that was at work."""
    files = sorted((path for path in (folder / "lease").iterdir() if path.name.isdigit()), key=lambda p: int(p.name))
    return [json.loads(file.read_text()) for file in files]


def learnt(folder: pathlib.Path) -> dict:
    """The numbers of a run that must not depend on where it was made, nor on interruptions."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    kept = [{k: v for k, v in line.items() if k != "timing"} for line in lines if "event" not in line]
    return {"metrics": kept} | {k: result[k] for k in ("dev", "dev_best", "dev_last", "tests", "train")}

"""A disk that fills while a run saves, and a folder that may not be written: one line, and nothing is lost."""

import os
import shutil
import subprocess
import sys

import pytest
import sweep
from xla_flags import PLAIN_CODE

from tx.runs.lease import holder
from tx.runs.run_dir import RunDir

# In a user and mount namespace of its own a process may mount what it alone sees. What is left there goes to $2.
SCRIPT = """
set -e
mount -t tmpfs -o size="$3" none "$1"
out="$2"
run() { status=0; "$@" >> "$out/said.txt" 2>> "$out/errors.txt" || status=$?; echo $status >> "$out/statuses.txt"; }
shift 3
run "$@"
cp -r "$RUN" "$out/full"
mount -o remount,size=64m "$MOUNT"
run "$@"
cp -r "$RUN" "$out/again"
"""


def in_namespace(script, *arguments, **variables):
    command = ["unshare", "-Urm", "sh", "-c", script, "sh", *map(str, arguments)]
    if not shutil.which("unshare") or subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody but root mount a file system")
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def trainer(tmp_path):
    """A command that trains a run of a few MB a checkpoint, and the environment it wants."""
    settings = sweep.SETTINGS | {"model.d_ff": 2048, "train.steps": 12, "train.keep_checkpoints": 9}

    def command(folder):
        code = "import sys, sweep; sweep.train(*sys.argv[1:])"
        config = sweep.TESTS.parent / "experiments" / "config.py"
        fields = [f"--config.{name}={value}" for name, value in settings.items()]
        return [sys.executable, "-c", code, f"--config={config}:table3/base@smoke", f"--workdir={folder}", *fields]

    path = os.pathsep.join(map(str, (sweep.TESTS.parent, sweep.TESTS, sweep.TESTS / "faults")))
    return command, {"PYTHONPATH": path, "XLA_FLAGS": PLAIN_CODE}


@pytest.mark.slow
def test_a_run_whose_disk_fills_goes_on_when_there_is_space(tmp_path, trainer):
    command, variables = trainer
    mount, out, straight = tmp_path / "disk", tmp_path / "out", RunDir(tmp_path / "straight")
    mount.mkdir()
    out.mkdir()
    done = subprocess.run(command(straight.path), env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [size] = {
        sum(f.stat().st_size for f in step.rglob("*") if f.is_file()) // 2**20
        for step in straight.checkpoints.iterdir()
    }
    space = f"{int(2.5 * (size + 1))}m"  # for two checkpoints of three
    run = mount / "run"
    in_namespace(SCRIPT, mount, out, space, *command(run), RUN=str(run), MOUNT=str(mount), **variables)
    assert (out / "statuses.txt").read_text().split() == ["2", "0"]
    errors = (out / "errors.txt").read_text()
    [line] = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: no space left for a checkpoint in ")
    full, again = RunDir(out / "full"), RunDir(out / "again")
    steps = sorted(int(path.name) for path in full.checkpoints.iterdir())
    assert steps
    assert steps[-1] < 12
    assert line.endswith(
        f"free some and start the same command again: it goes on from the checkpoint of step {steps[-1]}"
    )
    assert not full.result.exists()
    assert holder(full.path) is None
    results = [one.read("result") for one in (straight, again)]
    for result in results:
        del result["timing"]
    assert results[0] == results[1]


READ_ONLY = """
mount -t tmpfs -o size=1m,ro none "$1"
shift
out="$1"
shift
"$@" 2> "$out"
echo $? >> "$out"
"""


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path, trainer):
    command, variables = trainer
    mount = tmp_path / "disk"
    mount.mkdir()
    in_namespace(READ_ONLY, mount, tmp_path / "errors.txt", *command(mount / "run"), **variables)
    *_, line, status = (tmp_path / "errors.txt").read_text().splitlines()
    assert line == f"error: cannot write to {mount / 'run'}: Read-only file system; choose another --workdir"
    assert status == "2"


PREPARE = """
from tx import config
from tx.data import tokenized
from tx.errors import one_line_errors


@one_line_errors
def main():
    c = config.get_config()
    config.update(c, {"data.corpus": "numbers"})
    data = tokenized.prepare(c.data, 500)
    print([len(data.splits[split]) for split in data.splits])


main()
"""
FILLING = """
set -e
for size in 16k 512k 1m 2m 3m 64m; do
    mount -t tmpfs -o size="$size" none "$1"
    status=0
    "$2" -c "$3" 2>> "$4/errors.txt" >> "$4/said.txt" || status=$?
    echo "$size $status" >> "$4/statuses.txt"
    umount "$1"
done
"""


@pytest.mark.slow
def test_a_cache_disk_that_fills_is_called_so_whatever_is_written(tmp_path):
    mount = tmp_path / "disk"
    mount.mkdir()
    variables = {"TX_CACHE_DIR": str(mount), "PYTHONPATH": str(sweep.TESTS.parent)}
    in_namespace(FILLING, mount, sys.executable, PREPARE, tmp_path, **variables)
    statuses = [line.split()[1] for line in (tmp_path / "statuses.txt").read_text().splitlines()]
    errors = (tmp_path / "errors.txt").read_text().splitlines()
    assert statuses[0] == "2"
    assert statuses[-1] == "0"
    assert set(statuses) == {"2", "0"}
    assert len(errors) == statuses.count("2") >= 3
    places = {line.removeprefix(f"error: no space left for {mount}/").partition("/")[0] for line in errors}
    assert len(places) >= 2  # what is generated, prepared, learned, tokenised
    assert places <= {"generated", "tfds", "vocabularies", "tokens"}

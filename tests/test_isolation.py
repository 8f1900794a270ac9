"""The tests themselves: they pass whatever lies about, where they are started and what the environment holds."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from fabricated import fail, put

TESTS = pathlib.Path(__file__).parent
SOME = ("test_launch.py", "test_list.py", "test_report.py", "test_registry.py", "test_run.py")


@pytest.mark.slow
def test_leftovers_of_every_kind_make_no_difference(tmp_path):
    """Where `make smoke` left its runs: done, failed, begun, damaged, of another configuration."""
    runs = tmp_path / "runs"
    put(runs, "table3/base@smoke", 1)
    put(runs, "table3/base@smoke", 2, overrides={"train.steps": 5})
    fail(runs, "big", 1, "no loss today")
    (runs / "table3@smoke" / "C" / "N=2" / "seed1").mkdir(parents=True)
    begun = runs / "table3@smoke" / "D" / "P_drop=0.0" / "seed1"
    (begun / "checkpoints" / "4").mkdir(parents=True)
    (begun / "config.json").write_text(json.dumps({"config": {}}))
    (runs / "table3@smoke" / "E" / "seed1").mkdir(parents=True)
    (runs / "table3@smoke" / "E" / "seed1" / "result.json").write_text("{")
    home = tmp_path / "home"
    (home / ".cache" / "tx" / "vocabularies").mkdir(parents=True)
    environment = os.environ | {
        "HOME": str(home),
        "TX_CACHE_DIR": "/dev/null/cache",
        "TX_IMPORT": "/nowhere.py",
        "TX_COORDINATOR": "nobody:1",
        "JAX_ENABLE_X64": "1",
        "JAX_PLATFORMS": "cuda",
        "XLA_FLAGS": "--no_such_flag",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(TESTS / name) for name in SOME)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    left = {path.name for path in tmp_path.iterdir()} - {".hypothesis"}  # of the tests' own library
    assert left == {"home", "runs"}

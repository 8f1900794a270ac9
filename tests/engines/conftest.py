"""Engines that the tests of this folder start on this machine; each is skipped where what it needs is not installed."""

import os
import pathlib
import re
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
FOLDER = pathlib.Path(__file__).parent
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - not behind all else that this machine does
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def pytest_ignore_collect(collection_path, config):
    """Not even imported where they are not to run: Ray takes seconds."""
    chosen = config.option.markexpr
    return True if chosen and not re.search(r"(?<!not )\bengines\b", chosen) else None


def pytest_collection_modifyitems(items):
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.engines)


@pytest.fixture(scope="session")
def slurm():
    """A Slurm cluster of one node; the environment of the tests has commands use it."""
    import slurm_cluster

    pytest.importorskip("submitit", reason="submitit missing; pip install -e '.[slurm]'")
    if why := slurm_cluster.why_not():
        pytest.skip(why)
    with slurm_cluster.Cluster() as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.variables.items():
            patch.setenv(name, value)
        patch.setenv("PATH", f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        yield cluster

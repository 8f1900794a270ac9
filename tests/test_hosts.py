"""One run on two hosts: network namespaces of this machine, with a process each, joined by a cable of their own."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import handful
import jax
import numpy as np
import pytest
import test_parallel
import tiny
from saved import arrays, restored

from tx.runs.metrics_log import read_metrics
from tx.runs.run_dir import RunDir
from tx.runtime.signals import STATUS
from tx.training import loop
from tx.training.training_run import TrainingRun

HOSTS = {f"tx{os.getpid()}{side}": f"10.77.{os.getpid() % 250}.{number}" for number, side in enumerate("ab", start=1)}
PORT = 5077
STEPS = 800  # more than either could make before the signal comes
SETTINGS = test_parallel.SETTINGS | {
    "train__steps": STEPS,
    "train__log_every": 20,
    "train__eval_every": STEPS,
    "train__checkpoint_every": 400,
}


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts():
    """{name: address} of two namespaces that reach each other, and nothing else."""
    if not shutil.which("ip"):
        pytest.skip("needs network namespaces: install iproute2")
    first, second = HOSTS
    try:
        ip("netns", "add", first)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs network namespaces, and the right to make them: {error.stderr.decode().strip()}")
    with contextlib.ExitStack() as made:
        made.callback(ip, "netns", "del", first)
        ip("netns", "add", second)
        made.callback(ip, "netns", "del", second)
        ip("link", "add", first, "netns", first, "type", "veth", "peer", "name", second, "netns", second)
        for name, address in HOSTS.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            for device in (name, "lo"):
                ip("-n", name, "link", "set", device, "up")
        for name, address in HOSTS.items():  # `ip netns exec` mounts it: a process tells others the address of its host
            own = pathlib.Path("/etc/netns") / name
            own.mkdir(parents=True)
            made.callback(shutil.rmtree, own)
            (own / "hosts").write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n")
        yield HOSTS


def started(name, process, address, *arguments):
    """A process on a host, as `test_parallel.started`."""
    variables = {"TX_COORDINATOR": f"{address}:{PORT}", "TX_PROCESSES": "2", "TX_PROCESS": str(process)}
    return test_parallel.started("handful_train", *arguments, within=["ip", "netns", "exec", name], **variables)


def logged(run):
    return [line["step"] for line in read_metrics(run) if "loss" in line] if run.metrics.exists() else []


@pytest.mark.slow
def test_a_run_on_two_hosts_is_saved_when_one_is_withdrawn_and_goes_on_on_one(hosts, tmp_path):
    run, alone = RunDir(tmp_path / "run"), RunDir(tmp_path / "alone")
    file = tmp_path / "config.py"
    file.write_text(f"import tiny\n\n\ndef get_config():\n    return tiny.config(**{SETTINGS})\n")
    arguments = [f"--config={file}", f"--workdir={run.path}", "--config.parallel.devices=0"]
    first = next(iter(hosts.values()))
    both = [started(name, k, first, *arguments) for k, name in enumerate(hosts)]
    try:
        deadline = time.monotonic() + 240
        while len(logged(run)) < 2 and all(one.poll() is None for one in both):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        both[1].send_signal(signal.SIGTERM)  # of the host that writes nothing
        said = [process.communicate(timeout=120) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [STATUS, STATUS], said
    assert "interrupted (after step" in said[0][1]
    stopped = max(int(path.name) for path in run.checkpoints.iterdir())
    assert f"after step {stopped}" in said[0][1]
    assert f"after step {stopped}" in said[1][1]
    assert 40 <= stopped < STEPS
    assert stopped % 400, "it was stopped at a step that is saved anyway"

    again = test_parallel.started("handful_train", *arguments)
    _, error = again.communicate(timeout=300)
    assert again.returncode == 0, error[-3000:]
    assert run.read("result")["train"]["steps"] == STEPS

    # What one process makes of it, up to the order of sums, which goes on growing: so of the first steps.
    config = tiny.config(**SETTINGS | {"train__steps": 40})
    alone.create()
    loop.train([TrainingRun(config, alone, handful.prepared(copies=2))])
    pairs = [(got, want) for got, want in zip(read_metrics(run), read_metrics(alone), strict=False) if "loss" in want]
    assert len(pairs) == 2
    for got, want in pairs:
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays(restored(run, config))))

"""Ray, as clusters on this machine: one that the launch starts, and one of three nodes of which one dies."""

import contextlib
import re
import time

import engine_sweep as sweep
import pytest

pytest.importorskip("ray", reason="ray missing; pip install -e '.[ray]'")

import ray

from launch import ray as ray_launch
from launch import ray_hosts

ROOM = 80 << 20  # bytes of a node's object store, the least that Ray takes


@contextlib.contextmanager
def cluster(nodes):
    """The cluster and nodes of one core each; the head has none."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": ROOM})
    try:
        yield made, [made.add_node(num_cpus=1, object_store_memory=ROOM) for _ in range(nodes)]
    finally:
        made.shutdown()


def holder_of(workdir):
    """{run's folder: the claim that holds it} of the runs that are at work."""
    found = {}
    for folder in sweep.run_folders(workdir):
        with contextlib.suppress(OSError, ValueError, IndexError):
            claim = sweep.claims(folder)[-1]
            if not claim["released"]:
                found[folder] = claim
    return found


def test_a_cluster_is_started_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    said = sweep.finished(sweep.launched("launch.ray", *sweep.arguments(tmp_path, sweep.ROWS[:2]), "--address=local"))
    assert "2 done, 0 failed" in said
    folders = sweep.run_folders(tmp_path)
    assert len(folders) == 2
    for folder in folders:
        assert (folder / "result.json").exists()
        [claim] = sweep.claims(folder)
        assert re.fullmatch(r"ray job \w+ node \w{8}", claim["engine"])
    assert (tmp_path / "table3@smoke" / "table.md").exists()
    with pytest.raises(ConnectionError):
        ray.init("auto")  # it ended with the launch


def test_paths_are_relative_to_the_folder_that_the_launch_was_started_in(tmp_path, monkeypatch):
    for name in ("of_the_nodes", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "of_the_nodes")
    with cluster(1) as (made, _):
        monkeypatch.chdir(tmp_path / "here")
        arguments = [*sweep.arguments("runs", sweep.ROWS[:1]), f"--address={made.address}"]
        said = sweep.finished(sweep.launched("launch.ray", *arguments, TX_CACHE_DIR="cache"))
    assert "1 done, 0 failed" in said
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"runs", "cache"}
    assert list((tmp_path / "of_the_nodes").iterdir()) == []


def test_one_run_on_two_hosts(tmp_path):
    arguments = sweep.arguments(tmp_path, sweep.ROWS[:1])
    with cluster(2) as (made, _):
        said = sweep.finished(
            sweep.launched(
                "launch.ray", *arguments, f"--address={made.address}", "--hosts=2", "--set=parallel.devices=0"
            )
        )
    assert "1 done, 0 failed" in said
    [folder] = sweep.run_folders(tmp_path)
    [claim] = sweep.claims(folder)
    assert claim["engine"].startswith("ray job ")
    assert "jit over a mesh of 2 devices" in (folder / "log.txt").read_text()
    assert (folder / "log.1.txt").exists()  # of the process on the other node, which writes nothing else


@pytest.mark.parametrize(
    ("nodes", "hosts", "runs"),
    [([2, 2], 1, 4), ([2, 2], 2, 2), ([3, 1], 2, 1), ([5], 2, 0), ([1, 1, 1], 2, 1), ([2, 1, 1], 2, 2), ([], 2, 0)],
)
def test_how_many_runs_have_room_on_several_nodes_each(nodes, hosts, runs):
    room = ray_hosts.Hosts(hosts, {"CPU": 2.0, "GPU": 0.0}).room([{"CPU": 2.0 * cores + 1} for cores in nodes])
    assert room == runs


@pytest.mark.parametrize(("share", "runs"), [(1.0, 2), (0.5, 4), (0.25, 8), (0.1, 20), (0.3, 6), (1 / 3, 6)])
def test_how_many_runs_share_the_gpus_of_a_node(share, runs):
    room = ray_hosts.Hosts(1, {"CPU": 1.0, "GPU": share}).room([{"CPU": 64.0, "GPU": 2.0}])
    assert (room, type(room)) == (runs, int)


def test_what_a_dead_node_leaves_is_made_on_another(tmp_path):
    (tmp_path / "slowed.py").write_text(sweep.SLOWED)
    workdir, fast = tmp_path / "runs", tmp_path / "fast"
    arguments = sweep.arguments(workdir, sweep.ROWS[:3], seeds=2)
    with cluster(3) as (made, nodes):
        launch = sweep.launched(
            "launch.ray",
            *(*arguments, f"--import={tmp_path / 'slowed.py'}", f"--address={made.address}"),
            SLOW_UNTIL=str(fast),
        )
        names = {node.node_id[:8]: node for node in nodes}
        deadline = time.monotonic() + 200
        while not (held := holder_of(workdir)):
            assert time.monotonic() < deadline
            assert launch.poll() is None
            time.sleep(0.2)
        lost, claim = next(iter(held.items()))
        dead = claim["engine"].split()[-1]
        made.remove_node(names[dead], allow_graceful=False)
        fast.touch()
        said = sweep.finished(launch)
    assert "6 done, 0 failed" in said
    folders = sweep.run_folders(workdir)
    assert len(folders) == 6
    for folder in folders:
        assert (folder / "result.json").exists()
        assert not (folder / "error.json").exists()
        claims = sweep.claims(folder)
        assert dead not in claims[-1]["engine"]
        if folder == lost:
            assert len(claims) == 2
            assert dead in claims[0]["engine"]
        assert len(claims) <= 2
    assert sum(len(sweep.claims(folder)) for folder in folders) <= 6 + 1  # nothing was made twice


def test_what_no_node_has_is_one_line(tmp_path):
    process = sweep.launched("launch.ray", *sweep.arguments(tmp_path, ["base"]), "--address=local", "--gpus=64")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 2
    assert said.splitlines()[-1] == (
        "error: no node of the Ray cluster has 1 CPU and 64 GPU; with --jobs=N runs wait for one that has"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--cpus=0"], "--cpus must be above 0"),
        (["--gpus=-1"], "--gpus at least 0"),
        (["--gpus=1.5"], "--gpus must be whole where it is above 1"),
        (["--cpu=2"], "unrecognized arguments: --cpu=2"),
        (["--hosts=0"], "--hosts must be at least 1"),
        (["--address=127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
    ],
)
def test_options_that_are_refused(options, expected, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        ray_launch.main([*sweep.arguments(tmp_path, ["base"]), *options], prepare=lambda runs: None)
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err

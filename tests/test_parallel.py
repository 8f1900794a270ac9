"""Many devices and processes: the same numbers as one device, what differs where it should, and what is refused."""

import os
import pathlib
import pickle
import shutil
import socket
import subprocess
import sys

import handful
import jax
import jax.numpy as jnp
import many_devices
import numpy as np
import pytest
import tiny
from saved import arrays, restored
from xla_flags import PLAIN_CODE

from tx.errors import UserError
from tx.model.loss import cross_entropy
from tx.runs.lease import HELD_STATUS, LOST_STATUS, Held, Lease, Lost
from tx.runs.metrics_log import read_metrics
from tx.runs.run_dir import RunDir
from tx.runtime import distributed
from tx.runtime.signals import STATUS, Interrupted
from tx.training import experiment, loop
from tx.training.run_group import RunGroup
from tx.training.sharding import Layout
from tx.training.step import init_state
from tx.training.training_run import TrainingRun

TESTS = pathlib.Path(__file__).parent


def started(module, *arguments, devices=1, within=(), **variables):
    """Starts a test module's `main` in a process with so many simulated devices, as strict as tests are.

    No variable of the environment makes it one of many processes, but those that are given; `within` is a command that
    starts it.
    """
    code = "import jaxtyping; jaxtyping.install_import_hook('tx', 'typechecker.checked'); "
    code += f"import sys, {module}; {module}.main(*sys.argv[1:])"
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    inherited = {name: value for name, value in os.environ.items() if name not in distributed.VARIABLES}
    own = {
        "PYTHONPATH": path,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {PLAIN_CODE}",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
    }
    return subprocess.Popen(
        [*within, sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env=inherited | own | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Eight devices


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """What tests/many_devices.py found."""
    return found_by_many_devices(tmp_path_factory, "whole")


@pytest.fixture(scope="module")
def eight_in_parts(tmp_path_factory):
    """What it found with micro-batches."""
    return found_by_many_devices(tmp_path_factory, "micro")


def found_by_many_devices(tmp_path_factory, which):
    path = tmp_path_factory.mktemp("devices") / "found.pickle"
    with started("many_devices", path, which, devices=8) as process:
        _, error = process.communicate()
    assert process.returncode == 0, error[-5000:]
    return pickle.loads(path.read_bytes())


def assert_close(got, want):
    np.testing.assert_allclose(got[0], want[0], rtol=2e-6)
    for one, two in zip(jax.tree.leaves(got[1]), jax.tree.leaves(want[1]), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["data", "shards", "pmap"])
def test_without_dropout_many_devices_equal_one(eight, name):
    assert_one_device(eight, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["micro", "data, micro", "pmap, micro"])
def test_without_dropout_micro_batches_equal_one(eight_in_parts, name):
    assert_one_device(eight_in_parts, name)


def assert_one_device(found, name):
    """Rows differ tenfold in their tokens, and one has none: a mean of the devices' means would be another number."""
    assert_close(found[name], found["one"])
    start, end = init_state(many_devices.config()).params, found[name][1].params
    moved = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(end), strict=True)]
    assert np.median(moved) > 1e-3  # far more than the tolerance


def test_over_a_mesh_dropout_equals_one_device(eight):
    assert_close(eight["shards, dropout"], eight["one, dropout"])
    assert not np.allclose(eight["one, dropout"][0], eight["one"][0], rtol=1e-3)


def test_under_pmap_each_device_draws_masks_of_its_own_from_the_seed(eight):
    (losses, state), (again, state_again) = eight["pmap, dropout"], eight["pmap, dropout, again"]
    assert losses == again
    jax.tree.map(np.testing.assert_array_equal, state, state_again)
    assert losses[0][0] == pytest.approx(eight["loss by rows"], rel=1e-6)
    assert losses[0][0] != pytest.approx(eight["one, dropout"][0][0], rel=1e-3)


@pytest.mark.slow
def test_each_micro_batch_draws_masks_of_its_own_from_the_seed(eight_in_parts):
    losses, _ = eight_in_parts["micro, dropout"]
    assert losses[0][0] == pytest.approx(eight_in_parts["loss by rows"], rel=1e-6)
    assert_close(eight_in_parts["data, micro, dropout"], eight_in_parts["two micro, dropout"])


def test_big_arrays_are_cut_and_small_ones_copied(eight):
    parts = eight["parts"]
    cut = {path: part for path, (whole, part) in parts.items() if part != whole}
    kernel = "['encoder_0']['feed_forward']['outer']['kernel']"
    for tree in (".params", ".opt_state[0].mu", ".opt_state[0].nu", ".ema"):
        assert cut.pop(f"{tree}['embedding']") == (10, 32)
        assert cut.pop(f"{tree}{kernel}") == (16, 32)
    assert all("feed_forward" in path for path in cut)
    assert parts[".params['encoder_0']['feed_forward']['inner']['bias']"] == ((64,), (64,))


def test_each_device_computes_the_loss_of_its_own_rows(eight):
    """Logits and their two gradients are three products with the embedding for every position."""
    positions, width = many_devices.ROWS * many_devices.LONG, many_devices.config().model.d_model
    all_rows = 3 * 2 * positions * width * many_devices.VOCABULARY
    flops, loops = eight["flops"]
    assert all_rows / 8 < flops < all_rows / 4
    assert loops == 0  # a device's rows are one chunk: it goes through no chunks of others


def test_the_loss_of_parts_is_that_of_the_whole():
    rng = np.random.default_rng(0)
    hidden, table = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((24, 6), (11, 6)))
    targets = jnp.asarray(rng.integers(0, 11, 24) * (np.arange(24) < 15), jnp.int32)

    def loss(parts, hidden, table):
        return cross_entropy(hidden, table, targets, label_smoothing=0.1, smooth_over="all", chunk=5, parts=parts)

    want, got = (jax.value_and_grad(loss, (1, 2), has_aux=True)(parts, hidden, table) for parts in (1, 3))
    for one, two in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


# What is refused; two devices here


@pytest.mark.parametrize(
    ("diff", "words"),
    [
        ({"devices": 4}, ["parallel.devices=4", "there are 2", "set it to 2, or to 0 for all"]),
        ({"devices": 3, "mode": "pmap"}, ["parallel.devices=3", "there are 2"]),
        ({"devices": 2, "fsdp_shards": 3}, ["parallel.fsdp_shards=3", "divisor of 2"]),
        ({"fsdp_shards": 2}, ["parallel.fsdp_shards=2", "divisor of 1"]),
    ],
    ids=str,
)
def test_what_the_devices_cannot_do(diff, words):
    config = tiny.config(**{f"parallel__{name}": value for name, value in diff.items()})
    with pytest.raises(UserError) as caught:
        Layout(config)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_batch_that_cannot_be_split(mode, tmp_path):
    config = tiny.config(data__batch_rows=5, parallel__devices=0, parallel__mode=mode)
    with pytest.raises(UserError, match=r"batch_rows=5 .* 2 devices; make it a multiple of 2, or .* a divisor of 5"):
        experiment.run_experiments([(config, RunDir(tmp_path / "run"))])
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_cannot_be_cut_into_micro_batches():
    with pytest.raises(UserError, match=r"^data.batch_rows=4 cannot be cut into train.micro_batches=3 equal parts$"):
        tiny.config(train__micro_batches=3)
    config = tiny.config(data__batch_rows=6, train__micro_batches=2, parallel__devices=2)
    with pytest.raises(UserError, match=r"2 devices in 2 micro-batches; make it a multiple of 4, or .* divisor of 3"):
        Layout(config)


def test_by_default_a_run_has_one_device_however_many_there_are():
    assert jax.device_count() == 2
    layout, state = Layout(tiny.config()), init_state(tiny.config())
    assert layout.one
    assert layout.devices == jax.devices()[:1]
    assert layout.shard_state(state) is state


def test_a_layout_on_given_devices_asks_for_no_others():
    layout = Layout(tiny.config(parallel__devices=0), jax.devices()[1:])
    assert layout.one
    assert layout.devices == jax.devices()[1:]
    with pytest.raises(UserError, match=r"^parallel.devices=2, but there are 1"):
        Layout(tiny.config(parallel__devices=2), jax.devices()[1:])


# Two processes


@pytest.mark.parametrize(("runs", "updates", "micro"), [(1, 1, 1), (1, 1, 2), (3, 1, 1), (1, 3, 1), (2, 3, 2)])
def test_what_processes_draw_together_is_what_one_draws(tmp_path, monkeypatch, runs, updates, micro):
    def drawn(share):
        monkeypatch.setattr(distributed, "share", lambda: share)
        members = []
        for seed in range(1, runs + 1):
            settings = SETTINGS | {"train__steps_per_dispatch": updates, "train__micro_batches": micro}
            settings |= {f"train__{name}": 6 for name in ("steps", "log_every", "eval_every", "checkpoint_every")}
            config = tiny.config(**settings | {"train__seed": seed})
            members.append(TrainingRun(config, RunDir(tmp_path), handful.prepared(copies=2)))
        group = RunGroup(members)
        return [group.draw() for _ in range(5)], [m.progress.padding for m in members]

    whole, padding = drawn((0, 1))
    processes = [drawn((k, 2)) for k in (0, 1)]
    for want, *parts in zip(whole, *(drawn for drawn, _ in processes), strict=True):
        for field, rows in want.batch.items():
            assert rows.shape[-2:] == (4, 32)
            np.testing.assert_array_equal(np.concatenate([one.batch[field] for one in parts], axis=-2), rows)
        counted = np.count_nonzero(want.batch["tgt"].reshape(runs, -1), axis=1)
        for one in parts:
            assert [np.concatenate(run).tolist() for run in one.sentences] == [
                np.concatenate(run).tolist() for run in want.sentences
            ]
            np.testing.assert_array_equal(one.tokens["target"], counted)
    sides = [sum(np.sum(one.batch[side] == 0) for one in whole) for side in ("src", "tgt")]
    assert sum(empty for empty, _ in padding) == sum(sides)
    assert [those for _, those in processes] == [padding, padding]


def port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def two_processes(*arguments, **more):
    """Trains on the handful of pairs in two processes; returns (status, standard output, error) of each."""
    variables = {"TX_COORDINATOR": f"localhost:{port()}", "TX_PROCESSES": "2"} | more
    both = [started("handful_train", *arguments, **variables, TX_PROCESS=str(k)) for k in (0, 1)]
    try:
        said = [process.communicate(timeout=240) for process in both]
    finally:
        for process in both:
            process.kill()
    return [(process.returncode, *text) for process, text in zip(both, said, strict=True)]


SETTINGS = {
    "model__vocab_size": handful.VOCAB_SIZE,
    "model__num_layers": 1,
    "model__dropout": 0.0,
    "data__batch_rows": 4,
    "optim__epsilon": 1e-3,
    "train__steps": 4,
    "train__log_every": 1,
    "train__eval_every": 100,
    "train__checkpoint_every": 2,
    "decode__splits": "validation",
    "decode__extra_length": 1,
    "decode__beam": 1,
}


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    config, data = tiny.config(**SETTINGS), handful.prepared(copies=2)
    alone = RunDir(tmp_path / "alone")
    alone.create()
    want, (told,) = loop.train([TrainingRun(config, alone, data)])
    file, run = tmp_path / "config.py", RunDir(tmp_path / "run")
    file.write_text(f"import tiny\n\n\ndef get_config():\n    return tiny.config(**{SETTINGS})\n")
    arguments = [f"--config={file}", f"--workdir={run.path}", "--config.parallel.devices=0"]

    def check(*more):
        ends = two_processes(*arguments, *more)
        assert [status for status, _, _ in ends] == [0, 0], "\n".join(error[-5000:] for *_, error in ends)
        assert "step 4" in ends[0][1]
        assert all(line.startswith("[Gloo]") for line in ends[1][1].splitlines())
        result, lines = run.read("result"), read_metrics(run)
        assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
        for got, line in zip(lines, read_metrics(alone), strict=True):
            for key in line.keys() - {"timing"}:
                assert got[key] == pytest.approx(line[key], rel=1e-5), (key, line["step"])
        assert result["dev"]["ppl"] == pytest.approx(told["dev"]["last"]["ppl"], rel=1e-5)
        assert result["train"]["target_tokens"] == told["target_tokens"]
        assert len(run.translations("validation").read_text().split("\n")) == len(handful.VALIDATION) + 1
        found, wanted = restored(run, config), restored(alone, config)
        for one, two in zip(jax.tree.leaves(arrays(found)), jax.tree.leaves(arrays(want)), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=2e-6)
        assert found.data == wanted.data
        assert found.progress.pop("seconds") != wanted.progress.pop("seconds")
        assert found.progress.pop("log")["lines"] == wanted.progress.pop("log")["lines"]  # clock readings differ
        for name in ("identity", "origins"):
            assert bool(found.progress.pop(name)) != bool(wanted.progress.pop(name))  # nobody gave the other one a name
        for key in ("recent", "losses"):
            assert found.progress.pop(key) == pytest.approx(wanted.progress.pop(key), rel=1e-5)
        devs = [found.progress.pop("dev"), wanted.progress.pop("dev")]
        for which in ("last", "best"):
            assert devs[0][which] == pytest.approx(devs[1][which], rel=1e-5)
        assert found.progress == wanted.progress

    check("--config.parallel.mode=pmap")
    assert "origins" not in run.read("result")
    # From the checkpoint of step 2 on, in another way.
    run.result.unlink()
    shutil.rmtree(run.checkpoints / "4")
    check("--config.parallel.fsdp_shards=2")
    origins = [(one["step"], one["program"]["mode"]) for one in run.read("result")["origins"]]
    assert origins == [(1, "pmap"), (3, "jit")]
    # What one process refuses, all refuse.
    for status, _, error in two_processes(*arguments, "--config.train.steps=9"):
        assert status == 2
        assert "error: " in error
        assert "train.steps: 4 there, 9 asked for" in error


@pytest.mark.slow
def test_two_processes_leave_a_run_that_is_held_and_end_with_their_launcher(tmp_path):
    file, run = tmp_path / "config.py", RunDir(tmp_path / "run")
    file.write_text(f"import tiny\n\n\ndef get_config():\n    return tiny.config(**{SETTINGS})\n")
    arguments = [f"--config={file}", f"--workdir={run.path}", "--config.parallel.devices=0"]
    with Lease(run.path):
        for status, _, error in two_processes(*arguments):
            assert status == HELD_STATUS, error[-3000:]
            assert f"error: {run.path} is held by process {os.getpid()}" in error
    # Notice comes before the first step, of a new training and of one that goes on.
    for step in (1, 2):
        for status, _, error in two_processes(*arguments, TX_LAUNCHER="1"):
            assert status == STATUS, error[-3000:]
            assert f"interrupted (after step {step}): the same command goes on from here" in error
        assert max(int(path.name) for path in run.checkpoints.iterdir()) == step
    assert not run.error.exists()


def test_what_the_first_process_raises_ends_each_with_the_same_status(monkeypatch):
    sent, asked = [], []

    def broadcast(value):
        if not jax.process_index():
            sent.append(value)
            return value
        return sent.pop(0)

    def decide():
        asked.append(jax.process_index())
        raise error

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed.multihost_utils, "broadcast_one_to_all", broadcast)
    for error, status in ((Held("held"), HELD_STATUS), (Lost("lost"), LOST_STATUS), (UserError("wrong"), 2)):
        for process in (0, 1):
            monkeypatch.setattr(jax, "process_index", lambda process=process: process)
            with pytest.raises(UserError, match=f"^{error}$") as caught:
                distributed.broadcast_value(decide)
            assert caught.value.status == status
    assert asked == [0, 0, 0]


def test_before_they_part_processes_look_once_more_whether_they_are_to_end(monkeypatch, tmp_path):
    member = TrainingRun(tiny.config(**SETTINGS), RunDir(tmp_path), handful.prepared(copies=2))
    monkeypatch.setattr(experiment.provenance, "describe_computing", lambda *_: {})
    monkeypatch.setattr(experiment, "train", lambda *_: (None, [{}]))
    monkeypatch.setattr(experiment, "select_all", lambda *_: [])
    monkeypatch.setattr(distributed, "asked_to_end", lambda: True)
    with pytest.raises(Interrupted, match="after the training"):
        experiment._run_group([member], [{}], None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("host:1", "", ""), "TX_COORDINATOR set, but not TX_PROCESSES and TX_PROCESS"),
        (("", "2", "0"), "TX_PROCESSES and TX_PROCESS set, but not TX_COORDINATOR"),
        (("host", "2", "0"), "HOST:PORT, or auto and nothing else; got 'host'"),
        (("auto", "2", "0"), "got 'auto'"),
        (("host:1", "2", "2"), "must be one of 0 to TX_PROCESSES - 1; got '2' of '2'"),
        (("host:1", "2", "-1"), "got '-1' of '2'"),
        (("host:1", "two", "0"), "got '0' of 'two'"),
    ],
)
def test_an_environment_that_says_it_by_halves(monkeypatch, values, words):
    def never(**_):
        raise AssertionError("nothing is to be joined")

    monkeypatch.setattr(jax.distributed, "initialize", never)
    for name, value in zip(distributed.VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        distributed.join()
    assert words in str(caught.value)


def test_how_processes_are_joined(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **settings: asked.append(settings))
    for name in distributed.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    distributed.join()
    assert asked == []
    monkeypatch.setenv("TX_COORDINATOR", "auto")
    distributed.join()
    assert set(asked.pop()) == {"shutdown_timeout_seconds"}
    monkeypatch.setenv("TX_COORDINATOR", "node1:1234")
    monkeypatch.setenv("TX_PROCESSES", "4")
    monkeypatch.setenv("TX_PROCESS", "3")
    distributed.join()
    (settings,) = asked
    assert settings["cluster_detection_method"] == "deactivate"
    assert [settings[name] for name in ("coordinator_address", "num_processes", "process_id")] == ["node1:1234", 4, 3]

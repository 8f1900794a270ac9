"""`python -m tx.check`: rounding passes, a planted fault is found, and the exit status says so."""

import os
import pathlib
import subprocess
import sys

import handful
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from tx import check
from tx.errors import UserError
from tx.training import gradient_check
from tx.training import step as training_step
from tx.training.gradient_check import check_gradients, devices_of, every_way, fields_of

ROOT = pathlib.Path(__file__).resolve().parent.parent
WAYS = ["micro2", "remat", "bfloat16"]


def config(**diff):
    return tiny.config(model__vocab_size=handful.VOCAB_SIZE, model__num_layers=1, **diff)


@pytest.fixture
def little_model(monkeypatch):
    """A model that compiles at once: two products, and a parameter on which nothing depends."""
    rng = np.random.default_rng(1)
    start = {
        "first": {"kernel": rng.normal(0, 0.2, (handful.VOCAB_SIZE, 16)).astype(np.float32)},
        "idle": {"bias": np.ones(4, np.float32)},
        "second": {"kernel": rng.normal(0, 0.2, (16, 16)).astype(np.float32), "bias": np.zeros(16, np.float32)},
    }

    def loss(config, params, batch, *_, **__):
        dtype = config.model.dtype
        leaves = (params["first"]["kernel"], params["second"]["kernel"], params["second"]["bias"])
        first, kernel, bias = (leaf.astype(dtype) for leaf in leaves)
        hidden = jnp.tanh(first[batch["tgt"]] @ kernel + bias[None, None])
        logits = (hidden @ first.T).astype("float32")
        weights = (batch["tgt"] != 0).astype("float32")
        each = jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, batch["src"][..., None], -1)[..., 0]
        mean = (each * weights).sum() / jnp.maximum(weights.sum(), 1.0)
        return mean, jax.lax.stop_gradient(mean)

    monkeypatch.setattr(training_step, "init_params", lambda *_: jax.tree.map(jnp.array, start))
    monkeypatch.setattr(training_step, "batch_loss", loss)
    monkeypatch.setattr(gradient_check.tokenized, "prepare", lambda *_: handful.prepared(copies=2))
    return loss


def scaled(loss, factor, chosen):
    """The loss, its gradient scaled by a factor in the ways that are chosen by a configuration's field."""

    def planted(config, *arguments, **named):
        value, nll = loss(config, *arguments, **named)
        factored = factor * value + jax.lax.stop_gradient((1 - factor) * value) if chosen(config) else value
        return factored, nll

    return planted


@pytest.mark.slow
def test_rounding_passes(little_model):
    found = check_gradients(config(), WAYS)
    assert {way: (one.dtype, one.beyond) for way, one in found.ways.items()} == {
        "micro2": ("float32", {}),
        "remat": ("float32", {}),
        "bfloat16": ("bfloat16", {}),
    }
    assert found.left_out == {}
    assert set(found.rounding) == {"float32", "bfloat16"}
    usual = found.rounding["float32"]
    assert usual.pop("idle") == 0
    assert set(usual) == {"first", "second", "loss"}
    assert all(1 <= each < 100 for each in usual.values())
    assert 0 < found.ways["micro2"].groups["second"] < 100  # its sums are of another order
    assert found.ways["bfloat16"].groups["second"] > 1000


@pytest.mark.parametrize(
    ("factor", "way", "others", "chosen"),
    [
        (1.0001, "micro2", ["remat"], lambda c: c.train.micro_batches == 2),
        (1.0001, "remat", [], lambda c: c.train.remat),
        (2.0, "bfloat16", [], lambda c: c.model.dtype == "bfloat16"),
        pytest.param(float("nan"), "remat", [], lambda c: c.train.remat, marks=pytest.mark.slow),
    ],
)
def test_a_gradient_scaled_in_one_way_is_found(little_model, monkeypatch, factor, way, others, chosen):
    monkeypatch.setattr(training_step, "batch_loss", scaled(little_model, factor, chosen))
    found = check_gradients(config(), [way, *others]).ways
    assert [name for name, one in found.items() if one.beyond] == [way]
    assert set(found[way].beyond) >= {"first/kernel", "second/kernel", "second/bias"}
    if (
        way == "remat" and factor < 2
    ):  # one that has no rounding of its own: the difference is the fault, in roundings of float32
        assert found[way].groups["second"] == pytest.approx((factor - 1) * 2**23, rel=0.01)


def test_a_loss_that_is_another_is_found(little_model, monkeypatch):
    def other(config, *arguments, **named):
        loss, nll = little_model(config, *arguments, **named)
        return loss + 0.001 * config.train.remat, nll

    monkeypatch.setattr(training_step, "batch_loss", other)
    assert set(check_gradients(config(), ["remat"]).ways["remat"].beyond) == {"loss"}


def test_gradients_that_one_device_has_not_are_refused(little_model, monkeypatch):
    monkeypatch.setattr(training_step, "batch_loss", scaled(little_model, float("nan"), lambda c: True))
    with pytest.raises(UserError, match=r"base: on one device the gradient of first/kernel is not finite"):
        check_gradients(config(), ["remat"])


def test_what_is_not_allowed_is_left_out_or_refused(little_model):
    many = f"jit{jax.device_count() + 1}"
    found = check_gradients(config(), [many, "remat"], must=False)
    assert set(found.ways) == {"remat"}
    assert f"but there are {jax.device_count()}" in found.left_out[many]
    with pytest.raises(UserError, match=rf"but there are {jax.device_count()}"):
        check_gradients(config(), [many])
    found = check_gradients(config(data__batch_rows=5), ["micro2", "remat"], must=False)
    assert set(found.ways) == {"remat"}
    assert "data.batch_rows=5 cannot be cut" in found.left_out["micro2"]


def test_ways_by_name():
    assert fields_of("fsdp4") == {"parallel.devices": 4, "parallel.fsdp_shards": 4}
    assert devices_of(["micro9", "jit2", "pmap8", "remat"]) == 8
    for wrong in ("", "jit", "jit0", "remat2", "2", "bfloat", "jit-2", "jit99999999999"):
        with pytest.raises(UserError, match=f"no way '{wrong}'; there are jitN, fsdpN, pmapN, microN, remat, bfloat16"):
            fields_of(wrong)
    for rows, way in ((8, "micro4"), (9, "micro3"), (2, "micro2")):
        assert way in every_way(tiny.config(data__batch_rows=rows))


@pytest.mark.parametrize("way", ["jit5", "fsdp1000000", "pmap5"])
def test_no_more_devices_are_simulated_than_a_batch_has_rows(monkeypatch, capsys, way):
    """A million were still being made after a minute, before it was said that they cannot share a batch."""
    monkeypatch.setattr(check.cli, "load_config", lambda spec: config(data__batch_rows=4))
    monkeypatch.setattr(check.backend, "simulate_devices", lambda count: pytest.fail(f"simulates {count} devices"))
    monkeypatch.setattr(check.determinism, "fix", lambda parallel: None)
    with pytest.raises(SystemExit):
        check.main(["--config=it", f"--ways=jit4,{way}"])
    count = way.lstrip("abcdefghijklmnopqrstuvwxyz")
    line = f"error: --ways: {count} devices, but data.batch_rows=4 can be split over 4 at most"
    assert capsys.readouterr().err.splitlines()[-1] == line


@pytest.mark.parametrize(("factor", "status"), [pytest.param(1.0, 0, marks=pytest.mark.slow), (1.001, 1)])
def test_the_exit_status_and_the_verdict(little_model, monkeypatch, capsys, factor, status):
    monkeypatch.setattr(check.cli, "load_config", lambda spec: config())
    monkeypatch.setattr(check.backend, "simulate_devices", lambda count: None)  # JAX has started
    monkeypatch.setattr(check.determinism, "fix", lambda parallel: None)
    monkeypatch.setattr(check, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(check, "one_step_at_a_time", lambda: None)
    monkeypatch.setattr(training_step, "batch_loss", scaled(little_model, factor, lambda c: c.train.micro_batches == 2))
    assert check.main(["--config=it", "--set", "train.seed=3", "--ways=remat,micro2"]) == status
    lines = capsys.readouterr().out.splitlines()
    assert "remat: no more than rounding to float32" in lines
    [verdict] = [line for line in lines if line.startswith("micro2: ")]
    assert verdict.startswith(f"micro2: {'MORE' if status else 'no more'} than rounding to float32")
    assert lines[-1].endswith("that is rounding, amplified.") != bool(status)
    table = [line.split() for line in lines if line.split()[:1] in (["rounding,"], ["first"], ["loss"])]
    assert [row[0] for row in table] == ["rounding,", "first", "loss"]
    assert table[0] == ["rounding,", "float32", "remat", "micro2"]
    assert (float(table[1][3]) > 1000) == bool(status)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [False, True])
def test_the_command_as_started(tmp_path, fault):
    """Of the page, over devices that are simulated; a file of one's own may plant a fault, of pmap alone."""
    planted = """
import jax
from tx.training import step

sound = step.batch_loss

def batch_loss(config, *arguments, **named):
    loss, nll = sound(config, *arguments, **named)
    return (1.001 * loss if config.parallel.mode == "pmap" else loss), nll

step.batch_loss = batch_loss
"""
    (tmp_path / "fault.py").write_text(planted)
    command = [sys.executable, "-m", "tx.check", "--config=experiments/config.py:table3/base@smoke"]
    command += ["--ways=jit2,fsdp2,pmap2,micro4", "--set=model.num_layers=1", "--set=model.d_ff=64"]
    command += ["--import", str(tmp_path / "fault.py")] if fault else []
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    verdicts = [line.partition(": ")[2] for line in done.stdout.splitlines() if "than rounding" in line]
    assert done.returncode == int(fault), done.stderr
    assert [verdict.startswith("MORE") for verdict in verdicts] == [False, False, fault, False]

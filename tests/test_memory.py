"""What asks for more memory than there is, is named; a rehearsal finds it before a sweep starts."""

import functools

import handful
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from tx.data import tokenized
from tx.data.packing import FIELDS
from tx.errors import UserError
from tx.model import flops
from tx.runtime import memory
from tx.training import memory_check
from tx.training.stacking import TracedHyperparameters
from tx.training.step import init_state, train_step


@pytest.mark.parametrize(
    "allocate",
    [lambda: jnp.zeros((1 << 44,), jnp.float32).block_until_ready(), lambda: np.zeros((1 << 52,))],
    ids=["device", "host"],
)
def test_running_out_of_memory_is_a_line_that_names_the_sizes(allocate):
    config = tiny.config(data__batch_rows=8)
    with pytest.raises(UserError) as error, memory.named_training(config):
        allocate()
    line = str(error.value)
    assert line.startswith("out of memory training with data.batch_rows=8, data.row_length=32, model.vocab_size=40, ")
    assert ", which asked for " in line
    assert line.endswith(" more; raise train.micro_batches, or lower data.batch_rows")
    wanted = r"translating with decode.batch_tokens=8192, .*; lower decode.batch_tokens"
    with pytest.raises(UserError, match=wanted), memory.named_decoding(config):
        allocate()


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), memory.named("doing nothing", "rest"):
        raise ZeroDivisionError
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.named("doing nothing", "rest"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


SETTINGS = {
    "model__vocab_size": handful.VOCAB_SIZE,
    "model__num_layers": 1,
    "data__batch_rows": 2,
    "decode__splits": "validation",
    "decode__extra_length": 4,
}


@pytest.fixture
def in_memory(monkeypatch):
    monkeypatch.setattr(tokenized, "prepare", lambda *_: handful.prepared(copies=2))


@pytest.mark.slow
def test_a_rehearsal_runs_everything_and_leaves_nothing(in_memory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called = []
    for name in ("make_step_over_devices", "make_eval", "Translator"):
        real = getattr(memory_check, name)
        monkeypatch.setattr(memory_check, name, lambda *args, name=name, real=real: called.append(name) or real(*args))
    seeds = [tiny.config(**SETTINGS, train__seed=seed) for seed in (1, 2)]
    memory_check.check_memory(*seeds)
    assert called == ["make_step_over_devices", "make_eval", "Translator"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_rehearsal_finds_what_does_not_fit(in_memory):
    with pytest.raises(UserError, match=r"out of memory training with data\.batch_rows=2, data\.row_length=32, "):
        memory_check.check_memory(tiny.config(**SETTINGS | {"model__d_ff": 2**31 - 1}))


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes", [{"model__d_model": 128, "model__d_ff": 512, "data__batch_rows": 16}, {"model__vocab_size": 20_000}]
)
def test_the_estimate_is_of_the_right_size(sizes):
    """Beside what the compiler says that the step's program takes, arguments included."""
    config = tiny.config(**sizes)
    state = jax.eval_shape(lambda: init_state(config))
    rows = jax.ShapeDtypeStruct((config.data.batch_rows, config.data.row_length), jnp.int32)
    step = jax.jit(functools.partial(train_step, config))
    used = step.lower(state, dict.fromkeys(FIELDS, rows), TracedHyperparameters.of(config)).compile().memory_analysis()
    real = used.temp_size_in_bytes + used.argument_size_in_bytes
    assert real / 3 < flops.step_bytes(config) < 3 * real

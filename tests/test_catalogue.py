"""Every variant of every sweep built without being allocated; one of each kind made, trained and used, small."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments import claims, registry
from experiments.scales import SCALES
from tx import config as config_lib
from tx.data.packing import FIELDS
from tx.decoding.translator import Translator
from tx.model import flops
from tx.model.feed_forward import feed_forwards
from tx.model.mixers import mixers
from tx.model.norms import norms
from tx.model.positions import positions
from tx.model.similarity import similarities
from tx.model.transformer import Transformer
from tx.training.optimizer import schedules
from tx.training.step import init_state, make_train_step

SWEEPS = [sweep.name for sweep in registry.sweeps() if sweep.name != "decoding"]
NAMES = [name for sweep in SWEEPS for name in registry.select(f"{sweep}@paper")]
NAMES += registry.select("decoding/*/alpha=1.0/average=5@paper")  # all others are like these
SHRUNK = {"model.vocab_size": 40, "data.batch_rows": 2, "data.row_length": 16, "decode.extra_length": 3}

# Every component once, in as few trainings as there are kinds of positions.
TOGETHER = (
    "positions=sinusoidal similarity=additive mixer=recurrent feed_forward=none",
    "positions=learned similarity=cosine mixer=convolution feed_forward=gelu",
    "positions=none similarity=unscaled mixer=dilated feed_forward=swiglu",
    "positions=relative similarity=scaled mixer=attention feed_forward=relu",
    "positions=rotary similarity=cosine mixer=local normalization=rms",
    "positions=t5 similarity=additive num_kv_heads=1 schedule=constant",
    "positions=alibi similarity=unscaled num_kv_heads=2 tying=two schedule=cosine",
)


def small(name, diff=None):
    """A variant's configuration at a sixteenth of the paper's width and, where the row is not about N, one layer."""
    config = registry.get_config(name)
    config_lib.update(config, diff or {})
    sizes = {field: max(1, config.model[field] // 16) for field in ("d_model", "d_ff", "d_k", "d_v")}
    sizes["num_layers"] = 2 if config.model.mixer == "dilated" else 1
    sizes["decoder_layers"] = min(config.model.decoder_layers, 2)
    config_lib.update(config, SHRUNK | {f"model.{field}": size for field, size in sizes.items()})
    config_lib.validate(config)
    return config


def kind_of(config):
    """What a variant is but for sizes and rates: its fields, of numbers whether they are 0, 1, or something else."""
    fields = config_lib.fields(config).items()
    told = {field: value for field, value in fields if field.split(".")[0] in ("model", "optim", "loss")}
    return tuple((field, value if isinstance(value, str) else {0: 0, 1: 1}.get(value)) for field, value in told.items())


def one_of_each_kind(names):
    """The names of the first variants of each kind, as they are made small."""
    found = {}
    for name in names:
        found.setdefault(kind_of(small(name)), name)
    return list(found.values())


def batch():
    rng = np.random.default_rng(0)
    made = {field: np.zeros((2, 16), np.int32) for field in FIELDS}
    for side, lengths in (("src", (5, 7, 3)), ("tgt", (6, 4, 5))):
        for row, start, length, segment in zip((0, 0, 1), (0, lengths[0], 0), lengths, (1, 2, 1), strict=True):
            place = slice(start, start + length)
            made[side][row, place] = tiny.sentences(rng, [length])[0]
            made[f"{side}_segments"][row, place] = segment
            made[f"{side}_positions"][row, place] = np.arange(length)
    return made


def trains_and_translates(config):
    state, step, before = init_state(config), make_train_step(config), None
    for _ in range(2):
        state, metrics = step(state, batch())
        assert math.isfinite(metrics["loss"])
        before = metrics["loss"] if before is None else before
    assert metrics["loss"] != before
    assert int(state.step) == 2
    rng = np.random.default_rng(1)
    translations = Translator(config, state.params)([row[row != 0] for row in tiny.sentences(rng, [4, 6])])
    assert [len(one) <= 6 + config.decode.extra_length for one in translations] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
def test_every_variant_is_built_at_every_scale(scale):
    """Without being allocated; with as many parameters as the formula says."""
    names = [name for sweep in registry.sweeps() for name in registry.select(f"{sweep.name}@{scale}")]
    models = {config.model.to_json(): config.model for config in map(registry.get_config, names)}
    assert len(models) > len(registry.sweeps())
    empty = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    for model in models.values():
        shapes = jax.eval_shape(Transformer(**model).init, jax.random.key(0), empty, empty)["params"]
        assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == flops.parameter_count(model), model


@pytest.mark.slow
@pytest.mark.parametrize("name", one_of_each_kind(NAMES))
def test_trained_for_two_steps_and_translating(name):
    trains_and_translates(small(name))


def diff_of(components):
    """The fields that a line of TOGETHER sets."""
    pairs = (component.split("=") for component in components.split())
    return {f"{'optim' if field == 'schedule' else 'model'}.{field}": value for field, value in pairs}


@pytest.mark.slow
@pytest.mark.parametrize("components", TOGETHER)
def test_every_component_trains_and_translates(components):
    trains_and_translates(small("table3/base@paper", diff_of(components)))


def test_no_component_is_left_out():
    base = config_lib.fields(registry.get_config("table3/base@paper"))
    for kind in (positions, similarities, mixers, feed_forwards, norms, schedules):
        tried = {diff_of(components).get(kind.field, base[kind.field]) for components in TOGETHER}
        assert tried == set(kind), kind.field


def test_no_two_decodings_are_one_search():
    """Of a beam of one, which has one hypothesis, no length penalty chooses another."""
    decodings = [registry.get_config(name).decode for name in registry.select("decoding/*@paper")]
    searched = [(one.beam, one.alpha if one.beam > 1 else None, one.average_last) for one in decodings]
    assert len(set(searched)) == len(searched) == 39


@pytest.mark.parametrize("scale", [name for name in SCALES if name != "recall"])
def test_an_average_of_the_newest_is_compared_with_the_newest(scale):
    """Not with the checkpoint of the lowest dev loss, which would be two changes at once."""
    averaged = []
    for sweep in registry.sweeps():
        configs = [registry.get_config(name) for name in registry.select(f"{sweep.name}/*@{scale}")]
        if any(config.decode.average_last > 1 for config in configs):
            averaged.append(sweep.name)
            assert {config.train.select for config in configs} == {"last"}
    assert averaged == ["decoding", "regularised", "table2"]


def test_what_is_claimed_of_a_longer_warm_up_is_claimed_where_it_ends():
    (claim,) = [one for one in claims.of_sweep("schedule", "multi30k") if one.row == "warmup=16000"]
    for scale in claim.scales:
        config = registry.get_config(f"schedule/warmup=16000@{scale}")
        assert config.optim.warmup_steps < config.train.steps
    config = registry.get_config("schedule/warmup=16000@smoke")
    assert config.optim.warmup_steps > config.train.steps
    assert not [one for one in claims.of_sweep("schedule", "smoke") if one.row == "warmup=16000"]

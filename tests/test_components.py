"""Components with fields of their own: declared, chosen, set, refused, and handed to what is registered."""

import functools
import inspect
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments import __main__ as command
from experiments import points, registry
from experiments.registry import Sweep, Variant
from experiments.report.symbols import SYMBOLS, changes
from experiments.scales import SCALES
from tx import components
from tx import config as config_lib
from tx.decoding.limits import find_long_sources
from tx.decoding.translator import Translator
from tx.errors import UserError
from tx.evaluation.metrics import metrics
from tx.fields import ANY, FIELDS, SHARE, Field
from tx.model.feed_forward import FeedForward, feed_forwards
from tx.model.flops import parameter_count
from tx.model.loss import batch_loss
from tx.model.losses import losses
from tx.model.mixers import Mixer, mixers
from tx.model.norms import norms
from tx.model.positions import PositionEncoding, positions
from tx.model.similarity import Similarity, similarities
from tx.model.transformer import Transformer
from tx.registry import Configured, Registry
from tx.training.checks import check_config
from tx.training.optimizer import optimizers, schedule, schedules
from tx.training.stacking import TracedHyperparameters

BUILT_IN = [positions, similarities, mixers, norms, feed_forwards, losses, schedules, optimizers]


def updated(*diffs):
    config = config_lib.get_config()
    for diff in diffs:
        config_lib.update(config, diff)
    config_lib.validate(config)
    return config


def names(config):
    return set(config_lib.fields(config))


@pytest.fixture
def added():
    """Returns a function that registers a component for the test: (registry, component, name, *shared, **own)."""
    mine = []

    def add(those, component, name, *shared, **own):
        those.register(name, *shared, **own)(component)
        mine.append((those, name))
        return component

    yield add
    for those, name in mine:
        del those._components[name]
        components.withdraw(those.field, name)


@pytest.mark.parametrize("those", BUILT_IN, ids=lambda those: those.field)
def test_what_is_declared_is_what_is_registered(those):
    assert list(those) == components.names(those.field)
    assert FIELDS[those.field].default in those
    for name in those:
        declared, component = components.declaration(those.field, name), those._components[name]
        wanted = {*declared.own, *declared.shared}
        if wanted:  # each is an argument of the component, and nothing that has no field is one
            parameters = inspect.signature(component).parameters.values()
            assert {one.name for one in parameters if one.kind is one.KEYWORD_ONLY} == wanted


@functools.cache
def traced(**diff):
    """The loss of a configuration as JAX traces it, constants included: equal where nothing else is computed."""
    config = tiny.config(model__num_layers=1, **diff)
    tokens = jnp.asarray(tiny.sentences(np.random.default_rng(1), [4, 3]))
    init = jax.eval_shape(lambda: Transformer(**config.model).init(jax.random.key(0), tokens, tokens))

    def loss(params):
        rates = TracedHyperparameters.of(config)
        return batch_loss(config, params, {"src": tokens, "tgt": tokens}, rates, jax.random.key(1))

    closed = jax.make_jaxpr(loss)(init["params"])
    return re.sub("0x[0-9a-f]+", "", str(closed)), [
        np.asarray(one).tobytes() for one in closed.consts if not jnp.issubdtype(one.dtype, jax.dtypes.prng_key)
    ]


@pytest.mark.parametrize(
    ("field", "other"),  # than that of the tiny configuration
    [
        ("model.normalization", "rms"),
        ("model.neighbourhood", 2),
        ("model.kernel_width", 5),
        ("model.max_positions", 65),
        ("model.scale_positions", False),
        ("model.max_offset", 4),
        ("model.sinusoid_layout", "interleaved"),
        ("model.sinusoid_endpoint", False),
        ("model.d_ff", 28),
        ("model.relu_dropout", 0.2),
    ],
)
def test_a_field_is_read_by_the_components_that_it_is_said_to_be(field, other):
    assert config_lib.fields(tiny.config())[field] != other
    choosing, those = components.readers(field)
    for name in FIELDS[choosing].choices or components.names(choosing):
        chosen = {choosing: name}
        assert (traced(**chosen) != traced(**chosen, **{field: other})) == (name in those), name
        assert components.is_unread(field, chosen) == (name not in those)


def test_a_component_of_one_s_own_may_read_what_every_run_has(added):
    added(positions, Near, "neighbour", reach=Field(8, "m"))
    assert not components.is_unread("model.max_offset", {"model.positions": "neighbour"})
    assert components.readers("model.max_offset") == ("model.positions", ["relative", "neighbour"])
    assert components.readers("optim.beta1") == components.owners("optim.beta1")
    assert components.readers("model.dropout") is None


def test_a_configuration_holds_the_fields_of_what_it_chooses():
    assert names(config_lib.get_config()) == set(FIELDS)
    adam = {"optim.beta1", "optim.beta2", "optim.epsilon"}
    lion = {"optim.lion.b1", "optim.lion.b2", "optim.lion.weight_decay"}
    assert names(updated({"optim.optimizer": "lion"})) == (set(FIELDS) - adam) | lion
    assert names(updated({"optim.optimizer": "adamw"})) == set(FIELDS) | {"optim.adamw.weight_decay"}
    back = updated({"optim.optimizer": "lion", "optim.lion.b1": 0.8}, {"optim.optimizer": "adam"})
    assert back.to_dict() == config_lib.get_config().to_dict()
    # What is chosen counts before its fields, wherever it stands.
    assert updated({"optim.lion.b1": "0.8", "optim.optimizer": "lion"}).optim.lion.b1 == 0.8


@pytest.mark.parametrize(
    ("diff", "message"),
    [
        ({"optim.lion.b1": 0.9}, "optim.lion.b1 belongs to optim.optimizer=lion; this run has adam"),
        (
            {"optim.optimizer": "sgd", "optim.beta1": 0.8},
            "optim.beta1 belongs to optim.optimizer=adam or adamw or muon; this run has sgd",
        ),
        ({"optim.optimizer": "lion", "optim.lion.b3": 0.9}, "no configuration field 'optim.lion.b3'; the nearest is"),
        ({"optim.optimizer": "mine", "optim.mine.b": 1}, "; one of a component of your own needs --import FILE.py"),
        ({"optim.optimizer": "lion", "optim.lion.b1": 1.0}, "optim.lion.b1 must lie in [0, 1); got 1.0"),
        ({"optim.optimizer": "lion", "optim.lion.b1": "x"}, "optim.lion.b1 takes a finite number, got 'x'"),
        ({"optim.optimizer": "sgd", "optim.sgd.nesterov": "2"}, "optim.sgd.nesterov takes true or false"),
        ({"optim.clip_norm": -1.0}, "optim.clip_norm must be at least 0"),
        ({"optim.optimizer": "adan"}, "no optim.optimizer 'adan'; the nearest is 'adam' (there are: adafactor, adam, "),
        ({"model.positions": "rotory"}, "no model.positions 'rotory'; the nearest is 'rotary'"),
    ],
    ids=str,
)
def test_what_is_refused_in_a_line(diff, message):
    with pytest.raises(UserError) as caught:
        updated(diff)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_before_and_of_others_read_as_they_were():
    old = config_lib.get_config().to_dict()
    del old["optim"]["optimizer"], old["optim"]["clip_norm"]
    assert config_lib.differences(old, config_lib.get_config().to_dict()) == {}
    lion = updated({"optim.optimizer": "lion"}).to_dict()
    assert config_lib.differences(old, lion) == {"optim.optimizer": ("adam", "lion")}
    before = json.loads(json.dumps(lion))
    del before["optim"]["lion"]["b1"]  # a field that was added since
    assert config_lib.differences(before, lion) == {}
    other = updated({"optim.optimizer": "lion", "optim.lion.b1": 0.8}).to_dict()
    assert config_lib.differences(before, other) == {"optim.lion.b1": (0.9, 0.8)}


def test_a_component_of_ones_own_makes_no_run_stale(added):
    before = updated({"optim.optimizer": "lion"}).to_dict()
    added(optimizers, lambda rate, *, trust: rate, "mine", trust=Field(0.5, "how much"))
    assert updated({"optim.optimizer": "lion"}).to_dict() == before
    mine = updated({"optim.optimizer": "mine", "optim.mine.trust": "2"})
    assert names(mine) == (set(FIELDS) | {"optim.mine.trust"}) - {"optim.beta1", "optim.beta2", "optim.epsilon"}
    assert optimizers.of(mine.optim).keywords == {"trust": 2.0}
    assert optimizers["mine"].keywords == {"trust": 0.5}


def test_fields_that_are_shared_are_handed_on(added):
    added(optimizers, lambda rate, *, beta1, trust: rate, "mine", "beta1", trust=Field(0.5, "how much"))
    mine = updated({"optim.optimizer": "mine", "optim.beta1": 0.7})
    assert optimizers.of(mine.optim).keywords == {"trust": 0.5, "beta1": 0.7}
    assert "optim.beta2" not in names(mine)


def test_a_schedule_has_fields_too(added):
    added(schedules, lambda step, warmup, steps, *, power: step**-power, "power", power=Field(0.5, "of the step"))
    for diff, want in (({}, 9**-0.5), ({"optim.power.power": 1.0}, 1 / 9)):
        config = updated({"optim.schedule": "power", "optim.warmup_steps": 0, "model.d_model": 512} | diff)
        assert float(schedule(config)(8)) == pytest.approx(512**-0.5 * want, rel=1e-5)


@pytest.mark.parametrize(
    ("those", "name", "arguments", "message"),
    [
        (mixers, "twin", {"reach": Field(1, "m")}, r"model.positions=twin has fields model.twin.\* already"),
        (positions, "dropout", {"reach": Field(1, "m")}, "model.dropout is a field already"),
        (positions, "a.b", {"reach": Field(1, "m")}, "'a.b' is no name for a part of a field"),
        (positions, "rotary", {}, "'rotary' is registered twice"),
        (positions, "other", {"nowhere": Field(1, "m")}, "'other' takes no argument nowhere"),
    ],
)
def test_what_cannot_be_registered(added, those, name, arguments, message):
    added(positions, type("Twin", (Near,), {}), "twin", reach=Field(8, "m"))
    with pytest.raises(ValueError, match=message):
        those.register(name, **arguments)(Near)
    assert name in ("rotary", "twin") or name not in components.names(those.field)


@pytest.mark.parametrize(
    ("those", "base", "name"),
    [
        (positions, PositionEncoding, "max_offset"),
        (mixers, Mixer, "kernel_width"),
        (feed_forwards, FeedForward, "d_ff"),
        (similarities, Similarity, "d_k"),
        (norms, norms["rms"], "parent"),
    ],
)
def test_a_field_that_what_the_model_hands_on_would_hide_is_refused(those, base, name):
    """Else the component would be made with model.max_offset, whatever model.NAME.max_offset is."""
    assert {*those.given, *those.reserved} == set(base.__dataclass_fields__)
    with pytest.raises(ValueError, match=f"is given its {name} by the model, which would hide a field of that name"):
        those.register("hidden", **{name: Field(3, "m")})(base)
    assert "hidden" not in those
    assert "hidden" not in components.names(those.field)


@pytest.mark.parametrize(
    ("those", "component", "field"),
    [
        (losses, lambda logits, labels, sharpness: 0, "labels"),
        (schedules, lambda step, warmup, steps, power: 0, "warmup"),
        (optimizers, lambda rate, trust: 0, "rate"),
        (metrics._registry, lambda translations, least: 0, "translations"),
    ],
)
def test_a_field_that_takes_the_place_of_what_is_given_by_position_is_refused(added, those, component, field):
    """Else the call is a TypeError, once a run has begun."""
    with pytest.raises(
        ValueError, match=f"'hidden': {field} is a field of it, but its argument ., and every component"
    ):
        those.register("hidden", **{field: Field(0.5, "m")})(component)
    assert "hidden" not in those
    assert "hidden" not in components.names(those.field)
    free = [*inspect.signature(component).parameters][those.positional]
    added(those, component, "free", **{free: Field(0.5, "m")})
    assert those["free"](*range(those.positional)) == 0
    with pytest.raises(ValueError, match=f"'few' takes 0 arguments by position, and .* given {those.positional} by"):
        those.register("few")(lambda: 0)
    assert "few" not in components.names(those.field)


@pytest.mark.parametrize(
    ("those", "component", "lacks"),
    [
        (norms, lambda: norms["rms"](), "got an unexpected keyword argument 'name'"),
        (norms, lambda depth, name=None: norms["rms"](name=name), "missing a required argument: 'depth'"),
        (norms, type("Deep", (norms["rms"],), {"__annotations__": {"depth": int}}), "missing a .* argument: 'depth'"),
        (similarities, lambda num_heads: None, "got an unexpected keyword argument 'd_k'"),
        (positions, lambda d_model: None, "got an unexpected keyword argument '.*'"),
        (mixers, lambda attention, name=None: None, "got an unexpected keyword argument '.*'"),
        (feed_forwards, lambda d_model, d_ff, dtype, name=None: None, "an unexpected keyword argument 'relu_dropout'"),
        (losses, lambda logits, labels, sharpness: 0, "missing a required argument: 'sharpness'"),
        (optimizers, lambda rate, *, momentum: 0, "missing a required .*argument: 'momentum'"),
        (metrics._registry, lambda given, least: 0, "missing a required argument: 'least'"),
    ],
)
def test_what_cannot_be_called_as_its_kind_is_cannot_be_registered(those, component, lacks):
    """Else the call is a TypeError, where a list counts parameters or a run begins."""
    with pytest.raises(
        ValueError, match=f"{those.field} 'unlike' cannot be called with what every .* given: .*{lacks}"
    ):
        those.register("unlike")(component)
    assert "unlike" not in those
    assert "unlike" not in components.names(those.field)


def test_a_default_alone_is_no_field():
    with pytest.raises(ValueError, match=r"reach is no tx\.fields\.Field"):
        components.declare("model.positions", "other", (), {"reach": 8})


def test_a_share_that_the_group_has_not_is_refused():
    with pytest.raises(ValueError, match=r"optim\.beta9 is no field that components of optim\.optimizer share"):
        optimizers.register("other", "beta9")(lambda rate, *, beta9: rate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, "m"), "the default of a field is"),
        ((1, ""), "is one line"),
        ((1, "a\nb"), "is one line"),
        ((0, "m"), "the default must be positive"),
        ((1.0, "m", SHARE), r"must lie in \[0, 1\)"),
        (("x", "m", ("a", "b")), "the default is one of a, b"),
        ((1, "m", "small"), "a number is one of"),
        (("x", "m", ("x")), "is a tuple of its choices; got 'x'"),  # no tuple, for want of a comma
    ],
)
def test_a_field_that_makes_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        Field(*arguments)


def test_any_number():
    Field(-1.0, "m", ANY).check("x", -3.0)


# In a model.


class Near(PositionEncoding):
    """A number for each near offset."""

    reach: int

    def setup(self):
        self.table = self.param("table", lambda key, shape: jnp.ones(shape), (2 * self.reach + 1, self.num_heads))

    def logit_bias(self, layer, query, offset):
        return self.table[jnp.clip(offset, -self.reach, self.reach) + self.reach].transpose(2, 0, 1)[None]


def test_a_model_hands_fields_to_its_components(added):
    added(positions, Near, "near", reach=Field(8, "offsets from here on share a number"))
    for reach in (8, 3):
        config = tiny.config(model__num_layers=1, model__positions="near", model__near__reach=reach)
        empty = jax.ShapeDtypeStruct((1, 1), "int32")
        params = jax.eval_shape(Transformer(**config.model).init, jax.random.key(0), empty, empty)["params"]
        assert params["source_position"]["table"].shape == (2 * reach + 1, 2)


def test_a_fused_kernel_of_attention_is_refused_where_it_would_leave_a_bias_out(added):
    added(positions, Near, "near", reach=Field(8, "offsets from here on share a number"))
    sizes = {"model__d_k": 8, "model__d_v": 8, "model__dtype": "bfloat16", "data__row_length": 128}
    sizes |= {"model__attention_backend": "cudnn", "model__max_positions": 128}
    with pytest.raises(UserError, match=r"adds nothing to logits or values; model\.positions=near does: set "):
        check_config(tiny.config(**sizes, model__positions="near"))
    for name in ("relative", "t5", "alibi"):
        with pytest.raises(UserError, match="needs positions that add nothing to the logits; or set"):
            tiny.config(**sizes, model__positions=name)
    for name in ("sinusoidal", "learned", "rotary", "none"):
        check_config(tiny.config(**sizes, model__positions=name))
    added(positions, lambda **fields: positions["none"](**fields), "made")
    with pytest.raises(
        UserError, match="=made is made by a function, of which it is not known: register a class, or set "
    ):
        check_config(tiny.config(**sizes, model__positions="made"))


ADDED = ("none", "sinusoidal", "learned")  # at most vectors are added to the embeddings, whatever mixes these


def doubled(encoding):
    """An encoding that tells attention twice of what it tells."""

    def twice(method):
        def made(self, *inputs):
            return method(self, *inputs) * 2

        return made

    methods = {name: getattr(encoding, name) for name in ("rotate", "logit_bias", "value_bias")}
    own = {name: twice(one) for name, one in methods.items() if one is not getattr(PositionEncoding, name)}
    return type(encoding.__name__, (encoding,), own)


def refusal(config):
    try:
        config_lib.validate(config)
        check_config(config)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("mixer", list(mixers))
def test_positions_that_a_mixer_leaves_out_are_refused(mixer, monkeypatch):
    """They are those of which other ones give the same logits to the bit."""
    bare = {"model.num_layers": 1, "model.feed_forward": "none", "model.norm": "none", "model.target_spaces": 0}
    tokens, rng = jnp.asarray([[5, 9, 7, 1]]), np.random.default_rng(1)
    for name in positions:
        config = config_lib.get_config()
        config_lib.update(config, tiny.SIZES | bare | {"model.positions": name, "model.mixer": mixer})
        refused = refusal(config)
        if name in ADDED:
            assert refused is None
            continue
        model = Transformer(**config.model)
        shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens)
        variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)
        with jax.disable_jit():  # of a scan and the like, which would be compiled for every pair
            before = model.apply(variables, tokens, tokens)
            monkeypatch.setitem(positions._components, name, doubled(positions[name]))
            after = model.apply(variables, tokens, tokens)
        assert np.array_equal(before, after) == (refused is not None)
        if refused is not None:
            assert f"model.positions={name} acts within self-attention, and model.mixer={mixer} has none; c" in refused


def test_one_stack_asks_for_another_mixer_before_other_positions():
    """Its mixer is attention, so it tells any positions."""
    config = config_lib.get_config()
    config_lib.update(config, {"model.architecture": "decoder_only"})
    for name in positions:
        config_lib.update(config, {"model.positions": name, "model.mixer": "dilated"})
        assert "decoder_only needs model.mixer=attention" in refusal(config)
        config_lib.update(config, {"model.mixer": "attention"})
        assert refusal(config) is None


class Moved(Near):
    """Near, with a vector added."""

    def __call__(self, position):
        return jnp.ones((*position.shape, self.d_model))


def test_positions_of_ones_own_that_a_mixer_leaves_out_are_refused(added):
    """A mixer of one's own is handed them all, and may ask for any."""
    field = Field(8, "offsets from here on share a number")
    added(positions, Near, "near", reach=field)
    added(positions, Moved, "moved", reach=field)
    added(positions, type("Turned", (positions["rotary"],), {}), "turned")
    added(positions, type("Nothing", (PositionEncoding,), {}), "nothing")
    added(positions, lambda **fields: positions["rotary"](**fields), "made")
    added(mixers, mixers["dilated"], "mine")
    for mixer in mixers:
        for name in ("near", "moved", "turned", "nothing", "made"):
            config = tiny.config(model__positions=name, model__mixer=mixer)
            if name in ("near", "turned") and mixer in ("recurrent", "convolution", "dilated"):
                with pytest.raises(UserError, match=rf"positions={name} acts within .*mixer={mixer} has none; choose"):
                    check_config(config)
            else:
                check_config(config)


def test_positions_of_ones_own_end_where_their_table_does(added):
    added(positions, type("Small", (positions["learned"],), {}), "small")
    added(
        positions, type("Table", (Near,), {"is_limited": classmethod(lambda cls: True)}), "table", reach=Field(8, "m")
    )
    added(positions, Near, "near", reach=Field(8, "m"))
    for name in ("learned", "small", "table"):
        config = tiny.config(model__positions=name)
        check_config(config)
        with pytest.raises(UserError, match=r"data\.row_length=65 allows sentences that need 65 positions"):
            check_config(tiny.config(model__positions=name, data__row_length=65))
        assert list(find_long_sources(config, {0: np.ones(65, np.int32), 1: np.ones(3, np.int32)})) == [0]
    check_config(tiny.config(model__positions="near", data__row_length=65))


@pytest.mark.parametrize(
    ("those", "base", "field"),
    [(positions, "sinusoidal", "d_model"), (positions, "rotary", "d_k"), (mixers, "recurrent", "d_model")],
)
def test_an_odd_width_is_refused_of_what_is_made_of_a_component_too(added, those, base, field):
    added(those, type("Mine", (those[base],), {}), "mine")
    for name in (base, "mine"):
        chosen = {"model.positions": "none", f"model.{field}": 15, those.field: name}
        with pytest.raises(UserError, match=rf"model\.{field} must be even for .*; got 15"):
            parameter_count(tiny.config(**chosen).model)


def test_a_component_may_be_named_as_a_dropout_is(added):
    """Only the three fields are rates."""
    added(positions, Near, "neardropout", reach=Field(3, "offsets from here on share a number"))
    config = tiny.config(model__num_layers=1, model__positions="neardropout", decode__beam=1, model__relu_dropout=0.2)
    _, params = tiny.init(config)
    tokens = jnp.asarray(tiny.sentences(np.random.default_rng(1), [4, 3]))
    rates = TracedHyperparameters.of(config)
    batch = {"src": tokens, "tgt": tokens}
    loss, _ = jax.jit(lambda params: batch_loss(config, params, batch, rates, jax.random.key(1)))(params)
    assert np.isfinite(loss)
    assert len(Translator(config, params)([np.array([5, 6, 1])])) == 1


def test_every_kind_in_a_model_takes_fields(added):
    seen = {}

    def remember(kind, base):
        class Mine(base):
            depth: int

            def setup(self):
                seen.setdefault(kind, self.depth)
                super().setup()

        return Mine

    def mixer(attention, depth, name=None, **more):
        seen["mixer"] = depth
        return mixers["attention"](attention=attention, name=name, **more)

    def norm(depth, name=None):
        seen["normalization"] = depth
        return norms["rms"](name=name)

    def network(depth, **more):
        seen["feed_forward"] = depth
        return feed_forwards["gelu"](**more)

    field = Field(1, "how deep")
    added(similarities, remember("similarity", similarities["scaled"]), "mine_a", depth=field)
    added(mixers, mixer, "mine_b", depth=field)
    added(norms, norm, "mine_c", depth=field)
    added(feed_forwards, network, "mine_d", depth=field)
    kinds = ("similarity", "mixer", "normalization", "feed_forward")
    chosen = {f"model__{kind}": f"mine_{letter}" for kind, letter in zip(kinds, "abcd", strict=True)}
    depths = {f"model__mine_{letter}__depth": i for i, letter in enumerate("abcd", 2)}
    config = tiny.config(model__num_layers=1, **chosen, **depths)
    empty = jax.ShapeDtypeStruct((1, 1), "int32")
    jax.eval_shape(Transformer(**config.model).init, jax.random.key(0), empty, empty)
    assert seen == dict(zip(kinds, range(2, 6), strict=True))


def test_a_name_with_values():
    shapes = Registry("model.outline")
    shapes.register("dot", size=Field(1, "m"))(lambda *, size: size)
    try:
        assert shapes["dot"]() == 1
        assert shapes[shapes.configured("dot", {"dot": {"size": 4}})]() == 4
        assert shapes.configured("dot", {}) == "dot"
        assert shapes[Configured("dot", (("size", 3),))]() == 3
    finally:
        components.withdraw("model.outline", "dot")


# In sweeps, names and lists.

SWEEP = Sweep(
    name="two",
    base={},
    variants=(Variant("base"), Variant("lion", {"optim.optimizer": "lion", "optim.lion.b1": 0.8})),
    doc="Two",
)


def test_a_variant_differs_in_what_was_set():
    scale = SCALES["smoke"]
    config = registry.resolve(SWEEP, SWEEP.variants[1], scale)
    found = registry.diff(config, registry.base_config(SWEEP, scale))
    assert found == {"optim.optimizer": "lion", "optim.lion.b1": 0.8}
    assert changes(found) == "lion.b1=0.8 optimizer=lion"
    assert registry.resolve(SWEEP, SWEEP.variants[1], scale, {"optim.optimizer": "sgd"}).optim.sgd.momentum == 0.9


def test_the_name_of_a_point_does_not_depend_on_other_components(added):
    point = {"optim.lion.b1": 0.5, "optim.optimizer": "lion", "model.num_heads": 2}
    assert points.name("base", point) == "base+num_heads=2,lion.b1=0.5,optimizer=lion"
    added(positions, Near, "lion", reach=Field(8, "m"))
    assert points.name("base", point) == "base+num_heads=2,lion.b1=0.5,optimizer=lion"
    assert points.name("base", {"model.lion.reach": 1, "optim.lion.b1": 0.5}) == "base+lion.reach=1,lion.b1=0.5"


def test_every_field_is_listed_with_its_meaning(capsys):
    assert command.main(["list", "--fields", "--format=json"]) == 0
    listed = {one["field"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed.keys() == components.known_fields().keys() - {"version", "name"}
    assert all(one["meaning"] for one in listed.values())
    assert (listed["model.dropout"]["symbol"], listed["model.dropout"]["takes"]) == ("P_drop", "in [0, 1)")
    assert listed["optim.lion.b1"]["of"] == "optim.optimizer=lion"
    assert listed["model.neighbourhood"]["of"] == "model.mixer=local"
    assert listed["optim.beta1"]["of"] == "optim.optimizer=adam,adamw,muon"
    assert listed["optim.optimizer"]["takes"] == ", ".join(optimizers)
    assert listed["model.norm"]["takes"] == "post, pre, none"
    assert command.main(["list", "--fields"]) == 0
    assert "optim.lion.b1" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["list", "table3", "--fields"])


def test_symbols_of_tables_are_those_of_the_fields():
    assert {field: FIELDS[field].symbol for field in SYMBOLS if FIELDS[field].symbol} == {
        field: SYMBOLS[field] for field in SYMBOLS if FIELDS[field].symbol
    }
    assert [field for field in SYMBOLS if FIELDS[field].symbol][:7] == list(SYMBOLS)[:7]


def test_listing_needs_no_jax():
    code = "import sys; from experiments import __main__ as c; c.main(['list', '--fields']); "
    code += "assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

"""Depths of the stacks, one stack in place of two, and layers that are computed again: counts, rows, limits, values."""

import pathlib

import handful
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_limits import config as limited
from test_limits import text
from test_probe import two_rows

from experiments import registry
from experiments.analysis import complexity, figures
from experiments.registry import Sweep, Variant
from experiments.scales import SCALES, parse_scale
from launch.gpu.budget import training_seconds
from tx import config as config_lib
from tx.decoding import trained_model
from tx.decoding.limits import check_corpus
from tx.errors import UserError
from tx.evaluation import attention_probe
from tx.model import flops
from tx.model.loss import batch_loss
from tx.model.prefix import JoinedRows, align_right
from tx.model.transformer import Transformer
from tx.runs import provenance
from tx.runs.run_dir import RunDir
from tx.training.checks import check_config
from tx.training.stacking import TracedHyperparameters

ONE_STACK = {"model__architecture": "decoder_only"}


def shapes(config):
    """Those of the parameters."""
    return jax.eval_shape(lambda: tiny.init(config)[1])


# Counts


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model__decoder_layers": 3, "model__num_kv_heads": 1},
        {"model__num_layers": 3, "model__decoder_layers": 1, "model__feed_forward": "swiglu"},
        ONE_STACK,
        ONE_STACK | {"model__num_layers": 3, "model__num_kv_heads": 1, "model__feed_forward": "none"},
    ],
    ids=str,
)
def test_forward_flops_are_those_of_the_program_less_the_products_of_attention(fields):
    config, (m, n) = tiny.config(**fields), (7, 5)
    model, params = Transformer(**config.model), shapes(config)
    src, tgt = (jax.ShapeDtypeStruct((1, length), jnp.int32) for length in (m, n))
    depths = flops.stack_depths(config.model)
    if "encoder" in depths:
        pairs = depths["encoder"] * m * m + depths["decoder"] * (n * n + n * m)
    else:
        pairs = depths["decoder"] * (m + n) ** 2
    products = 2 * pairs * config.model.num_heads * (config.model.d_k + config.model.d_v)
    found = complexity.product_flops(lambda *given: model.apply({"params": given[0]}, *given[1:]), params, src, tgt)
    assert found - products == flops.forward_flops(config.model, m, n)


@pytest.mark.parametrize("scale", SCALES)
def test_one_stack_is_compared_at_equal_parameters_and_at_equal_flops(scale):
    base, parameters, equal = (registry.get_config(name) for name in registry.select(f"architecture@{scale}"))
    counts = [flops.parameter_count(config.model) for config in (base, parameters, equal)]
    assert counts[1] == pytest.approx(counts[0], rel=0.002)
    assert counts[2] < 0.7 * counts[0]
    assert flops.training_flops(equal) == flops.training_flops(base)
    assert flops.training_flops(parameters) > 1.5 * flops.training_flops(base)


@pytest.mark.parametrize("scale", SCALES)
def test_the_dial_acts_on_the_depth_of_the_decoder(scale):
    depth = SCALES[scale].depth
    for name in registry.select(f"depth@{scale}"):
        row = name.partition("/")[2].partition("@")[0]
        wanted = [int(layers) * depth for layers in row.split("-")]
        assert list(flops.stack_depths(registry.get_config(name).model).values()) == wanted
    assert registry.get_config(f"depth/6-6@{scale}").model.decoder_layers == 0  # as many as the encoder


def test_a_depth_that_a_scale_cannot_halve_is_refused():
    sweep = Sweep("odd", {}, (Variant("6-6"), Variant("6-1", {"model.decoder_layers": 1})), "")
    with pytest.raises(UserError, match=r"^odd/6-1@smoke: model\.decoder_layers=1 times 1/2 .* multiple of 2$"):
        registry.resolve(sweep, sweep.variant("6-1"), parse_scale("smoke"))


def test_time_on_a_card_goes_by_all_layers_and_by_what_is_computed_again():
    def seconds(**fields):
        return training_seconds([tiny.config(**fields)])

    assert seconds(model__num_layers=3, model__decoder_layers=1) < seconds(model__num_layers=2)  # whose layers are more
    assert seconds(train__remat=True) == pytest.approx(4 / 3 * seconds())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"model.decoder_layers": 2},
            "^model.decoder_layers=2 is of .*: set model.decoder_layers=0$",
        ),
        (
            {"model.mixer": "local"},
            "needs model.mixer=attention; got 'local'. Set that, or ",
        ),
    ],
)
def test_what_one_stack_cannot_have(fields, words):
    config = config_lib.get_config()
    config_lib.update(config, {"model.architecture": "decoder_only"} | fields)
    with pytest.raises(UserError, match=words):
        config_lib.validate(config)


# Rows of one stack


def test_targets_follow_their_sources_in_joined_rows():
    rng = np.random.default_rng(0)
    for _ in range(5):
        lengths = rng.integers(1, 5, (3, 2))  # of three sentences: source, target
        src, tgt = np.zeros((2, 2, 14), np.int32)  # the second row is empty
        src_segments, tgt_segments = np.zeros_like(src), np.zeros_like(tgt)
        wanted, positions, of_source, start = [], [], [], [0, 0]
        for segment, pair in enumerate(lengths, 1):
            for side, (tokens, segments) in enumerate(((src, src_segments), (tgt, tgt_segments))):
                place = slice(start[side], start[side] + pair[side])
                tokens[0, place] = rng.integers(3, 40, pair[side])
                segments[0, place] = segment
                wanted += tokens[0, place].tolist()
                of_source += [side == 0] * pair[side]
                start[side] += pair[side]
            positions += range(sum(pair))
        rows, size = JoinedRows.of(jnp.asarray(src_segments), jnp.asarray(tgt_segments)), len(wanted)
        joined = rows.join(jnp.asarray(src), jnp.asarray(tgt))
        assert joined[0].tolist() == wanted + [0] * (28 - size)
        assert rows.position[0, :size].tolist() == positions
        assert rows.of_source[0, :size].tolist() == of_source
        assert (rows.segments[0, :size] > 0).all()
        assert not rows.segments[0, size:].any()
        np.testing.assert_array_equal(rows.target(joined[..., None].astype(jnp.float32))[..., 0], tgt)


def test_padding_moves_to_the_beginning():
    src = jnp.array([[5, 6, 7, 1], [8, 1, 0, 0], [0, 0, 0, 0]])
    assert align_right(src).tolist() == [[5, 6, 7, 1], [0, 0, 8, 1], [0, 0, 0, 0]]


@pytest.mark.slow
def test_without_the_source_one_stack_is_a_language_model():
    """The same whatever the source."""
    config = tiny.config(model__num_layers=1, **ONE_STACK)
    model, params = tiny.init(config)
    rng = np.random.default_rng(1)
    tgt = jnp.asarray(tiny.sentences(rng, [5, 7]))
    sources = [jnp.asarray(tiny.sentences(rng, [6, 4])) for _ in range(2)]

    @jax.jit
    def hidden(src, source):
        return model.apply({"params": params}, src, tgt, source=source, method="hidden")

    (one, other), (with_one, with_other) = (
        [np.asarray(hidden(src, jnp.float32(source))) for src in sources] for source in (0, 1)
    )
    np.testing.assert_array_equal(one, other)
    assert np.abs(with_one - with_other).max() > 1e-2
    assert np.abs(one - with_one).max() > 1e-2


@pytest.mark.parametrize(
    ("lengths", "task", "wanted"),
    [
        ({"validation": [(3, 3), (20, 4)]}, "sentence", None),
        ({"validation": [(3, 20), (13, 12)]}, "sentence", ("validation, line 2, source and target of 25 tokens: ", 25)),
        ({"test": [(8, 99)]}, "sentence", None),  # 8, and 8 + 3 more
        ({"test": [(3, 3), (9, 3)]}, "sentence", ("test, line 2, source of 9 tokens, in eights, with ", 35)),
        ({"test": [(8, 8)]}, "last", None),
        ({"test": [(3, 9)]}, "last", ("test, line 1, source or target of 9 tokens, in eights: ", 32)),
    ],
)
def test_one_stack_needs_positions_for_source_and_target_together(lengths, task, wanted):
    fields = {"decode.task": task, "model.architecture": "decoder_only", "data.row_length": 12}
    config, data = limited(**fields), text(**lengths)
    check_config(config)
    if wanted is None:
        check_corpus(config, data, ["test"])
        return
    start, needed = wanted
    with pytest.raises(UserError, match=rf"^{start}.* {needed} tokens is longer than .* of 24 rows"):
        check_corpus(config, data, ["test"])
    check_corpus(limited(**fields, **{"model.max_positions": needed}), data, ["test"])


def test_rows_of_both_sides_fit_into_the_learned_positions():
    with pytest.raises(UserError, match=r"^data\.row_length=13 .* need 26 positions, and model\.max_positions=24"):
        check_config(limited(**{"model.architecture": "decoder_only", "data.row_length": 13}))


def test_padding_needs_no_positions():
    """Of rows longer than the table; what stands in them does not change."""
    segments = [np.asarray([[1] * m + [2] + [0] * 20, [0] * (m + 21)], np.int32) for m in (3, 5)]
    rows = JoinedRows.of(*map(jnp.asarray, segments))
    np.testing.assert_array_equal(rows.position[0], [*range(8), 0, 1, *[0] * 40])
    np.testing.assert_array_equal(rows.position[1], [0] * 50)


@pytest.mark.slow
def test_padding_longer_than_the_table_leaves_the_loss_as_it_is():
    config = tiny.config(model__num_layers=1, model__positions="learned", model__max_positions=12, **ONE_STACK)
    _, params = tiny.init(config)
    short = {name: field[:, :9] for name, field in two_rows().items()}
    long = {name: np.pad(field, ((0, 0), (0, 40))) for name, field in short.items()}
    within, beyond = (float(batch_loss(config, params, jax.tree.map(jnp.asarray, batch))[0]) for batch in (short, long))
    assert beyond == pytest.approx(within, rel=1e-5)


@pytest.mark.slow
def test_heads_of_one_stack_are_measured_over_source_and_target():
    """Packed rows, against the weights of each sentence alone."""
    config = tiny.config(model__num_layers=1, model__positions="rotary", **ONE_STACK)
    _, params = tiny.init(config)
    batch = two_rows()
    found = attention_probe.measure_attention(config, params, [batch])
    assert [(one["stack"], one["layer"], one["kind"], one["head"]) for one in found] == [
        ("decoder", 0, "self", head) for head in (0, 1)
    ]
    sums, queries = np.zeros((2, 2)), 0
    for row, segment in ((0, 1), (0, 2), (1, 1)):
        src, tgt = (batch[side][row][batch[f"{side}_segments"][row] == segment].tolist() for side in ("src", "tgt"))
        [(place, weights)] = attention_probe.attention_weights(config, params, src, tgt).items()
        assert place == ("decoder", 0, "self")
        order = np.arange(len(src) + len(tgt))
        sums[0] -= (weights * np.log(np.maximum(weights, 1e-30))).sum((1, 2))
        sums[1] += (weights * abs(order[:, None] - order[None])).sum((1, 2))
        queries += len(order)
    for head, one in enumerate(found):
        assert one["entropy"] == pytest.approx(sums[0, head] / queries, rel=1e-4)
        assert one["distance"] == pytest.approx(sums[1, head] / queries, rel=1e-4)
        assert abs(one["loss_without"]) > 1e-4


@pytest.mark.slow
def test_pictures_of_one_stack_are_of_source_and_target(tmp_path, monkeypatch):
    sizes = {"model__vocab_size": handful.VOCAB_SIZE, "model__num_layers": 1, "decode__extra_length": 2}
    config = tiny.config(**ONE_STACK, **sizes)
    opened = trained_model.OpenedModel(config, (tiny.init(config)[1],), handful.prepared().vocabulary)
    monkeypatch.setattr(trained_model, "open_model", lambda *_: opened)
    drawn, draw = [], figures.attention
    monkeypatch.setattr(figures, "attention", lambda *args: drawn.append(args) or draw(*args))
    run = RunDir(tmp_path)
    figures.draw(run, "a red house", "decoder", -1, None, pathlib.Path(tmp_path / "out"))
    [(weights, queries, keys, heads, _)] = drawn
    assert weights.shape == (2, len(queries), len(keys))
    assert queries == keys
    assert "<start>" in queries[1:]
    assert heads == [0, 1]
    with pytest.raises(UserError, match="has one stack over source and target; set --kind=decoder"):
        figures.draw(run, "a red house", "cross", -1, None, None)


# Layers that are computed again


def loss_of(config, params, batch):
    return batch_loss(config, params, batch, TracedHyperparameters.of(config), jax.random.key(3))[0]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"model__num_layers": 1}, marks=pytest.mark.slow),
        pytest.param({"model__positions": "relative", "model__norm": "pre"}, marks=pytest.mark.slow),
        pytest.param(ONE_STACK | {"model__positions": "t5"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_layers_computed_again_give_equal_losses_and_gradients(fields):
    config, again = (
        tiny.config(model__dropout=0.3, model__attention_dropout=0.1, train__remat=remat, **fields)
        for remat in (False, True)
    )
    _, params = tiny.init(config)
    batch = jax.tree.map(jnp.asarray, two_rows())
    want, got = (jax.jit(jax.value_and_grad(lambda p, c=c: loss_of(c, p, batch)))(params) for c in (config, again))
    assert got[0] == want[0]  # with the same dropout
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got[1], want[1])


@pytest.mark.parametrize("fields", [{}, pytest.param(ONE_STACK, marks=pytest.mark.slow)], ids=str)
def test_layers_computed_again_keep_their_inputs_alone(fields):
    """What the forward pass leaves for the backward pass, beside the parameters; nothing is compiled."""
    kept = {}
    for remat in (False, True):
        for layers in (2, 3):
            config = tiny.config(train__remat=remat, model__num_layers=layers, **fields)
            params = shapes(config)
            batch = jax.tree.map(jnp.asarray, two_rows())
            backward = jax.eval_shape(
                lambda p, config=config, batch=batch: jax.vjp(lambda p: loss_of(config, p, batch), p)[1], params
            )
            sizes = {leaf.shape: leaf.size for leaf in jax.tree.leaves(params)}
            leaves = [leaf for leaf in jax.tree.leaves(backward) if leaf.shape not in sizes]
            kept[remat, layers] = sum(leaf.size for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating))
    rows, length = two_rows()["src"].shape
    inputs = 2 * rows * length * tiny.SIZES["model.d_model"]  # source's and target's: of two layers, or of one of both
    assert kept[True, 3] - kept[True, 2] <= inputs
    assert kept[False, 3] - kept[False, 2] > 5 * inputs


def test_to_compute_layers_again_is_no_other_experiment():
    plain, again = tiny.config(), tiny.config(train__remat=True)
    assert config_lib.differences(plain.to_dict(), again.to_dict()) == {}
    described = {"device": {"platform": "cpu", "count": 1, "threads": 1}, "versions": {}}
    programs = [provenance.describe_computing(config, described, 1)["program"] for config in (plain, again)]
    assert programs[1] == programs[0] | {"remat": True}  # but its last digits may be others

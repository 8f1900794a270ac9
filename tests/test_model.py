"""The Transformer against plain NumPy; causality, padding, packing and cached decoding, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tiny
from jax._src.cudnn import fused_attention_stablehlo

from tx.data.packing import FIELDS
from tx.errors import UserError
from tx.model import flops, layers
from tx.model.attention_kernels import attend_heads, dot_product_attention
from tx.model.layers import CAST, Dense, Draw, Dropout
from tx.model.mixers import mixers
from tx.model.norms import norms
from tx.model.packed_mask import PackedMask
from tx.model.position_context import PositionContext
from tx.model.positions import alibi_slopes, bucket, positions
from tx.model.prng import mix_bits
from tx.model.residual import PendingSum
from tx.model.similarity import similarities
from tx.model.transformer import Transformer, cast_once
from tx.runtime import backend

VARIANTS = {
    "base": {},
    "pre": {"model__norm": "pre"},
    "no bias, no table": {"model__projection_bias": False, "model__target_spaces": 0},
    "interleaved": {"model__sinusoid_layout": "interleaved", "model__sinusoid_endpoint": False},
    "learned": {"model__positions": "learned"},
    "none, unscaled": {"model__positions": "none", "model__scale_embedding": False},
    "relative": {"model__positions": "relative", "model__max_offset": 2},
    "t5": {"model__positions": "t5"},
    "alibi, rms": {"model__positions": "alibi", "model__normalization": "rms"},
    "rotary, no norm": {"model__positions": "rotary", "model__norm": "none"},
    "unscaled, gelu": {"model__similarity": "unscaled", "model__feed_forward": "gelu"},
    "cosine, swiglu": {"model__similarity": "cosine", "model__feed_forward": "swiglu", "model__positions": "t5"},
    "additive, no feed-forward": {"model__similarity": "additive", "model__feed_forward": "none"},
    "multi-query, no residual": {"model__num_kv_heads": 1, "model__residual": False, "model__positions": "relative"},
    "grouped, rotary": {"model__num_heads": 4, "model__num_kv_heads": 2, "model__positions": "rotary"},
    "tied two ways, pre-rms": {"model__tying": "two", "model__norm": "pre", "model__normalization": "rms"},
    "untied": {"model__tying": "none"},
    "local": {"model__mixer": "local", "model__neighbourhood": 2},
    "local, relative": {"model__mixer": "local", "model__neighbourhood": 3, "model__positions": "relative"},
    "recurrent": {"model__mixer": "recurrent"},
    "convolution": {"model__mixer": "convolution"},
    "dilated": {"model__mixer": "dilated", "model__kernel_width": 2},
    "deep encoder, relative": {"model__decoder_layers": 1, "model__positions": "relative"},
    "deep decoder, pre": {"model__num_layers": 1, "model__decoder_layers": 3, "model__norm": "pre"},
    "one stack": {"model__architecture": "decoder_only"},
    "one stack, learned, untied, pre": {
        "model__architecture": "decoder_only",
        "model__positions": "learned",
        "model__tying": "none",
        "model__norm": "pre",
        "model__target_spaces": 0,
    },
    "one stack, relative, multi-query": {
        "model__architecture": "decoder_only",
        "model__positions": "relative",
        "model__num_kv_heads": 1,
        "model__max_offset": 3,
        "model__tying": "two",
    },
    "one stack, t5, cosine": {
        "model__architecture": "decoder_only",
        "model__positions": "t5",
        "model__similarity": "cosine",
        "model__feed_forward": "none",
    },
    "one stack, rotary": {"model__architecture": "decoder_only", "model__positions": "rotary"},
    "one stack, alibi, additive": {
        "model__architecture": "decoder_only",
        "model__positions": "alibi",
        "model__similarity": "additive",
    },
}


# What the longer run alone tries, and what it alone tries in packed rows and step by step.
RARE = {
    *("deep decoder, pre", "one stack", "one stack, learned, untied, pre", "one stack, t5, cosine"),
    *("one stack, rotary", "one stack, alibi, additive"),
}
LATER = {
    *("no bias, no table", "interleaved", "none, unscaled", "relative", "alibi, rms", "unscaled, gelu"),
    "cosine, swiglu",
    *("additive, no feed-forward", "grouped, rotary", "tied two ways, pre-rms", "untied", "local", "convolution"),
    *("deep encoder, relative", "pre", "t5", "rotary, no norm", "dilated"),
}


def variants(later):
    named = [pytest.param(name, marks=pytest.mark.slow if name in later else ()) for name in VARIANTS]
    return pytest.mark.parametrize("variant", named, indirect=True, ids=str)


every_variant, some_variants = variants(RARE), variants(RARE | LATER)


@pytest.fixture(scope="module")
def variant(request):
    """A configuration with every switch thrown once: (config, model, params, jitted logits)."""
    config = tiny.config(**VARIANTS[request.param])
    model, params = tiny.init(config)
    return config, model, params, jax.jit(lambda **inputs: model.apply({"params": params}, **inputs))


@every_variant
def test_logits_equal_numpy(variant):
    config, _, params, apply = variant
    rng = np.random.default_rng(0)
    src, tgt = tiny.sentences(rng, [7, 4]), tiny.sentences(rng, [5, 6])
    got = np.asarray(apply(src=src, tgt=tgt))
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for row in range(2):
        s, t = (list(tokens[row][tokens[row] != 0]) for tokens in (src, tgt))
        np.testing.assert_allclose(got[row, : len(t)], reference.logits(config, exact, s, t), rtol=2e-4, atol=2e-4)


@every_variant
def test_parameter_count_is_the_formula(variant):
    config, _, params, _ = variant
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == flops.parameter_count(config.model)


@pytest.mark.parametrize(
    "attends", ["in blocks", *(pytest.param(x, marks=pytest.mark.slow) for x in ("whole", "kernel"))]
)
@some_variants
def test_cached_steps_equal_teacher_forcing(variant, attends, monkeypatch):
    if attends != "in blocks":  # as an accelerator attends to the cache
        monkeypatch.setattr(backend, "decoding_block", lambda _, length: length)
    if attends == "kernel":  # of a GPU
        monkeypatch.setattr(backend, "decodes_by_kernel", lambda _: True)
    _, model, params, apply = variant
    rng = np.random.default_rng(1)
    src, tgt = jnp.asarray(tiny.sentences(rng, [7, 4])), tiny.sentences(rng, [6, 6])
    beam, length = 3, 9
    hypotheses = np.repeat(tgt[:, None], beam, axis=1)
    hypotheses[:, 1, 2] += 1  # one goes another way, and both are continued from another place
    want = np.stack([np.asarray(apply(src=src, tgt=hypotheses[:, j])) for j in range(beam)], axis=1)
    moved = rng.permuted(np.tile(np.arange(beam), (2, length, 1)), axis=2)  # who stands where, at every position

    @jax.jit
    def step(cache, token, index, ancestry, cross_kv):
        inputs = (token, index, ancestry, cross_kv, src != 0)
        return model.apply({"params": params, "cache": cache}, *inputs, method="decode_step", mutable=["cache"])

    cross_kv, cache = model.apply({"params": params}, src, method="precompute_kv"), {}
    for t in range(6):
        # moved[b, t, place] is the hypothesis at a place; ancestry[b, place, s] is where it stood at position s.
        beam_indices = np.argsort(moved, axis=2)
        ancestry = np.stack([[beam_indices[b, :, moved[b, t, place]] for place in range(beam)] for b in range(2)])
        now = np.take_along_axis(hypotheses, moved[:, t, :, None], axis=1)
        token = now[:, :, t - 1] if t else np.zeros((2, beam), np.int32)
        got, updated = step(cache, token, jnp.int32(t), ancestry.astype(np.int32), cross_kv)
        cache = updated["cache"]
        expected = np.take_along_axis(want, moved[:, t, :, None, None], axis=1)[:, :, t]
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-4)


def test_a_neighbourhood_that_no_row_reaches_is_as_wide_as_the_row():
    tokens = jnp.asarray(tiny.sentences(np.random.default_rng(3), [7, 4]))
    wide = tiny.config(model__num_layers=1, model__mixer="local", model__neighbourhood=10**6)
    model, params = tiny.init(wide)  # it takes the memory of a row, or none would be enough
    whole = Transformer(**tiny.config(model__num_layers=1).model)
    got, want = (jax.jit(one.apply)({"params": params}, tokens, tokens) for one in (model, whole))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_taps_that_lie_further_apart_than_an_int32_counts_are_nowhere():
    attention = {"d_model": 4, "dtype": "float32"}
    mixer = mixers["dilated"](attention=attention, neighbourhood=1, kernel_width=40, causal=True)
    context = PositionContext(encoding_of("none"), 6, jnp.zeros((1, 1), jnp.int32))
    x = jnp.asarray(np.random.default_rng(9).normal(size=(1, 5, 4)), jnp.float32)
    packed = PackedMask.of(jnp.ones((1, 5), jnp.int32), causal=True)
    params = mixer.init(jax.random.key(0), x, packed, context, train=False, method="mix")["params"]
    want = mixer.apply({"params": params}, x, packed, context, train=False, method="mix")
    cache, ancestry = {}, jnp.zeros((1, 1, 5), jnp.int32)
    for t in range(5):
        inputs = (x[:, t : t + 1], jnp.int32(t), ancestry, context)
        got, cache = mixer.apply({"params": params, **cache}, *inputs, method="decode_step", mutable=["cache"])
        np.testing.assert_allclose(got[:, 0], want[:, t], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("tying", "mixer", "biases"),
    [("three", "attention", True), ("none", "attention", False), ("three", "convolution", False)],
)
def test_matrices_that_are_cast_once_give_the_same_bits(tying, mixer, biases):
    config = tiny.config(model__dtype="bfloat16", model__tying=tying, model__mixer=mixer)
    model, params = tiny.init(config)
    variables = cast_once(params, "bfloat16", biases)
    leaves = {tuple(step.key for step in path): leaf for path, leaf in jax.tree.leaves_with_path(params)}
    kernels = [leaf for path, leaf in leaves.items() if path[-1] == "kernel"]
    if biases:
        kernels += [leaf for path, leaf in leaves.items() if path[-1] == "bias" and (*path[:-1], "kernel") in leaves]
    cast = jax.tree.leaves(variables[CAST])
    assert sorted(leaf.size for leaf in cast) == sorted([*(k.size for k in kernels), params["embedding"].size])
    assert {leaf.dtype.name for leaf in cast} == {"bfloat16"}
    src, tgt = (jnp.asarray(tiny.sentences(np.random.default_rng(2), [7, 4])) for _ in range(2))
    wanted, got = (model.apply(given, src, tgt) for given in ({"params": params}, variables))
    np.testing.assert_array_equal(got, wanted)
    emptied = variables | {CAST: jax.tree.map(jnp.zeros_like, variables[CAST])}
    assert not np.asarray(model.apply(emptied, src, tgt)).any()  # those, and not the others, are multiplied with


def test_gradient_of_attention_equals_autodiff_of_the_formula():
    rng = np.random.default_rng(4)
    query, key, value = (jnp.asarray(rng.normal(size=(2, n, 3, d)), jnp.float32) for n, d in ((5, 4), (6, 4), (6, 7)))
    mask = rng.random((2, 5, 6)) < 0.6
    mask[0, 1] = False  # a row with nothing to attend to
    weight = jnp.asarray(rng.normal(size=(2, 5, 3, 7)), jnp.float32)

    def formula(query, key, value):
        logits = jnp.einsum("bnhk,bmhk->bhnm", query, key) / 2.0
        weights = jax.nn.softmax(jnp.where(mask[:, None], logits, -1e9), axis=-1)
        return (jnp.einsum("bhnm,bmhv->bnhv", weights, value) * weight).sum()

    def ours(query, key, value):
        return (dot_product_attention(query, key, value, jnp.asarray(mask)) * weight).sum()

    wanted, found = (jax.value_and_grad(f, argnums=(0, 1, 2))(query, key, value) for f in (formula, ours))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), found, wanted)


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (1, 3, 5, 6), (1, 1, 5, 6), (2, 1, 1, 6)], ids=str)
def test_gradient_of_a_bias_equals_autodiff_whatever_shares_it(shape):
    rng = np.random.default_rng(5)
    given = [jnp.asarray(rng.normal(size=(2, 3, n, d)), jnp.float32) for n, d in ((5, 4), (6, 4), (6, 7))]
    mask, bias = jnp.asarray(rng.random((2, 5, 6)) < 0.6), jnp.asarray(rng.normal(size=shape), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(2, 3, 5, 7)), jnp.float32)

    def formula(query, key, value, mask, bias):
        logits = jnp.einsum("bhnk,bhmk->bhnm", query, key) + bias
        return jax.nn.softmax(jnp.where(mask[:, None], logits, -1e9), axis=-1) @ value

    wanted, found = (
        jax.grad(lambda bias, attend=attend: (attend(*given, mask, bias) * weight).sum())(bias)
        for attend in (formula, attend_heads)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 3), (5, 5)])
def test_gradient_of_a_projection_equals_autodiff_of_the_formula(inputs, outputs):
    rng = np.random.default_rng(inputs)
    x, weight = (jnp.asarray(rng.normal(size=(2, 4, size)), jnp.float32) for size in (inputs, outputs))
    module = Dense(inputs, outputs)
    params = module.init(jax.random.key(0), x)
    kernel, bias = params["params"]["kernel"], params["params"]["bias"]
    wanted = jax.grad(lambda x, w, b: ((x @ w + b) * weight).sum(), argnums=(0, 1, 2))(x, kernel, bias[None, None])
    found = jax.grad(lambda x, p: (module.apply(p, x) * weight).sum(), argnums=(0, 1))(x, params)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1]["params"]["kernel"], wanted[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1]["params"]["bias"], wanted[2][0, 0], rtol=1e-5, atol=1e-6)


@some_variants
def test_packed_rows_equal_sentences_alone(variant):
    _, _, _, apply = variant
    rng = np.random.default_rng(2)
    pairs = [(tiny.sentences(rng, [s])[0], tiny.sentences(rng, [t])[0]) for s, t in ((5, 3), (2, 6), (4, 4))]
    packed = {field: np.zeros((1, 16), np.int32) for field in FIELDS}
    for side, k in (("src", 0), ("tgt", 1)):
        parts = [pair[k] for pair in pairs]
        lengths = [len(part) for part in parts]
        size = sum(lengths)
        packed[side][0, :size] = np.concatenate(parts)
        packed[f"{side}_segments"][0, :size] = np.repeat([1, 2, 3], lengths)
        packed[f"{side}_positions"][0, :size] = np.concatenate([np.arange(n) for n in lengths])
    together, start = np.asarray(apply(**packed))[0], 0
    for src, tgt in pairs:  # padded to one length, so that it is compiled once
        padded = {side: np.pad(row, (0, 6 - len(row)))[None] for side, row in (("src", src), ("tgt", tgt))}
        alone = np.asarray(apply(**padded))[0, : len(tgt)]
        np.testing.assert_allclose(together[start : start + len(tgt)], alone, rtol=2e-4, atol=2e-4)
        start += len(tgt)


@pytest.mark.parametrize("given", [("src_segments", "tgt_segments"), ("tgt_segments",), ("src_positions",)])
def test_packed_rows_of_which_a_part_is_said_are_refused(given):
    """Of segments alone, a sentence would see the last token of the one before; a part was silently left out."""
    model, params = tiny.init(tiny.config(model__num_layers=1))
    ones = jnp.ones((1, 5), jnp.int32)
    with pytest.raises(UserError, match=r"^of packed rows, segments and positions of both sides are given, or none"):
        model.apply({"params": params}, ones, ones, **dict.fromkeys(given, ones))


def test_causality_and_sentence_borders_by_gradient():
    """The gradient of one output with respect to what it must not see is exactly zero, else not."""
    config = tiny.config()
    model, params = tiny.init(config)
    segments = jnp.array([[1, 1, 1, 1, 2, 2, 2, 0]])
    place = jnp.array([[0, 1, 2, 3, 0, 1, 2, 0]])
    tokens = jnp.array([[5, 6, 7, 1, 8, 9, 1, 0]])

    def outputs(src_noise, tgt_noise):
        """The decoder with noise on each embedding, so that there is something to differentiate."""

        def noisy(m):
            embed = m._embed

            def with_noise(t, p, encoding, train, space=None):
                noise = src_noise if space is not None else tgt_noise
                return embed(t, p, encoding, train, space) + noise

            object.__setattr__(m, "_embed", with_noise)
            return m.hidden(
                tokens,
                tokens,
                src_segments=segments,
                tgt_segments=segments,
                src_positions=place,
                tgt_positions=place,
            )

        return model.apply({"params": params}, method=noisy)[0]

    zero = jnp.zeros((1, 8, config.model.d_model))
    by_source, by_target = jax.jit(jax.jacrev(outputs, argnums=(0, 1)))(zero, zero)
    moved = [np.abs(np.asarray(j)).sum(axis=(1, 2, 4)) for j in (by_source, by_target)]  # (output, input)
    segment = np.asarray(segments[0])
    same = segment[:, None] == segment[None, :]
    causal = same & np.tri(8, dtype=bool)
    real = segment > 0
    assert ((moved[0] > 0) == same)[real].all()
    assert ((moved[1] > 0) == causal)[real].all()


def test_attention_equals_numpy_with_d_k_unlike_d_v():
    rng = np.random.default_rng(3)
    b, n, m, h, d_k, d_v = 2, 3, 5, 4, 6, 2
    q, k, v = (rng.normal(size=s).astype(np.float32) for s in ((b, n, h, d_k), (b, m, h, d_k), (b, m, h, d_v)))
    mask = rng.random((b, n, m)) < 0.6
    mask[..., 0] = True
    got = np.asarray(dot_product_attention(*map(jnp.asarray, (q, k, v, mask))))
    for i in range(b):
        for head in range(h):
            scores = q[i, :, head].astype(np.float64) @ k[i, :, head].T / np.sqrt(d_k)
            want = reference.softmax(np.where(mask[i], scores, -np.inf)) @ v[i, :, head]
            np.testing.assert_allclose(got[i, :, head], want, rtol=1e-5, atol=1e-6)


def test_the_fused_kernel_is_given_the_same_attention(monkeypatch):
    """JAX's own code stands in for cuDNN, which a CPU has not."""
    rng = np.random.default_rng(4)
    q, k, v = (jnp.asarray(rng.normal(size=(2, n, 4, 8)), jnp.float32) for n in (3, 5, 5))
    mask = jnp.asarray(rng.random((2, 3, 5)) < 0.6).at[..., 0].set(True).at[1, 2].set(False)
    with pytest.raises(UserError, match=r"^model.attention_backend=cudnn needs an NVIDIA GPU; on cpu set it to xla$"):
        dot_product_attention(q, k, v, mask, kernel="cudnn")
    asked = []

    def stand_in(query, key, value, *, bias, scale, mask_type, return_residual):
        seen = bias == 0
        assert query.shape[1] == key.shape[1] == 128
        asked.append(mask_type.name)
        assert return_residual
        heads = jax.nn.dot_product_attention(query, key, value, mask=seen, is_causal=mask_type.name == "CAUSAL")
        heads = jnp.where(seen.any(-1).all(), heads, jnp.nan)
        return heads, jnp.zeros((query.shape[0], query.shape[2], query.shape[1]))

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(fused_attention_stablehlo, "dot_product_attention", stand_in)
    got, want = (dot_product_attention(q, k, v, mask, kernel=kernel) for kernel in ("cudnn", "xla"))
    some = np.asarray(mask.any(-1))
    assert not some.all()
    np.testing.assert_allclose(got[some], want[some], rtol=1e-5, atol=1e-6)
    assert np.isfinite(got).all()
    earlier = jnp.asarray(np.tri(5, dtype=bool))[None].repeat(2, 0)
    got, want = (dot_product_attention(k, k, v, earlier, kernel=kernel, causal=True) for kernel in ("cudnn", "xla"))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert asked == ["NO_MASK", "CAUSAL"]


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"model__feed_forward": "swiglu", "model__num_kv_heads": 1}])
def test_projections_one_by_one_are_those_of_one_product(monkeypatch, fields):
    """What an accelerator computes instead, with all gradients; here on a CPU."""
    config = tiny.config(**fields)
    model, params = tiny.init(config)
    batch = [jnp.asarray(tiny.sentences(np.random.default_rng(seed), [5, 3])) for seed in (2, 3)]

    def loss_and_gradient():
        return jax.value_and_grad(lambda p: (model.apply({"params": p}, *batch) ** 2).mean())(params)

    want = loss_and_gradient()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), loss_and_gradient(), want)


def test_layer_norm_of_half_width_has_the_gradient_of_the_whole():
    rng = np.random.default_rng(8)
    x, weight = (jnp.asarray(rng.normal(size=(3, 5, 32)), jnp.bfloat16) for _ in range(2))
    scale, bias = (jnp.asarray(rng.normal(size=32), jnp.float32) for _ in range(2))
    layer = norms["layer"]()

    def gradient(x):
        def f(x, scale, bias):
            y = layer.apply({"params": {"scale": scale, "bias": bias}}, x)
            return (y.astype(jnp.float32) * weight.astype(jnp.float32)).sum()

        return jax.grad(f, (0, 1, 2))(x, scale, bias)

    for got, want in zip(gradient(x), gradient(x.astype(jnp.float32)), strict=True):
        assert np.linalg.norm(got.astype(jnp.float32) - want) < 0.01 * np.linalg.norm(want)


def encoding_of(name, **fields):
    """An encoding of positions, with the fields of the tiny configuration where none are given."""
    known, model = positions[name].__dataclass_fields__, dict(tiny.config().model)
    defaults = {field: model[field] for field in known if field in model} | {"causal": False}
    return positions[name](**defaults | fields)


@pytest.mark.parametrize("endpoint", [True, False])
def test_sinusoids(endpoint):
    tables = {}
    for layout in ("concatenated", "interleaved"):
        encoding = encoding_of("sinusoidal", d_model=8, sinusoid_layout=layout, sinusoid_endpoint=endpoint)
        tables[layout] = np.asarray(encoding.apply({}, jnp.arange(50)[None]))[0]
        np.testing.assert_allclose(tables[layout], reference.sinusoids(50, 8, layout, endpoint), atol=2e-5)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    np.testing.assert_array_equal(tables["interleaved"], tables["concatenated"][:, order])


def test_learned_positions_refuse_a_longer_sentence():
    config = tiny.config(model__positions="learned", model__max_positions=4)
    model, params = tiny.init(config)
    five = jnp.full((1, 5), 3, jnp.int32)
    with pytest.raises(UserError, match="5 tokens is longer than the learned position table of 4 rows"):
        model.apply({"params": params}, five, five)
    packed = {f: jnp.arange(5)[None] for f in ("src_positions", "tgt_positions")}
    ones = jnp.ones((1, 5), jnp.int32)
    got = model.apply({"params": params}, five, five, **packed, src_segments=ones, tgt_segments=ones)
    assert np.isnan(np.asarray(got)).all()


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_dropout_in_bfloat16_keeps_the_mean(rate):
    """Of what is kept, that of which 1 / (1 - P_drop) is not rounded: by up to 0.2%, were it of bfloat16."""
    x = jnp.asarray(np.random.default_rng(3).uniform(1, 2, (400, 500)), jnp.bfloat16)
    dropped = Dropout(rate).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    whole, kept = (np.asarray(one, np.float64) for one in (x, dropped))
    assert (1 - rate) * kept[kept != 0].sum() / whole[kept != 0].sum() == pytest.approx(1.0, abs=2e-4)
    tree = PendingSum.of(jnp.zeros_like(x)[None], x[None], Dropout(0.0))._replace(
        draw=Draw(jnp.asarray([1, 2, round((1 - rate) * 2**24)], jnp.uint32), jnp.asarray([1 / (1 - rate)]), mix_bits)
    )
    kept = np.asarray(tree.added()[0], np.float64)
    assert (1 - rate) * kept[kept != 0].sum() / whole[kept != 0].sum() == pytest.approx(1.0, abs=2e-4)


def test_dropout_keeps_rate_and_mean_and_is_off_outside_training():
    x = jnp.ones((400, 500))
    drop = Dropout(0.1)
    out = np.asarray(drop.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)}))
    assert abs((out == 0).mean() - 0.1) < 3 * np.sqrt(0.09 / out.size)
    assert abs(out.mean() - 1) < 3 * np.sqrt(0.1 / 0.9 / out.size)
    np.testing.assert_array_equal(drop.apply({}, x, train=False), x)


def test_dropout_stands_where_the_paper_has_it(monkeypatch):
    """P_drop alone drops 2 + N * (2 + 3) tensors; attention and ReLU dropout one more for each of their layers."""
    made, draw = [], layers.random_bits
    monkeypatch.setattr(layers, "random_bits", lambda key, shape: made.append(shape) or draw(key, shape))

    def draws(**diff):
        config = tiny.config(**diff)
        model, params = tiny.init(config)
        src = jnp.full((1, 3), 4, jnp.int32)
        made.clear()
        rngs = {"dropout": jax.random.key(0)}
        jax.eval_shape(lambda: model.apply({"params": params}, src, src, train=True, rngs=rngs))
        return len(made)

    n = tiny.SIZES["model.num_layers"]
    assert draws() == 2 + 5 * n
    assert draws(model__attention_dropout=0.1) == 2 + 5 * n + 3 * n
    assert draws(model__relu_dropout=0.1) == 2 + 5 * n + 2 * n
    assert draws(model__dropout=0.0) == 0


@pytest.mark.slow
def test_bfloat16_stays_near_float32():
    rng = np.random.default_rng(4)
    src, tgt = (jnp.asarray(tiny.sentences(rng, [n])) for n in (9, 8))
    _, params = tiny.init(tiny.config())
    full, half = (
        Transformer(**tiny.config(model__dtype=dtype).model).apply({"params": params}, src, tgt)
        for dtype in ("float32", "bfloat16")
    )
    assert half.dtype == jnp.float32
    assert 0 < np.linalg.norm(half - full) / np.linalg.norm(full) < 0.05


# Components, each against its own formula.


def test_offsets_share_t5s_buckets():
    """The table of the authors' code, for offsets up to beyond the last bucket."""
    near, far = np.arange(-200, 201), np.arange(128, 200)
    for causal in (False, True):
        found = np.asarray(bucket(jnp.asarray(near)[None], causal))[0]
        assert found.tolist() == [reference.t5_bucket(int(offset), causal) for offset in near]
    assert set(np.asarray(bucket(jnp.asarray(-far)[None], False))[0]) == {15}
    assert set(np.asarray(bucket(jnp.asarray(far)[None], False))[0]) == {31}
    assert set(np.asarray(bucket(jnp.asarray(-far)[None], True))[0]) == {31}
    assert set(np.asarray(bucket(jnp.asarray(far)[None], True))[0]) == {0}


def test_slopes_of_alibi():
    assert alibi_slopes(8) == [1 / 2**n for n in range(1, 9)]
    assert alibi_slopes(4) == [2**-2, 2**-4, 2**-6, 2**-8]
    assert alibi_slopes(6) == [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]
    assert alibi_slopes(1) == [2**-8]


def test_rotary_products_depend_on_offsets_alone():
    rng = np.random.default_rng(5)
    query, key = (jnp.asarray(rng.normal(size=(1, 6, 2, 4)), jnp.float32) for _ in range(2))
    rotate = encoding_of("rotary").rotate

    def products(shift):
        position = jnp.arange(6)[None] + shift
        return jnp.einsum("bnhk,bmhk->bhnm", rotate(query, position), rotate(key, position))

    np.testing.assert_allclose(products(0), products(37), atol=1e-5)
    same = rotate(query, jnp.zeros((1, 6), jnp.int32))
    np.testing.assert_allclose(same, query, atol=1e-6)
    lengths = np.linalg.norm(rotate(query, jnp.arange(6)[None]), axis=-1)
    np.testing.assert_allclose(lengths, np.linalg.norm(query, axis=-1), rtol=1e-5)


def test_offsets_beyond_the_clip_are_alike():
    encoding = encoding_of("relative", max_offset=2)
    query = jnp.ones((1, 2, 1, 4))
    offset = jnp.array([[-9, -3, -2, -1, 0, 1, 2, 3, 9]])
    params = encoding.init(jax.random.key(0), 0, query, offset, method="logit_bias")
    found = np.asarray(encoding.apply(params, 1, query, offset, method="logit_bias"))[0, 0, 0]
    assert found[0] == found[1] == found[2]
    assert found[6] == found[7] == found[8]
    assert len(set(found)) == 5
    other = np.asarray(encoding.apply(params, 0, query, offset, method="logit_bias"))[0, 0, 0]
    assert not set(found) & set(other)  # of another layer


def test_as_many_keys_as_heads_are_full_attention():
    shared, params = tiny.init(tiny.config(model__num_kv_heads=2))
    full = Transformer(**tiny.config().model)
    rng = np.random.default_rng(6)
    src, tgt = (jnp.asarray(tiny.sentences(rng, [n])) for n in (6, 5))
    np.testing.assert_array_equal(shared.apply({"params": params}, src, tgt), full.apply({"params": params}, src, tgt))


def test_heads_that_share_keys_equal_heads_with_copies_of_them():
    config = tiny.config(model__num_heads=4, model__num_kv_heads=2)
    model, params = tiny.init(config)
    d_k, d_v = config.model.d_k, config.model.d_v
    copied = jax.tree_util.tree_map_with_path(lambda path, leaf: _copied(path, leaf, d_k, d_v), params)
    full = Transformer(**tiny.config(model__num_heads=4).model)
    rng = np.random.default_rng(6)
    src, tgt = (jnp.asarray(tiny.sentences(rng, [n])) for n in (6, 5))
    want, got = (m.apply({"params": p}, src, tgt) for m, p in ((full, copied), (model, params)))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def _copied(path, leaf, d_k, d_v):
    names = [key.key for key in path]
    if not {"key", "value"} & set(names):
        return leaf
    width = d_k if "key" in names else d_v
    heads = leaf.reshape(*leaf.shape[:-1], 2, width)
    return jnp.repeat(heads, 2, axis=-2).reshape(*leaf.shape[:-1], -1)


def test_what_is_left_of_a_cosine_is_its_temperature():
    module = similarities["cosine"](num_heads=2, d_k=4)
    x = jnp.asarray(np.random.default_rng(7).normal(size=(1, 3, 2, 4)) * 1000, jnp.float32)
    params = {"params": {"temperature": jnp.array([3.0, 5.0])}}
    query, key = (module.apply(params, x, method=method).transpose(0, 2, 1, 3) for method in ("query", "key"))
    logits = np.asarray(module.apply(params, query, key, method="logits"))[0]
    np.testing.assert_allclose(np.diagonal(logits, axis1=1, axis2=2), [[3.0] * 3, [5.0] * 3], rtol=1e-5)
    assert (np.abs(logits) <= np.array([3.0, 5.0])[:, None, None] + 1e-4).all()


def test_what_is_looked_into_and_left_out():
    config = tiny.config()
    model, params = tiny.init(config)
    rng = np.random.default_rng(8)
    src, tgt = (jnp.asarray(tiny.sentences(rng, [n])) for n in (6, 5))
    plain = model.apply({"params": params}, src, tgt)
    looked, seen = model.apply({"params": params}, src, tgt, mutable=["attention"])
    np.testing.assert_allclose(looked, plain, rtol=1e-4, atol=1e-5)
    (weights,) = seen["attention"]["decoder_1"]["self_attention"]["weights"]
    assert weights.shape == (1, 2, 5, 5)
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    assert (np.triu(weights[0, 0], 1) == 0).all()
    kept = {"encoder_0": {"self_attention": {"heads": jnp.array([0.0, 1.0])}}}
    without = model.apply({"params": params, "kept": kept}, src, tgt)
    module = params["encoder_0"]["self_attention"]["output"]
    zeroed = module | {"kernel": module["kernel"].at[: config.model.d_v].set(0.0)}
    attention = params["encoder_0"]["self_attention"] | {"output": zeroed}
    want = model.apply(
        {"params": params | {"encoder_0": params["encoder_0"] | {"self_attention": attention}}}, src, tgt
    )
    np.testing.assert_allclose(without, want, rtol=1e-5, atol=1e-5)
    assert np.abs(without - plain).max() > 1e-3

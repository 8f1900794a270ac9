"""Operations counted, chains followed and dependence found, against what is known of small computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.analysis import complexity
from tx.model.mixers import mixers
from tx.model.packed_mask import PackedMask
from tx.model.position_context import PositionContext
from tx.model.positions import positions

WIDTH, NEAR, TAPS = 8, 4, 3


def mixing(kind, length):
    """(a causal mixer as a function of (n, d) and of the number of its layer, an input, another one)."""
    attention = {"d_model": WIDTH, "num_heads": 2, "kv_heads": 2, "d_k": 4, "d_v": 4, "similarity": "scaled"}
    attention |= {"projection_bias": False, "attention_dropout": 0.0, "kernel": "xla", "dtype": "float32"}
    made = mixers[kind](attention=attention, neighbourhood=NEAR, kernel_width=TAPS, causal=True)
    fields = {"num_layers": 1, "num_heads": 2, "d_model": WIDTH, "d_k": 4, "d_v": 4, "max_positions": 1}
    fields |= {"max_offset": 1, "sinusoid_layout": "concatenated", "sinusoid_endpoint": True}
    fields |= {"scale_positions": True, "causal": True}
    packed, position = PackedMask.of(jnp.ones((1, length), jnp.int32), True), jnp.arange(length)[None]

    def mix(module, x, layer=0):
        context = PositionContext(positions["none"](**fields), layer, position)
        return module.mix(x[None], packed, context, train=False)[0]

    x, other = (jax.random.normal(jax.random.key(seed), (length, WIDTH)) for seed in (0, 1))
    params = made.init(jax.random.key(2), x, method=mix)
    return lambda x, layer=0: made.apply(params, x, layer, method=mix), x, other


def test_products_in_loops_count_once_a_pass():
    x, w = jnp.ones((5, 3)), jnp.ones((3, 3))

    def loop(x):
        def advance(state, row):
            return jnp.tanh(state @ w + row), row @ w

        return jax.lax.scan(advance, x[0], x)

    assert complexity.product_flops(loop, x) == 5 * 2 * (2 * 3 * 3)
    assert complexity.product_flops(lambda x: jax.jit(lambda y: y @ w)(x) @ w, x) == 2 * (2 * 5 * 3 * 3)
    assert complexity.product_flops(lambda x: jnp.einsum("ik,jk->ij", x, x), x) == 2 * 5 * 5 * 3
    with pytest.raises(ValueError, match="depends on values"):
        complexity.product_flops(lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y + 1, x), x)


def test_the_critical_path():
    x = jnp.ones((6, 2))
    assert complexity.critical_path_length(lambda x: jnp.sin(x) * jnp.cos(x), x) == 2
    assert complexity.critical_path_length(lambda x: (jnp.sin(jnp.sin(x)), jnp.cos(x)), x) == 2
    assert complexity.critical_path_length(lambda x: x, x) == 0

    def loop(x):
        return jax.lax.scan(lambda state, row: (jnp.sin(jnp.cos(state)), row), x[0], x)[0]

    body = complexity.critical_path_length(loop, x) - complexity.critical_path_length(loop, x[:5])
    assert body == 2


@pytest.mark.parametrize(
    ("kind", "sees"),
    [
        ("attention", lambda offset: True),
        ("local", lambda offset: offset <= NEAR),
        ("convolution", lambda offset: offset < TAPS),
    ],
)
def test_what_a_mixer_depends_on(kind, sees):
    function, x, other = mixing(kind, 11)
    found = complexity.dependency_matrix(function, x, other)
    assert found.tolist() == [[j <= i and sees(i - j) for j in range(11)] for i in range(11)]


@pytest.mark.parametrize(
    ("kind", "length", "layers"),
    [
        pytest.param("attention", 9, 1, marks=pytest.mark.slow),
        ("local", 9, 2),  # (n - 1) / r
        pytest.param("local", 10, 3, marks=pytest.mark.slow),
        pytest.param("convolution", 9, 4, marks=pytest.mark.slow),  # (n - 1) / (k - 1)
        pytest.param("convolution", 10, 5, marks=pytest.mark.slow),
        ("dilated", 9, 2),  # log_k n
        pytest.param("dilated", 10, 3, marks=pytest.mark.slow),
        pytest.param("dilated", 27, 3, marks=pytest.mark.slow),
    ],
)
def test_how_many_layers_connect_a_sentence(kind, length, layers):
    function, x, other = mixing(kind, length)
    wanted = np.tri(length, dtype=bool)

    def layer(number):
        return complexity.dependency_matrix(lambda x: function(x, number), x, other)

    assert complexity.layers_to_connect(layer, wanted, 9) == layers
    assert complexity.layers_to_connect(layer, wanted, layers - 1) is None


@pytest.mark.parametrize("length", [2, 3, 9, 10, 17, 33, 34])
def test_powers_of_one_layer_count_as_one_layer_after_the_other(length):
    offsets = np.arange(length)[:, None] - np.arange(length)[None, :]
    wanted = offsets >= 0
    for reach in (1, 2, 5):
        layer = (offsets >= 0) & (offsets <= reach)
        count = complexity.equal_layers_to_connect(layer, wanted)
        assert (
            count == complexity.layers_to_connect(lambda _, layer=layer: layer, wanted, 99) == -(-(length - 1) // reach)
        )
    assert complexity.equal_layers_to_connect(np.eye(length, dtype=bool), wanted) is None
    with pytest.raises(ValueError, match="its own input"):
        complexity.equal_layers_to_connect(offsets == 1, wanted)


@pytest.mark.slow
def test_arithmetic_grows_as_the_formulas_say():
    flops = {
        kind: [complexity.product_flops(*mixing(kind, length)[:2]) for length in (32, 64)]
        for kind in ("attention", "local", "recurrent", "convolution")
    }
    lengths = (32, 64)
    for kind, keys in (("attention", lambda n: n), ("local", lambda n: 2 * NEAR)):  # its own piece and the one before
        projections = [2 * n * 4 * WIDTH * WIDTH for n in lengths]  # queries, keys, values, output
        mixed = [found - product for found, product in zip(flops[kind], projections, strict=True)]
        assert mixed == [2 * 2 * n * keys(n) * WIDTH for n in lengths]
    assert flops["recurrent"] == [n * 2 * 8 * WIDTH * WIDTH for n in (32, 64)]
    assert flops["convolution"] == [n * 2 * TAPS * WIDTH * 2 * WIDTH for n in (32, 64)]
    chains = [complexity.critical_path_length(*mixing("recurrent", length)[:2]) for length in (32, 64)]
    assert chains[1] - chains[0] == pytest.approx(32 * (chains[0] / 32), rel=0.1)
    assert len({complexity.critical_path_length(*mixing("attention", length)[:2]) for length in (32, 64)}) == 1

"""cuDNN's attention as we call it: the gradient, padding and folding of members, with plain JAX for its two calls."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import __main__ as command
from experiments.bench import attention_grid
from experiments.bench.contestants import tx_attention
from tx.kernels import attention


def given(length, keys, members=None, seed=0):
    """Returns (query, key, value), a mask some of whose rows are empty, and a cotangent that is zero there."""
    rng, lead = np.random.default_rng(seed), () if members is None else (members,)
    query, d_out = (jnp.asarray(rng.normal(size=(*lead, 2, length, 4, 8)), jnp.float32) for _ in "ab")
    key, value = (jnp.asarray(rng.normal(size=(*lead, 2, keys, 4, 8)), jnp.float32) for _ in "ab")
    mask = rng.random((*lead, 2, length, keys)) < 0.5
    mask[..., 0, 1:3, :] = False
    mask[..., 1, :, :] &= rng.random((*lead, length, 1)) < 0.7
    live = mask.any(-1)[..., None, None].astype(np.float32)
    return (query, key, value), jnp.asarray(mask), d_out * live, live


def values_and_gradients(function, arrays, mask, d_out):
    out, pull = jax.vjp(lambda *parts: function(*parts, mask), *arrays)
    return out, *pull(d_out)


def plain(query, key, value, mask):
    return tx_attention._plain(query, key, value, mask, query.shape[-1] ** -0.5)


def fused(block, causal=False):
    return lambda *parts: attention.attend(*parts, causal, block)


def close(found, wanted, tolerance=2e-5):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * max(1.0, np.abs(other).max()), rtol=0)


@pytest.mark.parametrize(
    ("length", "keys", "block"),
    [
        (6, 6, 1),
        *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((5, 7, 8), (3, 16, 4))),
    ],
)
def test_values_and_gradients_are_those_of_plain_attention(length, keys, block):
    arrays, mask, d_out, live = given(length, keys)
    found, wanted = (values_and_gradients(each, arrays, mask, d_out) for each in (fused(block), plain))
    assert np.isfinite(found[0]).all()
    close([found[0] * live, *found[1:]], wanted)


def test_what_is_causal_is_so_without_a_mask_that_says_it():
    arrays, _, d_out, _ = given(6, 6)
    everything, earlier = (jnp.broadcast_to(mask, (2, 6, 6)) for mask in (True, np.tri(6, dtype=bool)))
    found = values_and_gradients(fused(8, causal=True), arrays, everything, d_out)
    close(found, values_and_gradients(plain, arrays, earlier, d_out))


@pytest.mark.parametrize("shared", [False, True])
def test_members_become_rows_of_the_batch(monkeypatch, shared):
    """One call for all of them, with what they share repeated; none of the calls sees more axes than cuDNN knows."""
    calls, forward = [], attention._plain_forward

    def counted(query, *others):
        calls.append(query.shape)
        return forward(query, *others)

    monkeypatch.setattr(attention, "_plain_forward", counted)
    arrays, mask, d_out, _ = given(5, 7, members=3)
    mask = mask[0] if shared else mask
    axes = (0, None if shared else 0, 0)
    member = jax.vmap(lambda *each: values_and_gradients(fused(8), *each), in_axes=axes)
    found = member(arrays, mask, d_out)
    assert calls[-1] == (3 * 2, 8, 4, 8)
    for number in range(3):
        own = [part[number] for part in arrays], mask if shared else mask[number], d_out[number]
        close([part[number] for part in found], values_and_gradients(fused(8), *own))


def test_a_cell_is_right_where_plain_jax_takes_the_place_of_cudnn():
    cell = tx_attention.AttentionCells().cell(length=12, width=8, empty=True, causal=True, magnitude=8.0, block=16)
    assert list(cell) == ["heads", "d_query", "d_key", "d_value"]
    for array in cell.values():
        assert array["finite"]
        assert 0 < array["error"] < attention_grid.TOLERANCE


def test_a_cell_is_wrong_where_the_gradient_is(monkeypatch):
    backward = attention._plain_backward

    def broken(*given):
        d_query, d_key, d_value = backward(*given)
        return d_query.at[:, 0].set(jnp.nan), d_key * 2, d_value

    monkeypatch.setattr(attention, "_plain_backward", broken)
    cell = tx_attention.AttentionCells().cell(length=12, width=8, empty=False, causal=False, magnitude=1.0, block=1)
    assert cell["d_query"] == {"finite": False, "error": None}
    assert cell["d_key"]["error"] > attention_grid.TOLERANCE > cell["d_value"]["error"]


@pytest.mark.slow
def test_the_grid_is_right_where_plain_jax_takes_the_place_of_cudnn(tmp_path, capsys):
    out = tmp_path / "grid.json"
    assert command.main(["attention", "--lengths=16", "--widths=8", "--threads=1", f"--out={out}"]) == 0
    result = json.loads(out.read_text())
    assert len(result["cells"]) == 2**4
    assert result["wrong"] == 0
    assert {cell["rows"] for cell in result["cells"]} == {"as they are", "padded"}
    assert "cells not right" in capsys.readouterr().out


def test_rows_too_short_to_have_something_empty_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["attention", "--lengths=64,3", "--threads=1"])
    assert capsys.readouterr().err == "error: --lengths must be at least 4; got 3\n"


def test_what_is_not_finite_is_named():
    array = {"finite": True, "error": 0.01}
    cell = {"length": 64, "width": 16, "empty": True, "rows": "as they are", "right": False}
    cell["arrays"] = {"heads": array, "d_query": {"finite": False, "error": None}}
    table = attention_grid.to_table({"cells": [cell, cell | {"right": True, "arrays": {}}], "platform": "gpu"})
    assert table.rows == (("64", "16", "as they are", "some", "1.0e-02", "d_query", "1"),)

"""What is measured of heads, against plain NumPy and against heads that are cut off by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from tx.data.packing import FIELDS
from tx.decoding.translator import Translator
from tx.evaluation import attention_probe
from tx.model.loss import batch_loss

CONFIG = {"model__num_layers": 1, "model__num_heads": 2}
KINDS = [("encoder", "self"), ("decoder", "self"), ("decoder", "cross")]


def two_rows():
    """Three packed pairs: two in the first row, one in the second."""
    rng, batch = np.random.default_rng(0), {field: np.zeros((2, 12), np.int32) for field in FIELDS}
    for row, segment, start, lengths in ((0, 1, (0, 0), (4, 5)), (0, 2, (4, 5), (3, 2)), (1, 1, (0, 0), (6, 4))):
        for side, first, length in zip(("src", "tgt"), start, lengths, strict=True):
            place = slice(first, first + length)
            batch[side][row, place] = tiny.sentences(rng, [length])[0]
            batch[f"{side}_segments"][row, place] = segment
            batch[f"{side}_positions"][row, place] = np.arange(length)
    return batch


@pytest.fixture(scope="module")
def measured():
    """(config, parameters, batches, the measures by place)."""
    config = tiny.config(**CONFIG)
    _, params = tiny.init(config)
    batches = [two_rows(), {field: array[:1] for field, array in two_rows().items()}]
    found = attention_probe.measure_attention(config, params, batches)
    return config, params, batches, {(o["stack"], o["layer"], o["kind"], o["head"]): o for o in found}


def test_what_another_kernel_has_trained_is_measured_by_the_plain_one(measured):
    """The fused one writes no weights out, and is for NVIDIA GPUs alone; so it is with translating."""
    config, params, batches, found = measured
    other = config.copy_and_resolve_references()
    other.model.attention_backend = "cudnn"  # whatever else a run with it needs
    again = attention_probe.measure_attention(other, params, batches)
    assert again == list(found.values())
    source = [5, 6, 7, 1]
    assert attention_probe.attention_weights(other, params, source, source).keys() == {(s, 0, k) for s, k in KINDS}
    one, two = (Translator(each, params)([np.array(source)])[0] for each in (config, other))
    assert list(one) == list(two)


def test_every_head_is_measured(measured):
    assert list(measured[3]) == [(stack, 0, kind, head) for stack, kind in KINDS for head in (0, 1)]


def test_entropy_distance_and_variance_are_those_of_the_weights(measured):
    """The encoder's first layer, query by query: its queries and keys are plain products of what it is given."""
    config, params, batches, found = measured
    module, d_k = tiny.init(config)[0], config.model.d_k
    attention = jax.tree.map(np.asarray, params["encoder_0"]["self_attention"])
    sums = {name: np.zeros(2) for name in ("entropy", "distance", "variance")}
    queries, space = 0, params["target_space"][0]
    for batch in batches:
        x = np.asarray(
            module.apply(
                {"params": params},
                jnp.asarray(batch["src"]),
                jnp.asarray(batch["src_positions"]),
                method=lambda m, src, position: m._embed(src, position, m.source_position, False, space),
            ),
            np.float64,
        )
        q, k = (x @ attention[name]["kernel"] + attention[name]["bias"] for name in ("query", "key"))
        for row, segments in enumerate(batch["src_segments"]):
            for i in np.flatnonzero(segments):
                seen = np.flatnonzero(segments == segments[i])
                queries += 1
                for head in range(2):
                    part = slice(head * d_k, (head + 1) * d_k)
                    logits = k[row, seen][:, part] @ q[row, i, part] / np.sqrt(d_k)
                    weights = np.exp(logits - logits.max())
                    weights /= weights.sum()
                    sums["entropy"][head] -= (weights * np.log(weights)).sum()
                    sums["distance"][head] += (weights * abs(seen - i)).sum()
                    sums["variance"][head] += logits.var()
    for name, total in sums.items():
        got = [found[("encoder", 0, "self", head)][name] for head in range(2)]
        np.testing.assert_allclose(got, total / queries, rtol=2e-4, err_msg=name)


@pytest.mark.parametrize(
    "place", [pytest.param(("encoder", 0, "self", 1), marks=pytest.mark.slow), ("decoder", 0, "cross", 0)]
)
def test_the_loss_without_a_head_is_that_of_a_model_whose_output_ignores_it(measured, place):
    config, params, batches, found = measured
    stack, layer, kind, head = place
    part = slice(head * config.model.d_v, (head + 1) * config.model.d_v)

    mean = jax.jit(lambda params, batch: batch_loss(config, params, batch)[1])

    def nll(params):
        total = sum(float(mean(params, batch)) * int((batch["tgt"] != 0).sum()) for batch in batches)
        return total / sum((batch["tgt"] != 0).sum() for batch in batches)

    cut = jax.tree.map(lambda leaf: leaf, params)
    output = cut[f"{stack}_{layer}"][f"{kind}_attention"]["output"]
    output["kernel"] = output["kernel"].at[part].set(0.0)
    assert found[place]["loss_without"] == pytest.approx(nll(cut) - nll(params), abs=1e-5)
    assert abs(found[place]["loss_without"]) > 1e-4

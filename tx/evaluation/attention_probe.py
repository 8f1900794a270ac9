"""Probe of a trained model's attention heads: their entropy and distance, and the dev loss without each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from tx.data.packing import Batch
from tx.model.attention_kernels import MASKED
from tx.model.loss import cross_entropy
from tx.model.prefix import JoinedRows
from tx.model.transformer import Transformer, projection
from tx.runtime.liveness import show_progress

KINDS = {"self_attention": "self", "cross_attention": "cross"}


def measure_attention(config: ConfigDict, params: dict, batches: list[Batch]) -> list[dict]:
    """Returns measures of every head, means over all queries of the batches of packed sentences.

    Each is {"stack": "encoder" or "decoder", "layer": from 0, "kind": "self" or "cross", "head": from 0,
      "entropy": of the weights, in nats,
      "distance": the mean of |position of key - position of query| under the weights, in tokens,
      "variance": of a query's logits over the keys that it may see,
      "loss_without": how much greater the dev loss is in nats a token if this head alone gives zeros}.
    Of other mixers than self-attention nothing is said. The one stack of a decoder-only model is a "decoder", whose
    queries are source's and target's.
    """
    frozen = FrozenConfigDict(config.model.to_dict())
    sums = None
    for batch in batches:
        found = jax.device_get(_look(frozen, params, batch))
        show_progress()
        found = {
            name: {key: np.asarray(value, np.float64) for key, value in one.items()} for name, one in found.items()
        }
        sums = found if sums is None else jax.tree.map(np.add, sums, found)
    heads = config.model.num_heads
    names = sorted(sums, key=_order)
    everything = {name: np.ones(heads, np.float32) for name in names}
    whole, measured = _loss(frozen, params, batches, everything), []
    for name in names:
        stack, layer, kind = _parts(name)
        for head in range(heads):
            kept = everything | {name: everything[name] - np.eye(heads, dtype=np.float32)[head]}
            means = {
                key: float(sums[name][key][head] / sums[name]["queries"]) for key in ("entropy", "distance", "variance")
            }
            without = _loss(frozen, params, batches, kept) - whole
            show_progress()
            measured.append(
                {"stack": stack, "layer": layer, "kind": kind, "head": head, **means, "loss_without": without}
            )
    return measured


def attention_weights(
    config: ConfigDict, params: dict, source: list[int], target: list[int]
) -> dict[tuple, np.ndarray]:
    """Returns the weights of every head over one sentence pair: {(stack, layer, kind): (h, queries, keys)}.

    Queries and keys of a decoder-only model are source's, then target's.

    Args:
      config, params: of the trained model.
      source, target: tokens, end of sentence included.
    """
    src, tgt = (jnp.asarray([ids], jnp.int32) for ids in (source, target))
    model = Transformer(**config.model)
    _, seen = model.apply({"params": params}, src, tgt, method="hidden", mutable=["attention"])
    weights = {
        f"{layer}/{module}": np.asarray(found["weights"][0][0], np.float32)
        for layer, modules in seen["attention"].items()
        for module, found in modules.items()
        if module == "cross_attention" or config.model.mixer == "attention"
    }
    return {_parts(name): weights[name] for name in sorted(weights, key=_order)}


def _parts(name):
    layer, module = name.split("/")
    stack, _, number = layer.partition("_")
    return stack, int(number), KINDS[module]


def _order(name):
    stack, layer, kind = _parts(name)
    return stack == "decoder", layer, kind == "cross"


@functools.partial(jax.jit, static_argnums=0)
def _look(model, params, batch):
    """Sums over the real queries of a batch: {"encoder_0/self_attention": {measure: (h,), "queries": ()}}."""
    _, seen = Transformer(**model).apply({"params": params}, **batch, method="hidden", mutable=["attention"])
    sides = _sides(model, batch)
    return {
        f"{layer}/{module}": _sums(found["logits"][0], found["weights"][0], *_queries_and_keys(sides, layer, module))
        for layer, modules in seen["attention"].items()
        for module, found in modules.items()
        if module == "cross_attention" or model.mixer == "attention"
    }


def _sides(model, batch):
    """{stack: (position of each of its tokens, whether it is none of padding)}, both (b, n)."""
    if model.architecture == "decoder_only":
        rows = JoinedRows.of(batch["src_segments"], batch["tgt_segments"])
        return {"decoder": (rows.position, rows.segments != 0)}
    both = (("encoder", "src"), ("decoder", "tgt"))
    return {stack: (batch[f"{side}_positions"], batch[side] != 0) for stack, side in both}


def _queries_and_keys(sides, layer, module):
    """Those of `_sides` that a module's queries and its keys are."""
    queries = sides[layer.partition("_")[0]]
    return queries, sides["encoder"] if module == "cross_attention" else queries


def _sums(logits, weights, queries, keys):
    """logits and weights: (b, h, n, m); of queries and keys their positions, and which are real, (b, n) and (b, m)."""
    positions = keys[0][:, None, :] - queries[0][:, :, None]
    weights, real = weights.astype(jnp.float32), queries[1][:, None, :]
    visible = (logits > MASKED / 2).astype(jnp.float32)
    count = jnp.maximum(visible.sum(-1), 1.0)
    mean = (visible * logits).sum(-1) / count
    variance = (visible * jnp.square(logits - mean[..., None])).sum(-1) / count
    entropy = -(weights * jnp.log(jnp.maximum(weights, 1e-30))).sum(-1)
    distance = (weights * jnp.abs(positions)[:, None].astype(jnp.float32)).sum(-1)
    sums = {"entropy": entropy, "distance": distance, "variance": variance}
    sums = {key: jnp.where(real, value, 0.0).sum((0, 2)) for key, value in sums.items()}
    return sums | {"queries": real.sum().astype(jnp.float32)}


def _loss(model, params, batches, kept):
    """Returns the mean negative log-likelihood a target token, with what is kept of each head."""
    found = [jax.device_get(_nll(model, params, batch, kept)) for batch in batches]
    return float(sum(np.float64(nll) * count for nll, count in found) / sum(count for _, count in found))


@functools.partial(jax.jit, static_argnums=0)
def _nll(model, params, batch, kept):
    tree = {}
    for name, heads in kept.items():
        layer, module = name.split("/")
        tree.setdefault(layer, {})[module] = {"heads": heads}
    hidden = Transformer(**model).apply({"params": params, "kept": tree}, **batch, method="hidden")
    flat, targets = hidden.reshape(-1, model.d_model), batch["tgt"].reshape(-1)
    nll = cross_entropy(flat, projection(params), targets, label_smoothing=0.0, smooth_over="others")[1]
    return nll, (targets != 0).sum().astype(jnp.float32)

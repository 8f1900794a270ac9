"""Counts of parameters, operations and bytes of a configuration, by formula: nothing is allocated or compiled."""

from typing import Any

from ml_collections import ConfigDict


def parameter_count(model: ConfigDict) -> int:
    """Returns the number of trainable parameters, every table included (the accounting of Table 3's last column)."""
    return sum(parameter_groups(model).values())


def stack_depths(model: Any) -> dict[str, int]:
    """Returns the number of layers of each stack, "encoder" and "decoder", or of the one, "decoder".

    Args:
      model: `config.model`, or a module with its fields.
    """
    if model.architecture == "decoder_only":
        return {"decoder": model.num_layers}
    return {"encoder": model.num_layers, "decoder": model.decoder_layers or model.num_layers}


def parameter_groups(model: ConfigDict) -> dict[str, int]:
    """Returns the number of parameters by part: embedding, target_space, positions, and each stack's.

    A model with a component that is not this project's own is traced, without allocating it: its parts are those that
    its parameters are grouped by.
    """
    if not _all_known(model):
        return _traced_groups(model)
    d, heads, depths = model.d_model, model.num_heads, stack_depths(model)
    query_output, key_value = _attention_matrices(model)
    attention = query_output + key_value + {"cosine": heads, "additive": heads * model.d_k}.get(model.similarity, 0)
    if model.projection_bias:
        attention += heads * model.d_k + _kv_heads(model) * (model.d_k + model.d_v) + d
    matrices = _FEED_FORWARD_MATRICES[model.feed_forward]
    feed_forward = _feed_forward_matrices(model) + ((matrices - 1) * model.d_ff + d if matrices else 0)
    norm = _NORM_VECTORS[model.normalization] * d
    norms = (1 + bool(matrices)) * norm if model.norm != "none" else 0  # of an encoder layer
    cross = attention + (norm if model.norm != "none" else 0) if "encoder" in depths else 0
    last = norm if model.norm == "pre" else 0  # pre-norm leaves the stack's output unnormalised
    other = feed_forward + norms
    mixing = {causal: attention if _attends(model) else sum(_other_mixer(model, causal)) for causal in (False, True)}
    layer = {"encoder": mixing[False] + other, "decoder": mixing[True] + other + cross}
    return {
        "embedding": model.vocab_size * d * {"three": 1, "two": 2, "none": 3}[model.tying],
        "target_space": model.target_spaces * d,
        "positions": sum(_position_parameters(model, n) for n in depths.values()),
        **{stack: n * layer[stack] + last for stack, n in depths.items()},
    }


def _attends(model):
    return model.mixer in ("attention", "local")


def _other_mixer(model, causal):
    """Sizes of the matrices of a mixer that is no attention, and of its biases; None of one that is not known here."""
    d = model.d_model
    if model.mixer == "recurrent":
        return (8 if causal else 6) * d * d, 4 * d  # of the encoder's two halves, each reads d and keeps d / 2
    if model.mixer in ("convolution", "dilated"):
        return 2 * model.kernel_width * d * d, 2 * d
    return None


_FEED_FORWARD_MATRICES = {"relu": 2, "gelu": 2, "swiglu": 3, "none": 0}
_NORM_VECTORS = {"layer": 2, "rms": 1}
_SIMILARITIES = ("scaled", "unscaled", "cosine", "additive")


def _position_parameters(model, layers):
    """Those of one stack of so many layers; None for an encoding that is not known here."""
    return {
        "learned": model.max_positions * model.d_model,
        "relative": layers * (2 * model.max_offset + 1) * (model.d_k + model.d_v),
        "t5": 32 * model.num_heads,
    }.get(model.positions, 0 if model.positions in ("sinusoidal", "none", "alibi", "rotary") else None)


def _all_known(model):
    return (
        model.feed_forward in _FEED_FORWARD_MATRICES
        and model.normalization in _NORM_VECTORS
        and model.similarity in _SIMILARITIES
        and _position_parameters(model, 1) is not None
        and (_attends(model) or _other_mixer(model, True) is not None)
    )


def _traced_groups(model):
    import jax  # slow, and of no use elsewhere here

    from tx.model.transformer import Transformer

    empty = jax.ShapeDtypeStruct((1, 1), "int32")
    params = jax.eval_shape(Transformer(**model).init, jax.random.key(0), empty, empty)["params"]
    return {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()}


def _kv_heads(model: ConfigDict) -> int:
    return model.num_kv_heads or model.num_heads


def _attention_matrices(model: ConfigDict) -> tuple[int, int]:
    """Sizes of the matrices of queries and output, and of those of keys and values."""
    width = model.d_model * (model.d_k + model.d_v)
    return model.num_heads * width, _kv_heads(model) * width


def _feed_forward_matrices(model: ConfigDict) -> int:
    return _FEED_FORWARD_MATRICES.get(model.feed_forward, 2) * model.d_model * model.d_ff


def forward_flops(model: ConfigDict, source_tokens: float, target_tokens: float) -> float:
    """Returns the floating-point operations of the weight products of one forward pass.

    A product with an (m, n) matrix counts 2mn for each token that passes it; the decoder's key and value matrices
    over the encoder's output count source tokens. Products of queries with keys and of weights with values are left
    out: they grow with the sentence (under 3% at 30 tokens and the paper's base size), not with the model. A component
    that is not this project's own counts as the paper's. In a model of one stack every token passes all layers.
    """
    d, depths = model.d_model, stack_depths(model)
    (query_output, key_value), feed_forward = _attention_matrices(model), _feed_forward_matrices(model)
    mixing = {}
    for causal in (False, True):
        other = None if _attends(model) else _other_mixer(model, causal)
        mixing[causal] = other[0] if other else query_output + key_value
    per_source = per_target = depths["decoder"] * (mixing[True] + feed_forward)
    if "encoder" in depths:  # beside whose layers the source passes cross-attention's keys and values
        per_source = depths["encoder"] * (mixing[False] + feed_forward) + depths["decoder"] * key_value
        per_target += depths["decoder"] * query_output
    return 2 * (per_source * source_tokens + (per_target + d * model.vocab_size) * target_tokens)


def training_flops(config: ConfigDict) -> float:
    """Returns the operations of a whole training run: 3 forward passes a step (the backward pass is two) over full
    batches of batch_rows x row_length tokens on each side. Not Table 2's column, which is time x devices x peak. What
    train.remat computes again is not counted."""
    tokens = config.data.batch_rows * config.data.row_length
    return 3.0 * config.train.steps * forward_flops(config.model, tokens, tokens)


def step_bytes(config: ConfigDict) -> float:
    """Returns an estimate of the bytes that a training step takes, to tell big runs from small ones.

    Parameters with their gradients and moments, and what each layer leaves for the backward pass, all in float32. What
    train.remat spares is not taken off: on a CPU it is nothing (`Transformer.hidden`).
    """
    model, positions = config.model, config.data.batch_rows * config.data.row_length / config.train.micro_batches
    layer, weights = kept_numbers(model, config.data.row_length)
    depths = stack_depths(model)
    if "encoder" in depths:
        kept = (depths["encoder"] + 1.5 * depths["decoder"]) * (layer + weights)
    else:  # a layer has both sides, and looks at both
        kept = depths["decoder"] * 2 * (layer + 2 * weights)
    return 4 * (4 * parameter_count(model) + positions * kept)


def kept_numbers(model: ConfigDict, row_length: int) -> tuple[int, int]:
    """Returns how many numbers a layer leaves for the backward pass for each position, by an estimate.

    Those of its vectors, and those of attention before and after the softmax where both are kept.
    """
    layer = 8 * model.d_model + 2 * model.d_ff + 4 * model.num_heads * (model.d_k + model.d_v)
    return layer, 2 * model.num_heads * row_length

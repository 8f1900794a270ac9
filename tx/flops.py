"""Parameters, arithmetic and memory of a configuration, by formula: nothing is allocated, nothing is compiled."""

from ml_collections import ConfigDict


def parameter_count(model: ConfigDict) -> int:
    """Returns the number of trainable parameters, every table included (the accounting of Table 3's last column)."""
    return sum(parameter_groups(model).values())


def parameter_groups(model: ConfigDict) -> dict[str, int]:
    """Returns parameters by part: embedding, target_space, positions, encoder, decoder."""
    d = model.d_model
    norm = 2 * d  # scale and bias
    attention = _attention_matrices(model)
    if model.projection_bias:
        attention += model.num_heads * (2 * model.d_k + model.d_v) + d
    feed_forward = 2 * d * model.d_ff + model.d_ff + d
    final_norms = norm if model.norm == "pre" else 0  # pre-norm leaves the stack's output unnormalised
    return {
        "embedding": model.vocab_size * d,
        "target_space": model.target_spaces * d,
        "positions": 2 * model.max_positions * d if model.positions == "learned" else 0,
        "encoder": model.num_layers * (attention + feed_forward + 2 * norm) + final_norms,
        "decoder": model.num_layers * (2 * attention + feed_forward + 3 * norm) + final_norms,
    }


def _attention_matrices(model: ConfigDict) -> int:
    return model.d_model * model.num_heads * 2 * (model.d_k + model.d_v)


def forward_flops(model: ConfigDict, source_tokens: float, target_tokens: float) -> float:
    """Returns the floating-point operations of the weight products of one forward pass.

    A product with an (m, n) matrix counts 2mn for each token that passes it; the decoder's key and value matrices
    over the encoder's output count source tokens. Products of queries with keys and of weights with values are left
    out: they grow with the sentence (under 3% at 30 tokens and the paper's base size), not with the model.
    """
    n, d = model.num_layers, model.d_model
    attention, feed_forward = _attention_matrices(model), 2 * d * model.d_ff
    per_source = n * (attention + feed_forward + attention / 2)  # / 2: cross-attention's keys and values
    per_target = n * (attention + feed_forward + attention / 2) + d * model.vocab_size
    return 2 * (per_source * source_tokens + per_target * target_tokens)


def training_flops(config: ConfigDict) -> float:
    """Returns the operations of a whole training run: 3 forward passes a step (the backward pass is two) over full
    batches of batch_rows x row_length tokens on each side. Not Table 2's column, which is time x devices x peak."""
    tokens = config.data.batch_rows * config.data.row_length
    return 3.0 * config.train.steps * forward_flops(config.model, tokens, tokens)


def step_bytes(config: ConfigDict) -> float:
    """Returns the memory that a training step takes, about: to tell big runs from small ones.

    Parameters with their gradients and moments, and what each layer leaves for the backward pass, all in float32.
    """
    model, positions = config.model, config.data.batch_rows * config.data.row_length / config.train.micro_batches
    layer = 8 * model.d_model + 2 * model.d_ff + 4 * model.num_heads * (model.d_k + model.d_v)
    weights = 2 * model.num_heads * config.data.row_length  # of attention, before and after the softmax
    return 4 * (4 * parameter_count(model) + 2.5 * model.num_layers * positions * (layer + weights))

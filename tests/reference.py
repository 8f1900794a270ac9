"""The Transformer once more in plain NumPy and float64, one sentence at a time, written from the paper."""

import numpy as np


def layer_norm(x, p):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p.get("bias", 0.0)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(x, memory, p, heads, causal=False):
    """Section 3.2.2, head by head."""
    q, k, v = linear(x, p["query"]), linear(memory, p["key"]), linear(memory, p["value"])
    d_k, d_v = q.shape[-1] // heads, v.shape[-1] // heads
    outputs = []
    for h in range(heads):
        scores = q[:, h * d_k : (h + 1) * d_k] @ k[:, h * d_k : (h + 1) * d_k].T / np.sqrt(d_k)
        if causal:
            scores = np.where(np.tri(*scores.shape, dtype=bool), scores, -np.inf)
        outputs.append(softmax(scores) @ v[:, h * d_v : (h + 1) * d_v])
    return linear(np.concatenate(outputs, -1), p["output"])


def feed_forward(x, p):
    return linear(np.maximum(linear(x, p["inner"]), 0.0), p["outer"])


def residual(x, sublayer, p, norm):
    if norm == "pre":
        return x + sublayer(layer_norm(x, p["norm"]))
    return layer_norm(x + sublayer(x), p["norm"])


def sinusoids(length, d_model, layout, endpoint):
    """Section 3.5, entry by entry; `endpoint` divides by d_model/2 - 1."""
    table = np.zeros((length, d_model))
    half = d_model // 2
    for position in range(length):
        for i in range(half):
            angle = position / 10000 ** (i / (half - 1 if endpoint else half))
            sine, cosine = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, half + i)
            table[position, sine], table[position, cosine] = np.sin(angle), np.cos(angle)
    return table


def logits(config, params, src, tgt):
    """Logits (len(tgt), V) of one sentence pair of unpadded token lists; params as nested dicts of arrays."""
    model = config.model
    embedding = params["embedding"]

    def embed(tokens, side):
        x = np.array([embedding[t] if t else np.zeros(model.d_model) for t in tokens])
        x = x * np.sqrt(model.d_model) if model.scale_embedding else x
        if model.positions == "sinusoidal":
            x = x + sinusoids(len(tokens), model.d_model, model.sinusoid_layout, model.sinusoid_endpoint)
        elif model.positions == "learned":
            x = x + params[f"{side}_position"]["table"][: len(tokens)]
        return x

    memory = embed(src, "source")
    if model.target_spaces:
        memory = memory + params["target_space"][0]
    for n in range(model.num_layers):
        p = params[f"encoder_{n}"]
        for i, sublayer in enumerate(
            (
                lambda y, p=p: attention(y, y, p["self_attention"], model.num_heads),
                lambda y, p=p: feed_forward(y, p["feed_forward"]),
            )
        ):
            memory = residual(memory, sublayer, p[f"residual_{i}"], model.norm)
    if model.norm == "pre":
        memory = layer_norm(memory, params["encoder_norm"])
    x = embed([0, *tgt[:-1]], "target")
    for n in range(model.num_layers):
        p = params[f"decoder_{n}"]
        for i, sublayer in enumerate(
            (
                lambda y, p=p: attention(y, y, p["self_attention"], model.num_heads, causal=True),
                lambda y, p=p: attention(y, memory, p["cross_attention"], model.num_heads),
                lambda y, p=p: feed_forward(y, p["feed_forward"]),
            )
        ):
            x = residual(x, sublayer, p[f"residual_{i}"], model.norm)
    if model.norm == "pre":
        x = layer_norm(x, params["decoder_norm"])
    return x @ embedding.T

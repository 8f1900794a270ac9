"""The Transformer once more in plain NumPy and float64, one sentence at a time, written from the paper."""

import cmath
import math

import numpy as np


def normalise(x, p):
    """Layer norm, or, where there is no bias, RMS norm."""
    if "bias" not in p:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"]
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p.get("bias", 0.0)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def similarity(model, q, k, p, h):
    """The logit of one query and one key of head h (section 3.2.1)."""
    if model.similarity == "additive":
        return sum(p["v"][h][i] * math.tanh(q[i] + k[i]) for i in range(len(q)))
    if model.similarity == "cosine":
        return p["temperature"][h] * (q @ k) / math.sqrt((q @ q) * (k @ k))
    return q @ k / (math.sqrt(len(q)) if model.similarity == "scaled" else 1.0)


def t5_bucket(offset, causal):
    """Of the paper's text (section 2.1): half of the buckets for single offsets, then logarithmically up to 128."""
    buckets, first = (32, 0) if causal else (16, 16 if offset > 0 else 0)
    distance = max(-offset, 0) if causal else abs(offset)
    if distance < buckets // 2:
        return first + distance
    widening = math.log(distance / (buckets // 2)) / math.log(128 / (buckets // 2))
    return first + min(buckets - 1, buckets // 2 + int(widening * (buckets - buckets // 2)))


def rotated(x, position):
    """Each pair of coordinates, as a complex number, times e^(i position / 10000^(2i/d))."""
    half = len(x) // 2
    turned = [complex(x[i], x[i + half]) * cmath.exp(1j * position / 10000 ** (2 * i / len(x))) for i in range(half)]
    return np.array([z.real for z in turned] + [z.imag for z in turned])


def attention(model, x, memory, p, encoding=None, layer=0, causal=False, prefix=None):
    """Section 3.2.2, head by head, query by query; `encoding`: the parameters of positions, of self-attention.

    With a `prefix` of so many tokens, all see the whole of it, and beyond it what is no later.
    """
    reach = model.neighbourhood if encoding is not None and model.mixer == "local" else len(memory)
    q, k, v = linear(x, p["query"]), linear(memory, p["key"]), linear(memory, p["value"])
    heads, d_k, d_v = model.num_heads, model.d_k, model.d_v
    shared = heads // (model.num_kv_heads or heads)  # heads to a key
    kind, clip = None if encoding is None else model.positions, model.max_offset
    outputs = np.zeros((len(x), heads * d_v))
    for h in range(heads):
        keys, values = (y[:, h // shared * d : (h // shared + 1) * d] for y, d in ((k, d_k), (v, d_v)))
        for i in range(len(x)):
            query, logits = q[i, h * d_k : (h + 1) * d_k], []
            end = i + 1 if causal else len(memory) if prefix is None else max(i + 1, prefix)
            seen = [j for j in range(end) if abs(j - i) <= reach or encoding is None]
            for j in seen:
                key = keys[j]
                near = min(max(j - i, -clip), clip) + clip
                if kind == "rotary":
                    logits.append(similarity(model, rotated(query, i), rotated(key, j), p.get("compare"), h))
                elif kind == "relative":
                    logits.append(query @ (key + encoding["keys"][layer][near]) / math.sqrt(d_k))
                else:
                    logits.append(similarity(model, query, key, p.get("compare"), h))
                if kind == "t5":
                    logits[-1] += encoding["table"][t5_bucket(j - i, causal)][h]
                if kind == "alibi":
                    logits[-1] -= 2.0 ** (-8 * (h + 1) / heads) * abs(j - i)
            for j, weight in zip(seen, softmax(np.array(logits)), strict=True):
                near = min(max(j - i, -clip), clip) + clip
                value = values[j] + (encoding["values"][layer][near] if kind == "relative" else 0.0)
                outputs[i, h * d_v : (h + 1) * d_v] += weight * value
    return linear(outputs, p["output"])


def lstm(x, inputs, states):
    hidden = cell = np.zeros(states["kernel"].shape[0])
    outputs = []
    for row in x:
        gates = np.split(linear(row, inputs) + hidden @ states["kernel"], 4)
        entry, forget, leave = (1 / (1 + np.exp(-gate)) for gate in (gates[0], gates[1] + 1, gates[3]))
        cell = forget * cell + entry * np.tanh(gates[2])
        hidden = leave * np.tanh(cell)
        outputs.append(hidden)
    return np.array(outputs)


def mixer(model, x, p, encoding, layer, causal):
    if model.mixer in ("attention", "local"):
        return attention(model, x, x, p, encoding, layer, causal)
    if model.mixer == "recurrent":
        forwards = lstm(x, p["inputs_0"], p["states_0"])
        return forwards if causal else np.hstack([forwards, lstm(x[::-1], p["inputs_1"], p["states_1"])[::-1]])
    k, outputs = model.kernel_width, []
    dilation = k**layer if model.mixer == "dilated" else 1
    for i in range(len(x)):
        first = i - dilation * (k - 1 if causal else (k - 1) // 2)
        taps = [first + dilation * tap for tap in range(k)]
        window = np.concatenate([x[j] if 0 <= j < len(x) else np.zeros(model.d_model) for j in taps])
        value, gate = np.split(linear(window, p["kernel"]), 2)
        outputs.append(value / (1 + np.exp(-gate)))
    return np.array(outputs)


def feed_forward(kind, x, p):
    inner = linear(x, p["inner"])
    if kind == "swiglu":
        gate = linear(x, p["gate"])
        return linear(gate / (1 + np.exp(-gate)) * inner, p["outer"])
    if kind == "gelu":
        return linear(inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))), p["outer"])
    return linear(np.maximum(inner, 0.0), p["outer"])


def residual(model, x, sublayer, p):
    kept = x if model.residual else 0.0
    if model.norm == "pre":
        return kept + sublayer(normalise(x, p["norm"]))
    y = kept + sublayer(x)
    return normalise(y, p["norm"]) if model.norm == "post" else y


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
    model, one_stack = config.model, config.model.architecture == "decoder_only"

    def embed(tokens, side):
        table = params.get("source_embedding", params["embedding"]) if side == "source" else params["embedding"]
        x = np.array([table[t] if t else np.zeros(model.d_model) for t in tokens])
        x = x * np.sqrt(model.d_model) if model.scale_embedding else x
        return x + params["target_space"][0] if side == "source" and model.target_spaces else x

    def placed(x, position):
        if model.positions == "sinusoidal":
            x = x + sinusoids(len(x), model.d_model, model.sinusoid_layout, model.sinusoid_endpoint)
        elif model.positions == "learned":
            scale = np.sqrt(model.d_model) if model.scale_positions else 1.0
            x = x + scale * params[position]["table"][: len(x)]
        return x

    def layer(x, name, n, position, memory=None):
        p, encoding = params[f"{name}_{n}"], params.get(position, {})
        if one_stack:
            sublayers = [lambda y: attention(model, y, y, p["self_attention"], encoding, n, prefix=len(src))]
        else:
            sublayers = [lambda y: mixer(model, y, p["self_attention"], encoding, n, causal=memory is not None)]
        if memory is not None:
            sublayers.append(lambda y: attention(model, y, memory, p["cross_attention"]))
        if model.feed_forward != "none":
            sublayers.append(lambda y: feed_forward(model.feed_forward, y, p["feed_forward"]))
        for i, sublayer in enumerate(sublayers):
            x = residual(model, x, sublayer, p.get(f"residual_{i}", {}))
        return x

    def ended(x, name):
        return normalise(x, params[f"{name}_norm"]) if model.norm == "pre" else x

    source, x = embed(src, "source"), embed([0, *tgt[:-1]], "target")
    if one_stack:
        x = placed(np.vstack([source, x]), "position")
        for n in range(model.num_layers):
            x = layer(x, "decoder", n, "position")
        x = x[len(src) :]
    else:
        memory, x = placed(source, "source_position"), placed(x, "target_position")
        for n in range(model.num_layers):
            memory = layer(memory, "encoder", n, "source_position")
        memory = ended(memory, "encoder")
        for n in range(model.decoder_layers or model.num_layers):
            x = layer(x, "decoder", n, "target_position", memory)
    return ended(x, "decoder") @ params.get("projection", params["embedding"]).T

"""The same Transformer in PyTorch, written for speed there: nn.Transformer's blocks with one product for queries, keys
and values, and `scaled_dot_product_attention`."""

import math

import torch
from torch import nn
from torch.nn import functional

from experiments.bench.weights import sinusoids
from tx.errors import UserError

POSITIONS = 1024  # tokens of a sentence at most


class Attention(nn.Module):
    """Multi-head attention; `memory` of None is self-attention."""

    def __init__(self, model: dict):
        super().__init__()
        d, h, bias = model["d_model"], model["num_heads"], model["projection_bias"]
        self.heads, self.keys, self.values = h, h * model["d_k"], h * model["d_v"]
        self.dropout = model["attention_dropout"]
        self.inputs = nn.Linear(d, 2 * self.keys + self.values, bias)  # queries, keys, values
        self.output = nn.Linear(self.values, d, bias)

    def forward(self, x, memory=None, mask=None, causal=False):
        if memory is None:
            query, key, value = self.inputs(x).split([self.keys, self.keys, self.values], -1)
        else:
            weight, bias = self.inputs.weight, self.inputs.bias
            cut = self.keys
            query = functional.linear(x, weight[:cut], None if bias is None else bias[:cut])
            both = functional.linear(memory, weight[cut:], None if bias is None else bias[cut:])
            key, value = both.split([self.keys, self.values], -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        dropout = self.dropout if self.training else 0.0
        heads = functional.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=causal)
        return self.output(heads.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """An encoder layer, or with `cross` a decoder layer."""

    def __init__(self, model: dict, cross: bool):
        super().__init__()
        d = model["d_model"]
        self.pre = model["norm"] == "pre"
        self.self_attention = Attention(model)
        self.cross_attention = Attention(model) if cross else None
        self.inner, self.outer = nn.Linear(d, model["d_ff"]), nn.Linear(model["d_ff"], d)
        self.norms = nn.ModuleList(nn.LayerNorm(d, eps=1e-6) for _ in range(3 if cross else 2))
        self.drop, self.drop_inner = nn.Dropout(model["dropout"]), nn.Dropout(model["relu_dropout"])

    def _residual(self, norm, x, sublayer):
        if self.pre:
            return x + self.drop(sublayer(norm(x)))
        return norm(x + self.drop(sublayer(x)))

    def forward(self, x, mask=None, memory=None, memory_mask=None):
        causal = self.cross_attention is not None
        norms = iter(self.norms)
        x = self._residual(next(norms), x, lambda y: self.self_attention(y, mask=mask, causal=causal))
        if causal:
            x = self._residual(next(norms), x, lambda y: self.cross_attention(y, memory, memory_mask))
        return self._residual(next(norms), x, lambda y: self.outer(self.drop_inner(functional.relu(self.inner(y)))))


class Transformer(nn.Module):
    """`model` is the dict of config.model. Sentences are padded on the right, so that no target needs a mask."""

    def __init__(self, model: dict):
        super().__init__()
        if model["positions"] != "sinusoidal":
            raise UserError(f"the PyTorch peer has sinusoidal positions only, not {model['positions']!r}")
        if model["dtype"] != "float32":
            raise UserError(f"the PyTorch peer computes in float32 only, not {model['dtype']}")
        d = model["d_model"]
        self.embedding = nn.Parameter(torch.randn(model["vocab_size"], d) * d**-0.5)
        self.space = nn.Parameter(torch.zeros(d)) if model["target_spaces"] else None
        self.scale = math.sqrt(d) if model["scale_embedding"] else 1.0
        self.register_buffer("sinusoids", torch.from_numpy(sinusoids(model, POSITIONS)), persistent=False)
        self.drop = nn.Dropout(model["dropout"])
        self.encoder = nn.ModuleList(Layer(model, cross=False) for _ in range(model["num_layers"]))
        self.decoder = nn.ModuleList(Layer(model, cross=True) for _ in range(model["num_layers"]))
        pre = model["norm"] == "pre"
        self.encoder_norm, self.decoder_norm = (nn.LayerNorm(d, eps=1e-6) if pre else nn.Identity() for _ in range(2))

    def forward(self, src, tgt, src_mask):
        """Returns logits (batch * target length, vocab); src_mask (batch, 1, 1, m) is true at tokens, None: all are."""
        x = self._embed(src, self.space)
        for layer in self.encoder:
            x = layer(x, src_mask)
        memory = self.encoder_norm(x)
        x = self._embed(functional.pad(tgt[:, :-1], (1, 0)), None)
        for layer in self.decoder:
            x = layer(x, None, memory, src_mask)
        return functional.linear(self.decoder_norm(x).flatten(0, 1), self.embedding)

    def _embed(self, tokens, space):
        x = functional.embedding(tokens, self.embedding) * ((tokens != 0) * self.scale)[..., None]
        if space is not None:
            x = x + space
        return self.drop(x + self.sinusoids[: tokens.shape[1]])

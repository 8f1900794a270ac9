"""The same Transformer in PyTorch: made of the library's own `nn.Transformer`, and written again for speed there.

The one written again has one product for queries, keys and values, and `scaled_dot_product_attention` without a mask
where nothing is padded.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from experiments.bench.contestants.weights import sinusoids
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


def _decoder_layers(model):
    return model["decoder_layers"] or model["num_layers"]


class Tuned(nn.Module):
    """Encoder and decoder of our layers."""

    def __init__(self, model: dict):
        super().__init__()
        self.encoder = nn.ModuleList(Layer(model, cross=False) for _ in range(model["num_layers"]))
        self.decoder = nn.ModuleList(Layer(model, cross=True) for _ in range(_decoder_layers(model)))
        d, pre = model["d_model"], model["norm"] == "pre"
        self.encoder_norm, self.decoder_norm = (nn.LayerNorm(d, eps=1e-6) if pre else nn.Identity() for _ in range(2))

    def forward(self, x, y, padding):
        mask = None if padding is None else ~padding[:, None, None, :]
        for layer in self.encoder:
            x = layer(x, mask)
        memory = self.encoder_norm(x)
        for layer in self.decoder:
            y = layer(y, None, memory, mask)
        return self.decoder_norm(y)


class Library(nn.Module):
    """Encoder and decoder of `nn.Transformer`, with dropout where the paper has it."""

    def __init__(self, model: dict):
        super().__init__()
        d, h, pre = model["d_model"], model["num_heads"], model["norm"] == "pre"
        if not (h * model["d_k"] == h * model["d_v"] == d and model["projection_bias"]):
            raise UserError("nn.Transformer has h x d_k = h x d_v = d_model and projections with biases only")
        made = nn.Transformer(
            *(d, h, model["num_layers"], _decoder_layers(model), model["d_ff"], model["dropout"]),
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=pre,
        )
        if not pre:  # it would normalise the last layer's output twice
            made.encoder.norm = made.decoder.norm = None
        # Its one rate is for attention weights and the ReLU as well.
        for part in made.modules():
            if isinstance(part, nn.MultiheadAttention):
                part.dropout = model["attention_dropout"]
            elif isinstance(part, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                part.dropout.p = model["relu_dropout"]
        self.transformer = made

    def forward(self, x, y, padding):
        causal = nn.Transformer.generate_square_subsequent_mask(y.shape[1], device=y.device)
        return self.transformer(
            *(x, y),
            tgt_mask=causal,
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )


class Transformer(nn.Module):
    """Embedding, encoder, decoder and the projection to logits.

    Sentences are padded on the right, so that no target needs a mask.

    Args:
      model: the dict of config.model.
      layers: Tuned or Library.
    """

    def __init__(self, model: dict, layers: type):
        super().__init__()
        if model["architecture"] != "encoder_decoder":
            raise UserError(f"the PyTorch peer has an encoder and a decoder, and is not {model['architecture']!r}")
        if model["positions"] != "sinusoidal":
            raise UserError(f"the PyTorch peer has sinusoidal positions only, not {model['positions']!r}")
        d = model["d_model"]
        self.embedding = nn.Parameter(torch.randn(model["vocab_size"], d) * d**-0.5)
        self.space = nn.Parameter(torch.zeros(d)) if model["target_spaces"] else None
        self.scale = math.sqrt(d) if model["scale_embedding"] else 1.0
        self.register_buffer("sinusoids", torch.from_numpy(sinusoids(model, POSITIONS)), persistent=False)
        self.drop = nn.Dropout(model["dropout"])
        self.layers = layers(model)

    def forward(self, src, tgt, padding):
        """Returns logits (batch * target length, vocab); padding (batch, m) is true where src has no token."""
        source = self._embed(src, self.space)
        hidden = self.layers(source, self._embed(functional.pad(tgt[:, :-1], (1, 0)), None), padding)
        return functional.linear(hidden.flatten(0, 1), self.embedding)

    def _embed(self, tokens, space):
        x = functional.embedding(tokens, self.embedding) * ((tokens != 0) * self.scale)[..., None]
        if space is not None:
            x = x + space
        return self.drop(x + self.sinusoids[: tokens.shape[1]])

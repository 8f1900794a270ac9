"""The Transformer (section 3), as the paper has it; every deviation is a field of `config.model`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from tx.model import prng
from tx.model.attention import MultiHeadAttention, PackedMask, PositionContext
from tx.model.feed_forward import feed_forwards
from tx.model.layers import Dropout, Residual
from tx.model.mixers import mixers
from tx.model.norms import norms
from tx.model.positions import check_length, positions
from tx.model.similarity import similarities

# A run translates into one language, so one row of the target-space table is ever used; the code of 2017 chose it by
# language, and the others are counted all the same.
TARGET_SPACE = 0


class EncoderLayer(nn.Module):
    """Encoder layer (section 3.1): self-attention, then feed-forward, each inside a residual."""

    attention: dict
    mixer: dict
    mixer_kind: str
    feed_forward: dict
    feed_forward_kind: str
    residual: dict

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], packed: PackedMask, context: PositionContext, train: bool
    ) -> Float[Array, "b n d"]:
        mixer = mixers[self.mixer_kind](attention=self.attention, **self.mixer, causal=False, name="self_attention")
        residual = Residual(**self.residual, name="residual_0")
        x = residual(x, lambda y: mixer.mix(y, packed, context, train=train), train=train)
        if feed_forwards[self.feed_forward_kind] is None:
            return x
        feed = feed_forwards[self.feed_forward_kind](**self.feed_forward, name="feed_forward")
        return Residual(**self.residual, name="residual_1")(x, lambda y: feed(y, train=train), train=train)


class DecoderLayer(nn.Module):
    """Decoder layer (section 3.1): causal self-attention, cross-attention, feed-forward, each inside a residual."""

    attention: dict
    mixer: dict
    mixer_kind: str
    feed_forward: dict
    feed_forward_kind: str
    residual: dict

    def setup(self):
        kind = mixers[self.mixer_kind]
        self.mixing = kind(attention=self.attention, **self.mixer, causal=True, name="self_attention")
        self.cross_attention = MultiHeadAttention(**self.attention)
        kind = feed_forwards[self.feed_forward_kind]
        self.feed = kind and kind(**self.feed_forward, name="feed_forward")
        self.residuals = [Residual(**self.residual, name=f"residual_{i}") for i in range(3 if kind else 2)]

    def __call__(
        self,
        x: Float[Array, "b n d"],
        memory: Float[Array, "b m d"],
        packed: PackedMask,
        cross: Bool[Array, "b n m"],
        context: PositionContext,
        train: bool,
    ) -> Float[Array, "b n d"]:
        first, second = self.residuals[:2]
        x = first(x, lambda y: self.mixing.mix(y, packed, context, train=train), train=train)
        x = second(x, lambda y: self.cross_attention(y, memory, cross, train=train), train=train)
        return self._fed(x, train)

    def decode_step(self, x, cross_kv, src_mask, index, ancestry, context):
        """Computes one position of each hypothesis: x (batch, beam, d); `cross_kv` are the source's keys and values."""
        mask = src_mask[:, None, :]
        first, second = self.residuals[:2]
        x = first(x, lambda y: self.mixing.decode_step(y, index, ancestry, context), train=False)
        x = second(x, lambda y: self.cross_attention.attend(y, *cross_kv, mask), train=False)
        return self._fed(x, train=False)

    def _fed(self, x, train):
        return self.residuals[2](x, lambda y: self.feed(y, train=train), train=train) if self.feed else x


class Transformer(nn.Module):
    """Encoder-decoder with one matrix shared by source embedding, target embedding and output projection (section 3.4).

    tying: "three" of those share it; or "two", with a source embedding apart; or "none", each its own.

    The attributes are `config.model`'s fields: `Transformer(**config.model)`. Token 0 is padding; its embedding is
    zero, and it stands before the first target token as the start symbol.
    """

    vocab_size: int
    num_layers: int
    d_model: int
    d_ff: int
    num_heads: int
    num_kv_heads: int
    d_k: int
    d_v: int
    similarity: str
    mixer: str
    neighbourhood: int
    kernel_width: int
    feed_forward: str
    dropout: Any  # this and the next two may be traced
    attention_dropout: Any
    relu_dropout: Any
    drop_residual: bool
    drop_embedding: bool
    positions: str
    sinusoid_layout: str
    sinusoid_endpoint: bool
    scale_positions: bool
    max_positions: int
    max_offset: int
    norm: str
    normalization: str
    residual: bool
    projection_bias: bool
    target_spaces: int
    tying: str
    scale_embedding: bool
    attention_backend: str
    dtype: str

    def setup(self):
        normal = nn.initializers.normal(self.d_model**-0.5)
        self.embedding = self.param("embedding", normal, (self.vocab_size, self.d_model))
        if self.target_spaces:
            # Uniform unit scaling counts the table's rows as its inputs.
            uniform = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
            self.target_space = self.param("target_space", uniform, (self.target_spaces, self.d_model))
        self.source_embedding = self.embedding
        if self.tying != "three":
            self.source_embedding = self.param("source_embedding", normal, (self.vocab_size, self.d_model))
        if self.tying == "none":
            self.projection = self.param("projection", normal, (self.vocab_size, self.d_model))
        encoding, shared = positions[self.positions], {"d_model": self.d_model, "d_k": self.d_k, "d_v": self.d_v}
        position = shared | {
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "max_positions": self.max_positions,
            "max_offset": self.max_offset,
            "sinusoid_layout": self.sinusoid_layout,
            "sinusoid_endpoint": self.sinusoid_endpoint,
            "scale_positions": self.scale_positions,
        }
        self.source_position = encoding(**position, causal=False)
        self.target_position = encoding(**position, causal=True)
        self.drop = Dropout(self.dropout if self.drop_embedding else 0.0)
        parts = {
            "attention": shared
            | {
                "num_heads": self.num_heads,
                "kv_heads": self.num_kv_heads or self.num_heads,
                "similarity": self.similarity,
                "projection_bias": self.projection_bias,
                "attention_dropout": self.attention_dropout,
                "kernel": self.attention_backend,
                "dtype": self.dtype,
            },
            "feed_forward": {
                "d_model": self.d_model,
                "d_ff": self.d_ff,
                "relu_dropout": self.relu_dropout,
                "dtype": self.dtype,
            },
            "mixer": {"neighbourhood": self.neighbourhood, "kernel_width": self.kernel_width},
            "mixer_kind": self.mixer,
            "feed_forward_kind": self.feed_forward,
            "residual": {
                "norm": self.norm,
                "normalization": self.normalization,
                "residual": self.residual,
                "dropout": self.dropout if self.drop_residual else 0.0,
            },
        }
        # One by one: a scan over stacked layers compiles one of them only, but its steps took 1.2 to 1.3 times as long
        # on a CPU, more than a run of any length gains.
        self.encoder = [EncoderLayer(**parts) for _ in range(self.num_layers)]
        self.decoder = [DecoderLayer(**parts) for _ in range(self.num_layers)]
        if self.norm == "pre":  # which leaves a stack's output as it is
            norm = norms[self.normalization]
            self.encoder_norm, self.decoder_norm = norm(), norm()

    def __call__(
        self, src: Int[Array, "b m"], tgt: Int[Array, "b n"], *, train: bool = False, **packing: Array
    ) -> Float[Array, "b n vocab"]:
        """Returns float32 logits: row t scores tgt[t] and has seen only tgt[:t].

        `packing` is explained at `hidden`. While training, give `rngs={"dropout": key}` to `apply`.
        """
        return self.logits(self.hidden(src, tgt, train=train, **packing))

    def hidden(
        self,
        src: Int[Array, "b m"],
        tgt: Int[Array, "b n"],
        *,
        train: bool = False,
        src_segments: Int[Array, "b m"] | None = None,
        tgt_segments: Int[Array, "b n"] | None = None,
        src_positions: Int[Array, "b m"] | None = None,
        tgt_positions: Int[Array, "b n"] | None = None,
        source: Float[Array, ""] | None = None,
    ) -> Float[Array, "b n d"]:
        """Returns the decoder's output before the projection to the vocabulary.

        Several sentences may share a row: segments number them from 1 (0: padding) and positions count from 0 in
        each; no sentence sees another. Left out, a row is one sentence. `source` multiplies the encoder's output: with
        0 the decoder learns nothing of the source.
        """
        if src_segments is None:
            src_segments, tgt_segments = (src != 0).astype(jnp.int32), (tgt != 0).astype(jnp.int32)
        if src_positions is None:
            src_positions, tgt_positions = self._count(src), self._count(tgt)
        memory = self.encode(src, src_segments, src_positions, train=train)
        memory = memory if source is None else memory * source.astype(memory.dtype)
        previous = jnp.pad(tgt[:, :-1], ((0, 0), (1, 0)))
        x = self._embed(jnp.where(tgt_positions == 0, 0, previous), tgt_positions, self.target_position, train)
        packed = PackedMask.of(tgt_segments, causal=True)
        cross = tgt_segments[:, :, None] == src_segments[:, None, :]
        for i, layer in enumerate(self.decoder):
            x = layer(x, memory, packed, cross, PositionContext(self.target_position, i, tgt_positions), train)
        return self.decoder_norm(x) if self.norm == "pre" else x

    def encode(
        self, src: Int[Array, "b m"], segments: Int[Array, "b m"], position: Int[Array, "b m"], *, train: bool
    ) -> Float[Array, "b m d"]:
        """Returns the encoder's output."""
        space = self.target_space[TARGET_SPACE] if self.target_spaces else None
        x = self._embed(src, position, self.source_position, train, space)
        packed = PackedMask.of(segments, causal=False)
        for i, layer in enumerate(self.encoder):
            x = layer(x, packed, PositionContext(self.source_position, i, position), train)
        return self.encoder_norm(x) if self.norm == "pre" else x

    def precompute_kv(self, src: Int[Array, "b m"]) -> list[tuple[Array, Array]]:
        """Returns each decoder layer's keys and values of the encoded source, for `decode_step`."""
        encoded = self.encode(src, (src != 0).astype(jnp.int32), self._count(src), train=False)
        return [layer.cross_attention.precompute_kv(encoded) for layer in self.decoder]

    def decode_step(
        self,
        token: Int[Array, "b beam"],
        index: Int[Array, ""],
        ancestry: Int[Array, "b beam length"],
        cross_kv: list[tuple[Array, Array]],
        src_mask: Bool[Array, "b m"],
    ) -> Float[Array, "b beam vocab"]:
        """Returns the logits of output position `index` of each hypothesis, given its previous token (0 at the start).

        A sentence has `beam` hypotheses; ancestry[b, j, t] is the beam index that j, or its beginning, had at position
        t <= index. `cross_kv` is what `precompute_kv` gave. Keys and values of all beam indices and positions (at most
        `length`) are in the collection "cache", whose leaves have b as their leading axis: apply with
        `mutable=["cache"]`.
        """
        position = jnp.broadcast_to(index, token.shape)
        x = self._embed(token, position, self.target_position, train=False)
        for i, (layer, keys_values) in enumerate(zip(self.decoder, cross_kv, strict=True)):
            context = PositionContext(self.target_position, i, position)
            x = layer.decode_step(x, keys_values, src_mask, index, ancestry, context)
        x = self.decoder_norm(x) if self.norm == "pre" else x
        return self.logits(x)

    def logits(self, hidden: Float[Array, "b n d"]) -> Float[Array, "b n vocab"]:
        """Projects onto the vocabulary; float32 whatever the model's dtype."""
        dtype = jnp.dtype(self.dtype)
        flat = hidden.reshape(-1, self.d_model).astype(dtype)
        matrix = self.projection if self.tying == "none" else self.embedding
        scores = jax.lax.dot_general(
            flat, matrix.astype(dtype), (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        return scores.reshape(*hidden.shape[:-1], self.vocab_size)

    def _embed(self, tokens, position, encoding, train, space=None):
        table = self.source_embedding if encoding is self.source_position else self.embedding
        x = jnp.where((tokens != 0)[..., None], table[tokens], 0.0)
        if self.scale_embedding:
            x = x * self.d_model**0.5
        if space is not None:
            x = x + space[None, None, :]
        x = x + encoding(position)
        return self.drop(x.astype(jnp.dtype(self.dtype)), train=train)

    def _count(self, tokens):
        check_length(self.positions, tokens.shape[1], self.max_positions)
        return jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)


def check_components(model: ConfigDict) -> None:
    """Raises UserError, naming the nearest, for the name of a component that there is not."""
    for registry in (positions, similarities, mixers, norms, feed_forwards):
        _ = registry[model[registry.field.removeprefix("model.")]]


def init_params(model: ConfigDict, seed: int) -> dict:
    """Returns the parameters before the first step; a function of the seed alone.

    Args:
      model: `config.model`.
    """
    return _parameters(Transformer(**model), np.uint32(seed))


@functools.partial(jax.jit, static_argnums=0)
def _parameters(model, seed):
    empty = jnp.zeros((1, 1), jnp.int32)
    return model.init(prng.key(seed), empty, empty)["params"]


def projection(params: dict) -> Float[Array, "vocab d"]:
    """Returns the matrix of the output projection: the model's own, or the shared embedding (section 3.4)."""
    return params["projection"] if "projection" in params else params["embedding"]

"""The Transformer (section 3), as the paper has it; every deviation is a field of `config.model`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from tx.attention import MultiHeadAttention
from tx.layers import Dropout, FeedForward, LayerNorm, Residual
from tx.positions import check_length, positions

# A run translates into one language, so one row of the target-space table is ever used; the code of 2017 chose it by
# language, and the others are counted all the same.
TARGET_SPACE = 0


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each inside a residual (section 3.1)."""

    attention: dict
    feed_forward: dict
    residual: dict

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "b n n"], train: bool) -> Float[Array, "b n d"]:
        attend = MultiHeadAttention(**self.attention, name="self_attention")
        feed = FeedForward(**self.feed_forward, name="feed_forward")
        x = Residual(**self.residual, name="residual_0")(x, lambda y: attend(y, y, mask, train=train), train=train)
        return Residual(**self.residual, name="residual_1")(x, lambda y: feed(y, train=train), train=train)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's output, feed-forward, each inside a residual."""

    attention: dict
    feed_forward: dict
    residual: dict

    def setup(self):
        self.self_attention = MultiHeadAttention(**self.attention)
        self.cross_attention = MultiHeadAttention(**self.attention)
        self.feed = FeedForward(**self.feed_forward, name="feed_forward")
        self.residuals = [Residual(**self.residual, name=f"residual_{i}") for i in range(3)]

    def __call__(
        self,
        x: Float[Array, "b n d"],
        memory: Float[Array, "b m d"],
        causal: Bool[Array, "b n n"],
        cross: Bool[Array, "b n m"],
        train: bool,
    ) -> Float[Array, "b n d"]:
        first, second, third = self.residuals
        x = first(x, lambda y: self.self_attention(y, y, causal, train=train), train=train)
        x = second(x, lambda y: self.cross_attention(y, memory, cross, train=train), train=train)
        return third(x, lambda y: self.feed(y, train=train), train=train)

    def step(self, x, memory, memory_mask, index, slots):
        """One position of each hypothesis: x (batch, beam, d); memory holds keys and values for (batch, m)."""
        mask = memory_mask[:, None, :]
        first, second, third = self.residuals
        x = first(x, lambda y: self.self_attention.step(y, index, slots), train=False)
        x = second(x, lambda y: self.cross_attention.attend(y, *memory, mask), train=False)
        return third(x, lambda y: self.feed(y, train=False), train=False)


class Transformer(nn.Module):
    """Encoder-decoder with one matrix shared by source embedding, target embedding and output projection (section 3.4).

    The attributes are `config.model`'s fields: `Transformer(**config.model)`. Token 0 is padding; its embedding is
    zero, and it stands before the first target token as the start symbol.
    """

    vocab_size: int
    num_layers: int
    d_model: int
    d_ff: int
    num_heads: int
    d_k: int
    d_v: int
    dropout: Any  # this and the next two may be traced
    attention_dropout: Any
    relu_dropout: Any
    positions: str
    sinusoid_layout: str
    sinusoid_endpoint: bool
    max_positions: int
    norm: str
    projection_bias: bool
    target_spaces: int
    scale_embedding: bool
    attention: str
    dtype: str

    def setup(self):
        normal = nn.initializers.normal(self.d_model**-0.5)
        self.embedding = self.param("embedding", normal, (self.vocab_size, self.d_model))
        if self.target_spaces:
            # Uniform unit scaling counts the table's rows as its inputs.
            uniform = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
            self.target_space = self.param("target_space", uniform, (self.target_spaces, self.d_model))
        encoding = positions[self.positions]
        position = {
            "d_model": self.d_model,
            "max_positions": self.max_positions,
            "sinusoid_layout": self.sinusoid_layout,
            "sinusoid_endpoint": self.sinusoid_endpoint,
        }
        self.source_position, self.target_position = encoding(**position), encoding(**position)
        self.drop = Dropout(self.dropout)
        parts = {
            "attention": {
                "d_model": self.d_model,
                "num_heads": self.num_heads,
                "d_k": self.d_k,
                "d_v": self.d_v,
                "projection_bias": self.projection_bias,
                "attention_dropout": self.attention_dropout,
                "kernel": self.attention,
                "dtype": self.dtype,
            },
            "feed_forward": {
                "d_model": self.d_model,
                "d_ff": self.d_ff,
                "relu_dropout": self.relu_dropout,
                "dtype": self.dtype,
            },
            "residual": {"norm": self.norm, "dropout": self.dropout},
        }
        self.encoder = [EncoderLayer(**parts) for _ in range(self.num_layers)]
        self.decoder = [DecoderLayer(**parts) for _ in range(self.num_layers)]
        if self.norm == "pre":
            self.encoder_norm, self.decoder_norm = LayerNorm(), LayerNorm()

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
    ) -> Float[Array, "b n d"]:
        """Returns the decoder's output before the projection to the vocabulary.

        Several sentences may share a row: segments number them from 1 (0: padding) and positions count from 0 in
        each; no sentence sees another. Left out, a row is one sentence.
        """
        if src_segments is None:
            src_segments, tgt_segments = (src != 0).astype(jnp.int32), (tgt != 0).astype(jnp.int32)
        if src_positions is None:
            src_positions, tgt_positions = self._count(src), self._count(tgt)
        memory = self.encode(src, src_segments, src_positions, train=train)
        previous = jnp.pad(tgt[:, :-1], ((0, 0), (1, 0)))
        x = self._embed(jnp.where(tgt_positions == 0, 0, previous), tgt_positions, self.target_position, train)
        order = jnp.arange(tgt.shape[1])
        causal = (tgt_segments[:, :, None] == tgt_segments[:, None, :]) & (order[:, None] >= order[None, :])[None]
        cross = tgt_segments[:, :, None] == src_segments[:, None, :]
        for layer in self.decoder:
            x = layer(x, memory, causal, cross, train)
        return self.decoder_norm(x) if self.norm == "pre" else x

    def encode(
        self, src: Int[Array, "b m"], segments: Int[Array, "b m"], position: Int[Array, "b m"], *, train: bool
    ) -> Float[Array, "b m d"]:
        """Returns the encoder's output."""
        space = self.target_space[TARGET_SPACE] if self.target_spaces else None
        x = self._embed(src, position, self.source_position, train, space)
        mask = segments[:, :, None] == segments[:, None, :]
        for layer in self.encoder:
            x = layer(x, mask, train)
        return self.encoder_norm(x) if self.norm == "pre" else x

    def memory(self, src: Int[Array, "b m"]) -> list[tuple[Array, Array]]:
        """Returns each decoder layer's keys and values of the encoded source, for `step`."""
        encoded = self.encode(src, (src != 0).astype(jnp.int32), self._count(src), train=False)
        return [layer.cross_attention.memory(encoded) for layer in self.decoder]

    def step(
        self,
        token: Int[Array, "b beam"],
        index: Int[Array, ""],
        slots: Int[Array, "b beam length"],
        memory: list[tuple[Array, Array]],
        memory_mask: Bool[Array, "b m"],
    ) -> Float[Array, "b beam vocab"]:
        """Returns the logits of output position `index` of each hypothesis, given its previous token (0 at the start).

        A sentence has `beam` hypotheses; slots[b, j, t] says at which place j, or its beginning, stood at position
        t <= index. Keys and values of all places and positions (at most `length`) are in the collection "cache", whose
        leaves have b as their leading axis: apply with `mutable=["cache"]`.
        """
        x = self._embed(token, jnp.broadcast_to(index, token.shape), self.target_position, train=False)
        for layer, keys_values in zip(self.decoder, memory, strict=True):
            x = layer.step(x, keys_values, memory_mask, index, slots)
        x = self.decoder_norm(x) if self.norm == "pre" else x
        return self.logits(x)

    def logits(self, hidden: Float[Array, "b n d"]) -> Float[Array, "b n vocab"]:
        """Projects onto the shared matrix; float32 whatever the model's dtype."""
        dtype = jnp.dtype(self.dtype)
        flat = hidden.reshape(-1, self.d_model).astype(dtype)
        scores = jax.lax.dot_general(
            flat, self.embedding.astype(dtype), (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        return scores.reshape(*hidden.shape[:-1], self.vocab_size)

    def _embed(self, tokens, position, encoding, train, space=None):
        x = jnp.where((tokens != 0)[..., None], self.embedding[tokens], 0.0)
        if self.scale_embedding:
            x = x * self.d_model**0.5
        if space is not None:
            x = x + space[None, None, :]
        x = x + encoding(position)
        return self.drop(x.astype(jnp.dtype(self.dtype)), train=train)

    def _count(self, tokens):
        check_length(self.positions, tokens.shape[1], self.max_positions)
        return jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)

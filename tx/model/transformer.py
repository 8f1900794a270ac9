"""The Transformer (section 3), as the paper has it; every deviation is a field of `config.model`."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from tx.errors import UserError
from tx.model import prng
from tx.model.attention import MultiHeadAttention
from tx.model.component_fields import TakesComponentFields
from tx.model.feed_forward import feed_forwards
from tx.model.flops import stack_depths
from tx.model.layers import CAST, Dropout
from tx.model.mixers import mixers
from tx.model.norms import norms
from tx.model.packed_mask import PackedMask
from tx.model.position_context import PositionContext
from tx.model.positions import check_length, positions, positions_needed
from tx.model.prefix import JoinedRows, PrefixLayer, align_right
from tx.model.residual import PendingSum, Residual, add_up, apply_norm
from tx.model.similarity import similarities
from tx.registry import Configured

# A run translates into one language, so one row of the target-space table is ever used; the code of 2017 chose it by
# language, and the others are counted all the same.
TARGET_SPACE = 0


class EncoderLayer(nn.Module):
    """Encoder layer (section 3.1): self-attention, then feed-forward, each inside a residual."""

    attention: dict
    mixer: dict
    mixer_kind: str | Configured
    feed_forward: dict
    feed_forward_kind: str | Configured
    residual: dict

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"] | PendingSum, packed: PackedMask, context: PositionContext, train: bool
    ) -> Float[Array, "b n d"] | PendingSum:
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
    mixer_kind: str | Configured
    feed_forward: dict
    feed_forward_kind: str | Configured
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
        x: Float[Array, "b n d"] | PendingSum,
        memory: Float[Array, "b m d"],
        packed: PackedMask,
        cross: Bool[Array, "b n m"],
        context: PositionContext,
        train: bool,
    ) -> Float[Array, "b n d"] | PendingSum:
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


class Transformer(nn.Module, metaclass=TakesComponentFields):
    """Encoder-decoder with one matrix shared by source embedding, target embedding and output projection (section 3.4).

    tying: "three" of those share it; or "two", with a source embedding apart; or "none", each its own.

    architecture: "decoder_only" has one stack instead, over source and target one after the other (a prefix language
    model: Raffel et al. 2020). Source sees all of source; target sees that, and what is earlier of target. Positions
    count on from one to the other.

    The attributes are `config.model`'s fields: `Transformer(**config.model)`; `component_fields` are those of the
    components that it uses, {name of a component: {field: value}}. Token 0 is padding; its embedding is
    zero, and it stands before the first target token as the start symbol.
    """

    vocab_size: int
    architecture: str
    num_layers: int
    decoder_layers: int
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
    kernels: str
    dtype: str
    component_fields: Mapping = FrozenDict()

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
        encoding = positions[positions.configured(self.positions, self.component_fields)]
        shared = {"d_model": self.d_model, "d_k": self.d_k, "d_v": self.d_v}
        depths, joined = stack_depths(self), self.architecture == "decoder_only"
        position = shared | {
            "num_heads": self.num_heads,
            "max_positions": self.max_positions,
            "max_offset": self.max_offset,
            "sinusoid_layout": self.sinusoid_layout,
            "sinusoid_endpoint": self.sinusoid_endpoint,
            "scale_positions": self.scale_positions,
        }
        if joined:
            self.position = encoding(**position, num_layers=depths["decoder"], causal=False)
        else:
            self.source_position = encoding(**position, num_layers=depths["encoder"], causal=False)
            self.target_position = encoding(**position, num_layers=depths["decoder"], causal=True)
        self.drop = Dropout(self.dropout if self.drop_embedding else 0.0)
        parts, mixer = self._parts(shared)
        # One by one: a scan over stacked layers compiles one of them only, but its steps took 1.2 to 1.3 times as long
        # on a CPU, more than a run of any length gains.
        if joined:
            self.decoder = [PrefixLayer(**parts) for _ in range(depths["decoder"])]
        else:
            self.encoder = [EncoderLayer(**parts, **mixer) for _ in range(depths["encoder"])]
            self.decoder = [DecoderLayer(**parts, **mixer) for _ in range(depths["decoder"])]
        if self.norm == "pre":  # which leaves a stack's output as it is
            norm = norms[parts["residual"]["normalization"]]
            self.decoder_norm = norm()
            if not joined:
                self.encoder_norm = norm()

    def _parts(self, shared):
        """Returns the fields of any layer, and those of its mixer where that may be chosen."""
        parts = {
            "attention": shared
            | {
                "num_heads": self.num_heads,
                "kv_heads": self.num_kv_heads or self.num_heads,
                "similarity": similarities.configured(self.similarity, self.component_fields),
                "projection_bias": self.projection_bias,
                "attention_dropout": self.attention_dropout,
                "kernel": self.attention_backend,
                "kernels": self.kernels,
                "dtype": self.dtype,
            },
            "feed_forward": {
                "d_model": self.d_model,
                "d_ff": self.d_ff,
                "relu_dropout": self.relu_dropout,
                "dtype": self.dtype,
            },
            "feed_forward_kind": feed_forwards.configured(self.feed_forward, self.component_fields),
            "residual": {
                "norm": self.norm,
                "normalization": norms.configured(self.normalization, self.component_fields),
                "residual": self.residual,
                "dropout": self.dropout if self.drop_residual else 0.0,
                "kernels": self.kernels,
            },
        }
        mixer = {"neighbourhood": self.neighbourhood, "kernel_width": self.kernel_width}
        return parts, {"mixer": mixer, "mixer_kind": mixers.configured(self.mixer, self.component_fields)}

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
        remat: bool = False,
    ) -> Float[Array, "b n d"]:
        """Returns the decoder's output before the projection to the vocabulary.

        Several sentences may share a row: segments number them from 1 (0: padding) and positions count from 0 in
        each; no sentence sees another. All four left out, a row is one sentence; some of them, that is a UserError.
        `source` multiplies the encoder's output: with 0 the decoder learns nothing of the source (of one stack, target
        does not see it, though absolute positions tell how long it is). With `remat` each layer is computed again in
        the backward pass, for which it keeps its input alone (Chen et al. 2016); XLA's compiler for CPUs computes
        again, but still keeps what it would have kept.
        """
        missing = [part is None for part in (src_segments, tgt_segments, src_positions, tgt_positions)]
        if all(missing):
            self._check(src.shape[1], tgt.shape[1])
            src_segments, tgt_segments = (src != 0).astype(jnp.int32), (tgt != 0).astype(jnp.int32)
            src_positions, tgt_positions = _count(src), _count(tgt)
        elif any(missing):  # without positions a sentence would begin with the last token of the one before
            raise UserError("of packed rows, segments and positions of both sides are given, or none of them")
        if self.architecture == "decoder_only":
            rows = JoinedRows.of(src_segments, tgt_segments)
            tokens = rows.join(src, _previous(tgt, tgt_positions))
            return self._hidden_joined(rows, tokens, rows.packed(source), train, remat)
        memory = self.encode(src, src_segments, src_positions, train=train, remat=remat)
        memory = memory if source is None else memory * source.astype(memory.dtype)
        x = self._embed(_previous(tgt, tgt_positions), tgt_positions, self.target_position, train)
        packed = PackedMask.of(tgt_segments, causal=True)
        cross = tgt_segments[:, :, None] == src_segments[:, None, :]

        def layer(m, i, x):
            context = PositionContext(m.target_position, i, tgt_positions)
            return m.decoder[i](x, memory, packed, cross, context, train)

        x = self._layers(layer, len(self.decoder), x, remat)
        return self._last_norm("decoder_norm", x, train)

    def encode(
        self,
        src: Int[Array, "b m"],
        segments: Int[Array, "b m"],
        position: Int[Array, "b m"],
        *,
        train: bool,
        remat: bool = False,
    ) -> Float[Array, "b m d"]:
        """Returns the encoder's output."""
        space = self.target_space[TARGET_SPACE] if self.target_spaces else None
        x = self._embed(src, position, self.source_position, train, space)
        packed = PackedMask.of(segments, causal=False)

        def layer(m, i, x):
            return m.encoder[i](x, packed, PositionContext(m.source_position, i, position), train)

        x = self._layers(layer, len(self.encoder), x, remat)
        return self._last_norm("encoder_norm", x, train)

    def _hidden_joined(self, rows, tokens, packed, train, remat):
        x = self._embed_joined(tokens, rows.position, rows.of_source, train)

        def layer(m, i, x):
            return m.decoder[i](x, packed, PositionContext(m.position, i, rows.position), train)

        x = rows.target(add_up(self._layers(layer, len(self.decoder), x, remat)))
        return self._last_norm("decoder_norm", x, train)

    def _last_norm(self, name, x, train):
        """Returns a stack's output, which pre-norm leaves as it is."""
        return apply_norm(getattr(self, name), x, train and self.kernels == "pallas") if self.norm == "pre" else x

    def _layers(self, layer, count, x, remat):
        """Returns what `layer` (of a model, a number and x) makes of x, one after the other."""
        for i in range(count):
            one = functools.partial(lambda i, m, x: layer(m, i, x), i)
            x = (nn.remat(one) if remat else one)(self, x)
        return x

    def precompute_kv(self, src: Int[Array, "b m"]) -> list[tuple[Array, Array]]:
        """Returns each decoder layer's keys and values of the encoded source, for `decode_step`."""
        self._check(src.shape[1], 0)
        if self.architecture == "decoder_only":
            return self._prefix_kv(align_right(src))
        encoded = self.encode(src, (src != 0).astype(jnp.int32), _count(src), train=False)
        return [layer.cross_attention.precompute_kv(encoded) for layer in self.decoder]

    def _prefix_kv(self, src):
        """Returns each layer's keys and values of sources whose padding comes first."""
        there = src != 0
        position = jnp.maximum(there.cumsum(1, dtype=jnp.int32) - 1, 0)
        x = self._embed_joined(src, position, jnp.ones_like(there), train=False)
        packed, found = PackedMask.of(there.astype(jnp.int32), causal=False), []
        for i, layer in enumerate(self.decoder):
            x, keys_values = layer.prefix(x, packed, PositionContext(self.position, i, position))
            found.append(keys_values)
        return found

    def decode_step(self, *inputs) -> Float[Array, "b beam vocab"]:
        """Returns the logits of output position `index` of each hypothesis; takes what `decode_hidden` does."""
        return self.logits(self.decode_hidden(*inputs))

    def decode_hidden(
        self,
        token: Int[Array, "b beam"],
        index: Int[Array, ""],
        ancestry: Int[Array, "b beam length"],
        cross_kv: list[tuple[Array, Array]],
        src_mask: Bool[Array, "b m"],
    ) -> Float[Array, "b beam d"]:
        """Returns what gives the logits of output position `index`, from each hypothesis' last token (0 at the start).

        A sentence has `beam` hypotheses; ancestry[b, j, t] is the beam index that j, or its beginning, had at position
        t <= index. `cross_kv` is what `precompute_kv` gave. Keys and values of all beam indices and positions (at most
        `length`) are in the collection "cache", whose leaves have b as an axis: apply with
        `mutable=["cache"]`.
        """
        if self.architecture == "decoder_only":
            return self._decode_hidden_joined(token, index, ancestry, cross_kv, src_mask)
        position = jnp.broadcast_to(index, token.shape)
        x = self._embed(token, position, self.target_position, train=False)
        for i, (layer, keys_values) in enumerate(zip(self.decoder, cross_kv, strict=True)):
            context = PositionContext(self.target_position, i, position)
            x = layer.decode_step(x, keys_values, src_mask, index, ancestry, context)
        return self.decoder_norm(x) if self.norm == "pre" else x

    def _decode_hidden_joined(self, token, index, ancestry, prefix_kv, src_mask):
        length, most = src_mask.sum(1, dtype=jnp.int32)[:, None], src_mask.shape[1]
        position = jnp.broadcast_to(length + index, token.shape)
        x = self._embed_joined(token, position, jnp.zeros(token.shape, bool), train=False)
        there = jnp.arange(most)[None] >= most - length
        for i, (layer, keys_values) in enumerate(zip(self.decoder, prefix_kv, strict=True)):
            context = PositionContext(self.position, i, position)
            x = layer.decode_step(x, (*keys_values, there), index, ancestry, context)
        return self.decoder_norm(x) if self.norm == "pre" else x

    def logits(self, hidden: Float[Array, "b n d"]) -> Float[Array, "b n vocab"]:
        """Projects onto the vocabulary; float32 whatever the model's dtype."""
        dtype = jnp.dtype(self.dtype)
        flat = hidden.reshape(-1, self.d_model).astype(dtype)
        matrix = self.projection if self.tying == "none" else self.embedding
        if self.has_variable(CAST, "projection"):
            matrix = self.get_variable(CAST, "projection")
        scores = jax.lax.dot_general(
            flat, matrix.astype(dtype), (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        return scores.reshape(*hidden.shape[:-1], self.vocab_size)

    def _embed(self, tokens, position, encoding, train, space=None):
        x = self._vectors(tokens, self.source_embedding if encoding is self.source_position else self.embedding)
        if space is not None:
            x = x + space[None, None, :]
        x = x + encoding(position)
        return self.drop(x.astype(jnp.dtype(self.dtype)), train=train)

    def _embed_joined(self, tokens, position, of_source, train):
        """Embeds tokens of source and target, for one stack."""
        of_source = of_source[..., None]
        x = self._vectors(tokens, self.embedding)
        if self.tying != "three":
            x = jnp.where(of_source, self._vectors(tokens, self.source_embedding), x)
        if self.target_spaces:
            x = x + jnp.where(of_source, self.target_space[TARGET_SPACE][None, None, :], 0.0)
        x = x + self.position(position)
        return self.drop(x.astype(jnp.dtype(self.dtype)), train=train)

    def _vectors(self, tokens, table):
        x = jnp.where((tokens != 0)[..., None], table[tokens], 0.0)
        return x * self.d_model**0.5 if self.scale_embedding else x

    def _check(self, source, target):
        length = positions_needed(self.architecture, source, target)
        check_length(self.positions, length, self.max_positions)


def _previous(tgt, position):
    """Each target's tokens one place on, behind the start symbol."""
    previous = jnp.pad(tgt[:, :-1], ((0, 0), (1, 0)))
    return jnp.where(position == 0, 0, previous)


def _count(tokens):
    return jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)


def cast_once(params: dict, dtype: str, biases: bool = False) -> dict[str, dict]:
    """Returns {"params", CAST: their matrices in the dtype of products}, the variables of a model that a loop applies.

    What a step of a loop casts, the compiler casts at every step. With `biases` those of the matrices are cast, too:
    where the library that multiplies adds them, each would take a kernel for it. The numbers are the same.
    """

    def matrices(tree):
        parts = {name: matrices(part) for name, part in tree.items() if isinstance(part, Mapping)}
        matrix = None if "kernel" in parts else tree.get("kernel")  # a part may be called so, too
        names = () if matrix is None else ("kernel", "bias") if biases and "bias" in tree else ("kernel",)
        own = {name: tree[name].astype(jnp.dtype(dtype)) for name in names}
        return {name: part for name, part in parts.items() if part} | own

    return {"params": params, CAST: matrices(params) | {"projection": projection(params).astype(jnp.dtype(dtype))}}


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

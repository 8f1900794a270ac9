"""One stack over source and target, which attends to a source as to a prefix: its rows, and its layers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Shaped

from tx.model.attention import MultiHeadAttention
from tx.model.feed_forward import feed_forwards
from tx.model.packed_mask import PackedMask
from tx.model.position_context import PositionContext
from tx.model.residual import PendingSum, Residual
from tx.registry import Configured

LAST = jnp.iinfo(jnp.int32).max  # a segment behind all others


class JoinedRows(NamedTuple):
    """Rows in which the target of each packed sentence follows its source; padding comes last.

    So the tokens of a sentence stand side by side, as everything in a layer takes for granted.

    Attributes:
      order: which column comes to each place, target's counted on from source's, (b, m + n).
      targets: the place of each of target's columns, (b, n).
      segments: of each place, (b, m + n).
      position: of each place in its sentence, counted on from source to target, 0 of padding, (b, m + n).
      of_source: whether a place is source's, (b, m + n).
    """

    order: Array
    targets: Array
    segments: Array
    position: Array
    of_source: Array

    @classmethod
    def of(cls, src_segments: Int[Array, "b m"], tgt_segments: Int[Array, "b n"]) -> "JoinedRows":
        """Returns the rows of sentences whose tokens have these segment numbers (0: padding)."""
        columns, length = jnp.concatenate([src_segments, tgt_segments], axis=1), src_segments.shape[1]
        # Stable: what is of one sentence stays in order, source first.
        order = jnp.argsort(jnp.where(columns == 0, LAST, columns), axis=1, stable=True)
        segments = jnp.take_along_axis(columns, order, axis=1)
        changes = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        place = jnp.broadcast_to(jnp.arange(order.shape[1]), order.shape)
        position = place - jax.lax.cummax(jnp.where(changes, place, 0), axis=1)
        position = jnp.where(segments == 0, 0, position)  # padding may be longer than a table of positions
        return cls(order, jnp.argsort(order, axis=1)[:, length:], segments, position, order < length)

    def join(self, source: Shaped[Array, "b m"], target: Shaped[Array, "b n"]) -> Shaped[Array, "b all"]:
        """Returns what source's and target's columns hold, in these rows."""
        return jnp.take_along_axis(jnp.concatenate([source, target], axis=1), self.order, axis=1)

    def target(self, x: Float[Array, "b all d"]) -> Float[Array, "b n d"]:
        """Returns target's columns of what these rows hold."""
        return jnp.take_along_axis(x, self.targets[..., None], axis=1)

    def packed(self, source: Float[Array, ""] | None) -> PackedMask:
        """Returns the mask of attention: all of a sentence's source, and of its target what is no later.

        Args:
          source: whether target sees source, 1 or 0; None for 1.
        """
        packed = PackedMask.with_prefix(self.segments, self.of_source)
        if source is None:
            return packed
        between = ~self.of_source[:, :, None] & self.of_source[:, None, :]
        return packed._replace(mask=packed.mask & (~between | (source > 0)))


class PrefixLayer(nn.Module):
    """Layer of a model of one stack (section 3.1 without cross-attention): self-attention, then feed-forward."""

    attention: dict
    feed_forward: dict
    feed_forward_kind: str | Configured
    residual: dict

    def setup(self):
        self.self_attention = MultiHeadAttention(**self.attention)
        kind = feed_forwards[self.feed_forward_kind]
        self.feed = kind and kind(**self.feed_forward, name="feed_forward")
        self.residuals = [Residual(**self.residual, name=f"residual_{i}") for i in range(2 if kind else 1)]

    def __call__(
        self, x: Float[Array, "b n d"] | PendingSum, packed: PackedMask, context: PositionContext, train: bool
    ) -> Float[Array, "b n d"] | PendingSum:
        x = self.residuals[0](x, lambda y: self.self_attention.mix(y, packed, context, train=train), train=train)
        return self._fed(x, train)

    def prefix(
        self, x: Float[Array, "b m d"], packed: PackedMask, context: PositionContext
    ) -> tuple[Float[Array, "b m d"], tuple[Array, Array]]:
        """Returns the layer's output for source alone, and its keys and values, for `decode_step`."""
        kept = []

        def mix(y):
            mixed, keys_values = self.self_attention.mix_prefix(y, packed, context)
            kept.append(keys_values)
            return mixed

        x = self.residuals[0](x, mix, train=False)
        return self._fed(x, train=False), kept[0]

    def decode_step(
        self,
        x: Float[Array, "b beam d"],
        prefix: tuple[Array, Array, Bool[Array, "b m"]],
        index: Int[Array, ""],
        ancestry: Int[Array, "b beam length"],
        context: PositionContext,
    ) -> Float[Array, "b beam d"]:
        """Computes one position of each hypothesis, see `MultiHeadAttention.decode_step`."""
        mix = self.self_attention.decode_step
        x = self.residuals[0](x, lambda y: mix(y, index, ancestry, context, prefix), train=False)
        return self._fed(x, train=False)

    def _fed(self, x, train):
        return self.residuals[1](x, lambda y: self.feed(y, train=train), train=train) if self.feed else x


def align_right(src: Int[Array, "b m"]) -> Int[Array, "b m"]:
    """Moves the padding of sources to their beginning, so that what follows each has one distance from its end."""
    length = src.shape[1]
    missing = (src == 0).sum(1, dtype=jnp.int32)
    return jnp.take_along_axis(src, (jnp.arange(length)[None] - missing[:, None]) % length, axis=1)

"""Sequence mixers, which combine the positions of a sentence (Table 1), by name: `@mixers.register(NAME)` adds one.

The paper's is self-attention; the others stand in its place, in encoder and decoder, and everything else stays.
A mixer is a module that is made with the arguments of `Mixer` and has its two methods.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from tx.errors import UserError
from tx.model.attention import MultiHeadAttention
from tx.model.layers import Dense
from tx.model.packed_mask import PackedMask
from tx.model.position_context import PositionContext
from tx.registry import Registry

mixers = Registry("model.mixer", ("attention", "neighbourhood", "kernel_width", "causal", "name"), reserved=("parent",))


@mixers.register("attention")
def self_attention(attention: Mapping, name: str | None = None, **_) -> MultiHeadAttention:
    """Returns self-attention: to every position of the sentence, in the decoder to every earlier one (section 3.2)."""
    return MultiHeadAttention(**attention, name=name)


@mixers.register("local")
def local_attention(attention: Mapping, neighbourhood: int, name: str | None = None, **_) -> MultiHeadAttention:
    """Returns self-attention restricted to a neighbourhood of r positions to each side (section 4)."""
    return MultiHeadAttention(**attention, neighbourhood=neighbourhood, name=name)


class Mixer(nn.Module):
    """Base class of mixers: maps (batch, n, d_model) to the same shape, sentence by sentence.

    Attributes:
      attention: the arguments of MultiHeadAttention.
      neighbourhood: how far a position looks to each side, r.
      kernel_width: taps of a convolution, k.
      causal: whether a position sees no later one.
    """

    attention: Mapping
    neighbourhood: int
    kernel_width: int
    causal: bool

    def mix(
        self, x: Float[Array, "b n d"], packed: PackedMask, context: PositionContext, *, train: bool
    ) -> Float[Array, "b n d"]:
        """Mixes whole rows of packed sentences."""
        raise NotImplementedError

    def decode_step(
        self,
        x: Float[Array, "b beam d"],
        index: Int[Array, ""],
        ancestry: Int[Array, "b beam length"],
        context: PositionContext,
    ) -> Float[Array, "b beam d"]:
        """Mixes position `index` of each hypothesis of a decoder; see `MultiHeadAttention.decode_step` for `ancestry`.

        What it needs of earlier positions it keeps in the collection "cache", with b as the leading axis.
        """
        raise NotImplementedError

    @property
    def width(self) -> int:
        """d_model."""
        return self.attention["d_model"]

    def dense(self, inputs: int, outputs: int, bias: bool = True) -> Dense:
        """Returns a projection in the model's dtype."""
        return Dense(inputs, outputs, bias=bias, dtype=self.attention["dtype"])


@mixers.register("recurrent")
class Recurrent(Mixer):
    """LSTM (Hochreiter and Schmidhuber 1997) of width d_model, which begins anew at each sentence.

    In the encoder, half of it reads forwards and half backwards.
    """

    def setup(self):
        if self.width % 2:  # `tx.config.validate` knows this project's own by name
            raise UserError(f"model.d_model must be even for {type(self).__name__}; got {self.width}")
        self.directions = [False] if self.causal else [False, True]
        self.size = self.width // len(self.directions)
        self.inputs = [self.dense(self.width, 4 * self.size) for _ in self.directions]
        self.states = [self.dense(self.size, 4 * self.size, bias=False) for _ in self.directions]

    def mix(
        self, x: Float[Array, "b n d"], packed: PackedMask, context: PositionContext, *, train: bool
    ) -> Float[Array, "b n d"]:
        """Scans over the positions, in either direction."""
        changes = packed.segments[:, 1:] != packed.segments[:, :-1]
        found = []
        for i, backwards in enumerate(self.directions):
            begins = jnp.pad(changes, ((0, 0), (0, 1) if backwards else (1, 0)), constant_values=True)
            inputs = self.inputs[i](x)

            def advance(module, state, now, i=i):
                inputs, begins = now
                state = tuple(jnp.where(begins[:, None], jnp.zeros((), x.dtype), part) for part in state)
                return module._advance(i, inputs, state)

            scan = nn.scan(
                advance,
                variable_broadcast="params",
                split_rngs={"params": False},
                in_axes=1,
                out_axes=1,
                reverse=backwards,
            )
            start = (jnp.zeros((x.shape[0], self.size), x.dtype),) * 2
            found.append(scan(self, start, (inputs, begins))[1])
        return jnp.concatenate(found, axis=-1)

    def decode_step(
        self,
        x: Float[Array, "b beam d"],
        index: Int[Array, ""],
        ancestry: Int[Array, "b beam length"],
        context: PositionContext,
    ) -> Float[Array, "b beam d"]:
        """Advances by one position, from the state of the hypothesis that each one continues."""
        before = jax.lax.dynamic_index_in_dim(ancestry, jnp.maximum(index - 1, 0), 2, keepdims=False)
        zeros = jnp.zeros(x.shape, x.dtype)
        state = tuple(
            jnp.where(
                index == 0, zeros, jnp.take_along_axis(self.get_variable("cache", name, zeros), before[..., None], 1)
            )
            for name in ("hidden", "cell")
        )
        state, output = self._advance(0, self.inputs[0](x), state)
        for name, part in zip(("hidden", "cell"), state, strict=True):
            self.put_variable("cache", name, part)
        return output

    def _advance(self, direction, inputs, state):
        """Returns ((hidden, cell), output) of one position; inputs are its gates' share of x."""
        hidden, cell = state
        entry, forget, candidate, exit_ = jnp.split(inputs + self.states[direction](hidden), 4, axis=-1)
        cell = nn.sigmoid(forget + 1.0) * cell + nn.sigmoid(entry) * jnp.tanh(candidate)
        hidden = nn.sigmoid(exit_) * jnp.tanh(cell)
        return (hidden, cell), hidden


@mixers.register("convolution")
class Convolution(Mixer):
    """Convolution over k neighbouring positions with a gated linear unit (ConvS2S: Gehring et al. 2017).

    The kernel is centred in the encoder; in the decoder it ends at its own position.
    """

    def dilation(self, context: PositionContext) -> int:
        """Returns the distance between two taps."""
        return 1

    def setup(self):
        self.kernel = self.dense(self.kernel_width * self.width, 2 * self.width)

    def mix(
        self, x: Float[Array, "b n d"], packed: PackedMask, context: PositionContext, *, train: bool
    ) -> Float[Array, "b n d"]:
        """Convolves by one matrix product for all taps; those that lie in another sentence are zero."""
        before = self.kernel_width - 1 if self.causal else (self.kernel_width - 1) // 2
        taps = []
        for tap in range(self.kernel_width):
            offset = (tap - before) * self.dilation(context)
            same = _shifted(packed.segments, offset, -1) == packed.segments
            taps.append(jnp.where(same[..., None], _shifted(x, offset, 0), jnp.zeros((), x.dtype)))
        return self._gated(taps)

    def decode_step(
        self,
        x: Float[Array, "b beam d"],
        index: Int[Array, ""],
        ancestry: Int[Array, "b beam length"],
        context: PositionContext,
    ) -> Float[Array, "b beam d"]:
        """Convolves position `index`; the taps of a hypothesis are the inputs of those that it continues."""
        zeros = jnp.zeros((x.shape[0], ancestry.shape[2], *x.shape[1:]), x.dtype)
        earlier = self.get_variable("cache", "inputs", zeros)
        kept = jax.lax.dynamic_update_slice(earlier, x[:, None], (0, index, 0, 0))
        self.put_variable("cache", "inputs", kept)
        taps, dilation = [x], min(self.dilation(context), kept.shape[1])  # k^l may be more than an int32 holds
        for tap in range(1, self.kernel_width):
            at = index - tap * dilation
            there = jax.lax.dynamic_index_in_dim(kept, jnp.maximum(at, 0), 1, keepdims=False)
            who = jax.lax.dynamic_index_in_dim(ancestry, jnp.maximum(at, 0), 2, keepdims=False)
            taps.append(jnp.where(at < 0, jnp.zeros((), x.dtype), jnp.take_along_axis(there, who[..., None], 1)))
        return self._gated(taps[::-1])

    def _gated(self, taps):
        value, gate = jnp.split(self.kernel(jnp.concatenate(taps, axis=-1)), 2, axis=-1)
        return value * nn.sigmoid(gate)


@mixers.register("dilated")
class Dilated(Convolution):
    """Dilated convolution, with k^l positions between two taps in layer l = 0, 1, ... (Kalchbrenner et al. 2017)."""

    def dilation(self, context: PositionContext) -> int:
        return self.kernel_width**context.layer


def _shifted(x, offset, fill):
    """Returns y[:, i] = x[:, i + offset], and `fill` beyond the ends."""
    if offset == 0:
        return x
    width = min(abs(offset), x.shape[1])
    ends = [(0, 0)] * x.ndim
    ends[1] = (0, width) if offset > 0 else (width, 0)
    kept = x[:, width:] if offset > 0 else x[:, : x.shape[1] - width]
    return jnp.pad(kept, ends, constant_values=fill)

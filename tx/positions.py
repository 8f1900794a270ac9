"""Position encodings added to the embeddings (section 3.5), by name: `@positions.register(NAME)` adds one."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from tx.components import Registry
from tx.errors import UserError

positions = Registry("model.positions")


class PositionEncoding(nn.Module):
    """Maps positions (batch, length), counted from 0 in each sentence, to vectors (batch, length, d_model).

    The attributes are the model's fields of the same names.
    """

    d_model: int
    max_positions: int
    sinusoid_layout: str
    sinusoid_endpoint: bool


@positions.register("sinusoidal")
class Sinusoidal(PositionEncoding):
    """sin and cos of position / 10000^(i / (d_model/2)), i = 0 ... d_model/2 - 1.

    sinusoid_layout: "interleaved" puts sine and cosine of a frequency side by side, as the formula reads;
    "concatenated" puts all sines first, as the June 2017 code does. One is a permutation of the other.
    sinusoid_endpoint: True divides by d_model/2 - 1 instead, so that the slowest frequency is 1/10000 exactly, as
    the code does.
    """

    def __call__(self, position: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        half = self.d_model // 2
        exponent = np.arange(half) / max(half - 1 if self.sinusoid_endpoint else half, 1)
        frequency = jnp.asarray(10000.0**-exponent, jnp.float32)
        angle = position[..., None].astype(jnp.float32) * frequency[None, None, :]
        pair = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-2)  # (b, n, 2, d/2)
        if self.sinusoid_layout == "interleaved":
            pair = pair.swapaxes(-1, -2)
        return pair.reshape(*position.shape, self.d_model)


@positions.register("learned")
class Learned(PositionEncoding):
    """A table of max_positions trained vectors (row E). A sentence longer than the table is refused."""

    @nn.compact
    def __call__(self, position: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        table = self.param("table", nn.initializers.normal(self.d_model**-0.5), (self.max_positions, self.d_model))
        # A position that only turns up at run time and lies outside gives NaN, never a neighbour's vector.
        return jnp.take(table, position, axis=0, mode="fill", fill_value=jnp.nan)


@positions.register("none")
class NoPosition(PositionEncoding):
    """No position information but what the causal mask gives."""

    def __call__(self, position: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        return jnp.zeros((*position.shape, self.d_model), jnp.float32)


def check_length(name: str, length: int, max_positions: int) -> None:
    """Raises UserError for an unknown encoding, and where `length` tokens are more than a learned table holds."""
    _ = positions[name]
    if name == "learned" and length > max_positions:
        raise UserError(
            f"a sentence of {length} tokens is longer than the learned position table of {max_positions} rows; "
            f"shorten it, or train with model.max_positions={length}"
        )

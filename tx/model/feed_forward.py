"""Position-wise feed-forward networks (section 3.3), by name: `@feed_forwards.register(NAME)` adds one."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from tx.model.layers import Dense, Dropout, Unbiased, dense_each
from tx.registry import Registry

feed_forwards = Registry(
    "model.feed_forward", ("d_model", "d_ff", "relu_dropout", "dtype", "name"), reserved=("parent",)
)
feed_forwards.register("none")(None)  # a layer without this sub-layer, and without the residual around it


class FeedForward(nn.Module):
    """Base class of these networks: maps each position alone, from d_model to d_ff and back.

    The attributes are the model's fields of these names.
    A component maps x to what `narrow_last` takes; `relu_dropout` drops of that, whatever the activation is.
    """

    d_model: int
    d_ff: int
    relu_dropout: Any
    dtype: str

    def wide(self, name: str) -> Dense:
        """Returns a projection from d_model to d_ff."""
        return Dense(self.d_model, self.d_ff, dtype=self.dtype, name=name)

    def narrow_last(self, hidden: Float[Array, "b n f"], train: bool) -> Float[Array, "b n d"] | Unbiased:
        """Applies dropout, and the projection from d_ff to d_model, whose bias may be left to the residual connection.

        Nothing else may come after it.
        """
        hidden = Dropout(self.relu_dropout)(hidden, train=train)
        return Dense(self.d_ff, self.d_model, dtype=self.dtype, name="outer").unbiased(hidden)


@feed_forwards.register("relu")
class Rectified(FeedForward):
    """ReLU network: max(0, x W1 + b1) W2 + b2 (equation 2)."""

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], *, train: bool) -> Float[Array, "b n d"] | Unbiased:
        return self.narrow_last(self.wide("inner").rectified(x), train)


@feed_forwards.register("gelu")
class Gelu(FeedForward):
    """GELU network: GELU(x W1 + b1) W2 + b2, with the exact GELU (Hendrycks and Gimpel 2016)."""

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], *, train: bool) -> Float[Array, "b n d"] | Unbiased:
        return self.narrow_last(nn.gelu(self.wide("inner")(x), approximate=False), train)


@feed_forwards.register("swiglu")
class SwiGLU(FeedForward):
    """SwiGLU network: (Swish(x W + b) * (x V + c)) W2 + b2 (Shazeer 2020, with biases).

    It has three matrices: as many parameters as the others with 2/3 of their d_ff.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], *, train: bool) -> Float[Array, "b n d"] | Unbiased:
        gate, inner = dense_each((self.wide("gate"), self.wide("inner")), x)
        return self.narrow_last(nn.silu(gate) * inner, train)

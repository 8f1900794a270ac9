"""Where the queries and keys of a layer stand, and what tells it (section 3.5)."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int

from tx.model.positions import PositionEncoding


class PositionContext(NamedTuple):
    """Positions of the queries and keys of one layer's self-attention, and the encoding that tells them.

    Attributes:
      encoding: of the layer's stack.
      layer: its number in the stack, from 0.
      position: of each token in its sentence, (b, n).
    """

    encoding: PositionEncoding
    layer: int
    position: Array

    @property
    def has_value_bias(self) -> bool:
        """Whether `value_bias` ever returns anything."""
        return self.encoding.has_value_bias()

    @property
    def has_logit_bias(self) -> bool:
        """Whether `logit_bias` ever returns anything."""
        return self.encoding.has_logit_bias()

    def rotate(self, x: Float[Array, "b n heads k"]) -> Float[Array, "b n heads k"]:
        """Returns queries or keys, rotated by their positions."""
        return self.encoding.rotate(x, self.position)

    def logit_bias(self, query: Float[Array, "b h n k"], offset: Int[Array, "n m"]) -> Float[Array, "#b #h n m"] | None:
        """Returns what the encoding adds to the logits, from queries as the similarity has scaled them."""
        return self.encoding.logit_bias(self.layer, query, offset)

    def value_bias(self, weights: Float[Array, "b h n m"], offset: Int[Array, "n m"]) -> Float[Array, "b h n v"] | None:
        """Returns what the encoding adds to the weighted values, from the weights of attention."""
        return self.encoding.value_bias(self.layer, weights, offset)

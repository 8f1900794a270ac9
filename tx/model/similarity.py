"""Compatibility functions of query and key (section 3.2.1), by name: `@similarities.register(NAME)` adds one."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from tx.registry import Registry

similarities = Registry("model.similarity", ("num_heads", "d_k"), reserved=("parent", "name"))


class Similarity(nn.Module):
    """Base class of these functions: logits, head by head, as the product of mapped queries and mapped keys.

    A component whose logits are no such product overrides `logits`. Keys are kept as `key` makes them while decoding:
    before they are repeated for the heads that share them, so that `key` meets as many heads as model.num_kv_heads
    says, where that is not 0, and a parameter that multiplies keys may be one of all heads, not of each.

    Attributes:
      num_heads: h, of queries and logits.
      d_k: width of queries and keys.
    """

    num_heads: int
    d_k: int

    def query(self, x: Float[Array, "*batch h k"]) -> Float[Array, "*batch h k"]:
        """Maps queries."""
        return x

    def key(self, x: Float[Array, "*batch kv k"]) -> Float[Array, "*batch kv k"]:
        """Maps keys, of as many heads as there are."""
        return x

    def logits(self, query: Float[Array, "b h n k"], key: Float[Array, "b h m k"]) -> Float[Array, "b h n m"]:
        """Returns the float32 logits of mapped queries and keys, the latter repeated for the heads that share them."""
        return jnp.einsum("bhnk,bhmk->bhnm", query, key, preferred_element_type=jnp.float32)


@similarities.register("scaled")
class Scaled(Similarity):
    """Scaled dot product q.k / sqrt(d_k) (equation 1)."""

    def query(self, x: Float[Array, "*batch h k"]) -> Float[Array, "*batch h k"]:
        return x * jnp.asarray(self.d_k**-0.5, x.dtype)


@similarities.register("unscaled")
class Unscaled(Similarity):
    """Dot product q.k without the scaling (section 3.2.1)."""


@similarities.register("cosine")
class Cosine(Similarity):
    """Cosine of q and k times a learned number a head, sqrt(d_k) at first (QK norm: Henry et al. 2020).

    With entries of variance 1 the logits so begin with the variance of the scaled product's.
    """

    def setup(self):
        start = nn.initializers.constant(self.d_k**0.5)
        self.temperature = self.param("temperature", start, (self.num_heads,))

    def query(self, x: Float[Array, "*batch h k"]) -> Float[Array, "*batch h k"]:
        return _unit(x, self.temperature.reshape(*(1,) * (x.ndim - 2), self.num_heads, 1))

    def key(self, x: Float[Array, "*batch kv k"]) -> Float[Array, "*batch kv k"]:
        return _unit(x, jnp.ones((1,) * x.ndim, jnp.float32))


def _unit(x, length):
    y = x.astype(jnp.float32)
    return (y * jax.lax.rsqrt(jnp.square(y).sum(-1, keepdims=True) + 1e-12) * length).astype(x.dtype)


@similarities.register("additive")
class Additive(Similarity):
    """Additive attention v . tanh(q + k), with a learned v a head (Bahdanau et al. 2015; q and k are projections)."""

    def setup(self):
        self.v = self.param(
            "v", nn.initializers.variance_scaling(1.0, "fan_out", "uniform"), (self.num_heads, self.d_k)
        )

    def logits(self, query: Float[Array, "b h n k"], key: Float[Array, "b h m k"]) -> Float[Array, "b h n m"]:
        """Sums a coordinate at a time: all at once would take d_k times the memory."""

        @jax.checkpoint
        def add(total, coordinate):
            q, k, v = coordinate
            sums = jnp.tanh((q[..., :, None] + k[..., None, :]).astype(jnp.float32))
            return total + v[None, :, None, None] * sums, None

        coordinates = (jnp.moveaxis(query, -1, 0), jnp.moveaxis(key, -1, 0), self.v.T)
        start = jnp.zeros((*query.shape[:3], key.shape[2]), jnp.float32)
        return jax.lax.scan(add, start, coordinates)[0]

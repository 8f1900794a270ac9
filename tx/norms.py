"""What normalises a vector over its last axis, by name: `@norms.register(NAME)` adds one."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from tx.components import Registry

norms = Registry("model.normalization")
EPSILON = 1e-6  # as in the June 2017 code


@norms.register("layer")
class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016), in float32, with scale and bias."""

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        y = x.astype(jnp.float32)
        y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + EPSILON)
        lead = (1,) * (x.ndim - 1)
        return (y * scale.reshape(*lead, width) + bias.reshape(*lead, width)).astype(x.dtype)


@norms.register("rms")
class RMSNorm(nn.Module):
    """Division by the root mean square (Zhang and Sennrich 2019), in float32, with scale; no mean is taken off."""

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + EPSILON)
        return (y * scale.reshape(*(1,) * (x.ndim - 1), width)).astype(x.dtype)

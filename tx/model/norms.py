"""Normalisations of a vector over its last axis, by name: `@norms.register(NAME)` adds one."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from tx.registry import Registry

norms = Registry("model.normalization", ("name",), reserved=("parent",))
EPSILON = 1e-6  # as in the June 2017 code


@norms.register("layer")
class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016), in float32, with scale and bias."""

    @nn.compact
    def scale_and_bias(self, width: int) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """Returns the parameters of a norm of this width."""
        scale = self.param("scale", nn.initializers.ones, (width,))
        return scale, self.param("bias", nn.initializers.zeros, (width,))

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        scale, bias = self.scale_and_bias(x.shape[-1])
        return (_normalise if x.dtype == jnp.float32 else _normalise_half)(x, scale, bias)


def _normalise(x, scale, bias):
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + EPSILON)
    lead = (1,) * (x.ndim - 1)
    return (y * scale.reshape(*lead, -1) + bias.reshape(*lead, -1)).astype(x.dtype)


@jax.custom_vjp
def _normalise_half(x, scale, bias):
    """Normalises an x of half the width, with a gradient that reads x rather than float32 arrays of its size."""
    return _normalise(x, scale, bias)


def _normalise_half_backward(residuals, cotangent):
    x, scale = residuals
    y = x.astype(jnp.float32)
    mean = y.mean(-1, keepdims=True)
    spread = jax.lax.rsqrt(jnp.square(y - mean).mean(-1, keepdims=True) + EPSILON)
    # Else the compiler computes them inside the sums over all rows, and writes those out row by row.
    mean, spread = jax.lax.optimization_barrier((mean, spread))
    y, d_y, rows = (y - mean) * spread, cotangent.astype(jnp.float32), tuple(range(x.ndim - 1))
    d_scale, d_bias = (d_y * y).sum(rows), d_y.sum(rows)
    d_y = d_y * scale.reshape(*(1,) * len(rows), -1)
    d_x = spread * (d_y - d_y.mean(-1, keepdims=True) - y * (d_y * y).mean(-1, keepdims=True))
    return d_x.astype(x.dtype), d_scale, d_bias


_normalise_half.defvjp(lambda x, scale, bias: (_normalise(x, scale, bias), (x, scale)), _normalise_half_backward)


@norms.register("rms")
class RMSNorm(nn.Module):
    """RMS normalisation (Zhang and Sennrich 2019), in float32, with scale: the mean is not subtracted."""

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + EPSILON)
        return (y * scale.reshape(*(1,) * (x.ndim - 1), width)).astype(x.dtype)

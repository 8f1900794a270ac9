"""Building blocks of every sub-layer: projection, dropout, and the residual connection around it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, UInt32

from tx.kernels.bias import add_bias_and_rectify, add_biases
from tx.kernels.norm import normalise
from tx.kernels.residual_norm import add_and_normalise
from tx.model.kernel_params import parts_of
from tx.model.norms import EPSILON, LayerNorm, norms
from tx.model.prng import mix_bits, random_bits
from tx.registry import Configured
from tx.runtime import backend

# Uniform with variance 1 / fan_in: tensor2tensor's "uniform unit scaling" at gain 1.
unit_scaling = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
CAST = "cast"  # the collection of matrices in the dtype of products, where `tx.model.transformer.cast_once` made it


class Dense(nn.Module):
    """Affine projection x W + b over the last axis.

    Args:
      inputs: width of x.
      outputs: width of the result.
      bias: whether there is a b.
      dtype: of the arithmetic; parameters are float32.
    """

    inputs: int
    outputs: int
    bias: bool = True
    dtype: str = "float32"

    def setup(self):
        if self.has_variable(CAST, "kernel"):
            self.kernel = self.get_variable(CAST, "kernel")
        else:
            self.kernel = self.param("kernel", unit_scaling, (self.inputs, self.outputs))
        self.offset = self.param("bias", nn.initializers.zeros, (self.outputs,)) if self.bias else None
        self.parts = parts_of(self, "bias")

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        return dense((self,), x)

    def rectified(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Returns max(0, x W + b)."""
        if self.parts is None:
            return nn.relu(self(x))
        return add_bias_and_rectify(*self.apart(x), self.parts).reshape(*x.shape[:-1], -1)

    def apart(
        self, x: Float[Array, "*batch inputs"]
    ) -> tuple[Float[Array, "tokens outputs"], Float[Array, " outputs"]]:
        """Returns (x W of rows, b), for kernels that put them together."""
        dtype = jnp.dtype(self.dtype)
        rows = x.reshape(-1, x.shape[-1]).astype(dtype)
        return _product(rows, self.kernel.astype(dtype)), self.offset.astype(dtype)


def dense(parts: tuple[Dense, ...], x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
    """Applies several Dense layers of one input as one matrix product; their outputs lie side by side.

    The product is two-dimensional: the backward pass of a three-dimensional one is several times slower on a CPU.
    """
    if len(parts) == 1 and parts[0].parts is not None:
        return dense_each(parts, x)[0]
    kernel = jnp.concatenate([part.kernel for part in parts], axis=1) if len(parts) > 1 else parts[0].kernel
    dtype = jnp.dtype(parts[0].dtype)
    y = _product(x.reshape(-1, x.shape[-1]).astype(dtype), kernel.astype(dtype))
    if parts[0].bias:
        y += jnp.concatenate([part.offset for part in parts]).astype(dtype)[None, :]
    return y.reshape(*x.shape[:-1], -1)


def dense_each(parts: tuple[Dense, ...], x: Float[Array, "*batch inputs"]) -> list[Float[Array, "*batch outputs"]]:
    """Applies several Dense layers to one input, and returns the output of each.

    As one matrix product, whose result is cut, or one by one (`tx.runtime.backend.joins_projections`).
    """
    if all(part.parts is not None for part in parts):
        rows = x.reshape(
            -1, x.shape[-1]
        )  # once: what comes back to it is then added up before it takes its shape again
        ys, biases = zip(*(part.apart(rows) for part in parts), strict=True)
        ys = add_biases(ys, biases, tuple(part.parts for part in parts))
        return [y.reshape(*x.shape[:-1], -1) for y in ys]
    if not backend.joins_projections():
        return [dense((part,), x) for part in parts]
    ends = np.cumsum([part.outputs for part in parts])[:-1]
    return jnp.split(dense(parts, x), ends.tolist(), axis=-1)


@jax.custom_vjp
def _product(x, w):
    """x w, for x (tokens, inputs)."""
    return x @ w


def _product_backward(residuals, cotangent):
    x, w = residuals
    if not backend.transposes_kernel_gradient(*w.shape):
        return cotangent @ w.T, x.T @ cotangent
    swapped = jax.lax.dot_general(cotangent, x, (((0,), (0,)), ((), ())))
    return cotangent @ w.T, jax.lax.optimization_barrier(swapped).T  # else the compiler undoes it


_product.defvjp(lambda x, w: (x @ w, (x, w)), _product_backward)


class Dropout(nn.Module):
    """Dropout (section 5.4): while training zeroes each element with probability `rate`; the others are scaled up.

    Args:
      rate: P_drop, met to 2^-24; a traced one is taken for more than 0.
    """

    rate: Any

    @property
    def active(self) -> bool:
        """Whether anything is dropped while training."""
        return not (isinstance(self.rate, float) and self.rate == 0.0)

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"], *, train: bool) -> Float[Array, "*shape"]:
        if not (train and self.active):
            return x
        kept = self._kept()
        keep = random_bits(self.make_rng("dropout"), x.shape) >> 8 < kept.astype(jnp.uint32)
        return jnp.where(keep, x * (2**24 / kept).astype(x.dtype), jnp.zeros((), x.dtype))

    def _kept(self):
        """Of 2^24 elements."""
        return jnp.round((1.0 - jnp.asarray(self.rate, jnp.float32)) * 2**24)

    def draw(self) -> tuple[UInt32[Array, " 3"], Float[Array, " 1"]]:
        """Returns what a kernel needs to drop while training what a call would drop.

        The two words of the key and how many of 2^24 elements are kept; and what these are multiplied by.
        """
        if not self.active:
            return jnp.asarray([0, 0, 2**24], jnp.uint32), jnp.ones((1,), jnp.float32)
        kept = self._kept()
        words = jax.random.key_data(self.make_rng("dropout"))
        return jnp.stack([words[0], words[1], kept.astype(jnp.uint32)]), (2**24 / kept)[None]


class Residual(nn.Module):
    """Residual connection and norm around a sub-layer (section 3.1), with the dropout of section 5.4.

    norm: "post" for Norm(x + Dropout(f(x))), the paper's; "pre" for x + Dropout(f(Norm(x))); "none" for
    x + Dropout(f(x)). Without `residual` there is no x in the sum. With `kernels` "pallas" post-norm's LayerNorm is one
    kernel with the sum and the dropout before it while training (tx/kernels/residual_norm.py), pre-norm's one by itself
    (tx/kernels/norm.py).
    """

    norm: str
    normalization: str | Configured
    residual: bool
    dropout: Any
    kernels: str = "xla"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], sublayer: Callable[[Array], Array], *, train: bool
    ) -> Float[Array, "b n d"]:
        norm = (lambda y: y) if self.norm == "none" else norms[self.normalization](name="norm")
        if train and self.kernels == "pallas" and self.norm == "post" and self.residual and isinstance(norm, LayerNorm):
            rows = (part.reshape(-1, x.shape[-1]) for part in (x, sublayer(x)))
            drawn = Dropout(self.dropout).draw()
            return add_and_normalise(*rows, *_of_norm(norm, x), *drawn, mix_bits, EPSILON).reshape(x.shape)
        normalised = apply_norm(norm, x, train and self.kernels == "pallas") if self.norm == "pre" else x
        y = Dropout(self.dropout)(sublayer(normalised), train=train)
        y = x + y if self.residual else y
        return norm(y) if self.norm == "post" else y


def apply_norm(norm: nn.Module, x: Float[Array, "b n d"], by_kernel: bool) -> Float[Array, "b n d"]:
    """Returns what a norm makes of x, by a kernel where that is asked for and there is one (tx/kernels/norm.py)."""
    if not (by_kernel and isinstance(norm, LayerNorm)) or parts_of(norm, "scale") is None:
        return norm(x)
    return normalise(x.reshape(-1, x.shape[-1]), *_of_norm(norm, x), EPSILON).reshape(x.shape)


def _of_norm(norm, x):
    """Returns a norm's scale and bias, and the parts of their gradients, or None."""
    parts = tuple(parts_of(norm, name) for name in ("scale", "bias"))
    return *norm.scale_and_bias(x.shape[-1]), None if None in parts else parts

"""Building blocks of every sub-layer: projection and dropout."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from tx.kernels.bias import add_bias_and_rectify, add_biases
from tx.model.kernel_params import parts_of
from tx.model.prng import bits_of, is_key, mix_bits, random_bits
from tx.runtime import backend

# Uniform with variance 1 / fan_in: tensor2tensor's "uniform unit scaling" at gain 1.
unit_scaling = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
CAST = "cast"  # the collection of matrices in the dtype of products, where `tx.model.transformer.cast_once` made it


class Unbiased(NamedTuple):
    """Projection whose bias is still to be added, by the kernel that adds it to the residual stream.

    Attributes:
      y: x W of rows, (tokens, d).
      bias: in the same dtype, (d,).
      parts: of its gradient (`tx.kernels.bias`).
    """

    y: Array
    bias: Array
    parts: Array

    def biased(self) -> Float[Array, "tokens d"]:
        """Returns the projection."""
        return add_biases((self.y,), (self.bias,), (self.parts,))[0]


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
        if self.has_variable(CAST, "bias"):
            self.offset = self.get_variable(CAST, "bias")
        else:
            self.offset = self.param("bias", nn.initializers.zeros, (self.outputs,)) if self.bias else None
        self.parts = parts_of(self, "bias")

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        return dense((self,), x)

    def rectified(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Returns max(0, x W + b)."""
        if self.parts is None:
            return nn.relu(self(x))
        return add_bias_and_rectify(*self.apart(x), self.parts).reshape(*x.shape[:-1], -1)

    def unbiased(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"] | Unbiased:
        """Returns x W + b for `Residual`, which adds b by itself where it has a kernel that does."""
        return self(x) if self.parts is None else Unbiased(*self.apart(x), self.parts)

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
        dtype = jnp.dtype(parts[0].dtype)
        ys = _products(rows.astype(dtype), tuple(part.kernel.astype(dtype) for part in parts))
        biases = tuple(part.offset.astype(dtype) for part in parts)
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


@jax.custom_vjp
def _products(x, ws):
    """x w for each w, whose gradients by x are added up by the products themselves.

    XLA has the library add to a product what stands right of it, and gives up on a sum that stands left.
    """
    return tuple(x @ w for w in ws)


def _products_backward(residuals, cotangents):
    x, ws = residuals
    d_x = cotangents[0] @ ws[0].T
    for cotangent, w in zip(cotangents[1:], ws[1:], strict=True):
        d_x = cotangent @ w.T + d_x
    return d_x, tuple(x.T @ cotangent for cotangent in cotangents)


_products.defvjp(lambda x, ws: (_products(x, ws), (x, ws)), _products_backward)


@flax.struct.dataclass
class Draw:
    """What a kernel needs to drop; its arrays may be what stands for them.

    Attributes:
      words: the two words of a key, and how many of 2^24 elements are kept, uint32 (3,).
      upscale: what these are multiplied by, float32 (1,).
      bits: (index, low, high) -> 32 random bits of the element with that index.
    """

    words: Any
    upscale: Any
    bits: Callable = flax.struct.field(pytree_node=False)


def scaled(x: Float[Array, "*shape"], scale: Float[Array, ""]) -> Float[Array, "*shape"]:
    """Returns x times a number of float32, which bfloat16 would round: no mean would be kept."""
    return (x.astype(jnp.float32) * scale).astype(x.dtype)


DROPOUTS = ("dropout", "attention_dropout", "relu_dropout")  # fields of the model that are rates of a Dropout


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
        return jnp.where(keep, scaled(x, 2**24 / kept), jnp.zeros((), x.dtype))

    def _kept(self):
        """Of 2^24 elements."""
        return jnp.round((1.0 - jnp.asarray(self.rate, jnp.float32)) * 2**24)

    def draw(self) -> Draw:
        """Returns what a kernel needs to drop while training, with a key of `tx.model.prng` for all modules.

        Its masks are others than those of a call, which folds the module's place in the model into the key; the kernel
        does that by itself, rather than wait for a kernel for two numbers. With a key of another generator they are the
        same.
        """
        if not self.active:
            return Draw(jnp.asarray([0, 0, 2**24], jnp.uint32), jnp.ones((1,), jnp.float32), mix_bits)
        kept, lazy, bits = self._kept(), self.scope.rngs["dropout"], mix_bits
        if is_key(lazy.rng):
            words, bits = jax.random.key_data(lazy.rng), bits_of(zlib.crc32("/".join(map(str, lazy.suffix)).encode()))
        else:
            words = jax.random.key_data(self.make_rng("dropout"))
        return Draw(jnp.stack([words[0], words[1], kept.astype(jnp.uint32)]), (2**24 / kept)[None], bits)

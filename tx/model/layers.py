"""Building blocks of every sub-layer: projection, dropout, and the residual connection around it."""

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
from tx.kernels.norm import normalise
from tx.kernels.residual_norm import add_and_normalise, add_then_normalise
from tx.model.kernel_params import parts_of
from tx.model.norms import EPSILON, LayerNorm, norms
from tx.model.prng import bits_of, is_key, mix_bits, random_bits
from tx.registry import Configured
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


class PendingSum(NamedTuple):
    """Residual stream x + Dropout(y + offset), of rows, that the kernel of the next norm is to add up (pre-norm).

    Attributes:
      x: as it was, (b, n, d).
      y, offset, parts: what a sub-layer gave, as `Unbiased`; without a bias that is apart, offset and parts are None.
      draw: of the dropout.
    """

    x: Array
    y: Array
    offset: Array | None
    parts: Array | None
    draw: Draw

    @classmethod
    def of(cls, x: Float[Array, "b n d"], y: Float[Array, "b n d"] | Unbiased, dropout: Dropout) -> "PendingSum":
        """Returns that of what a sub-layer gave, to be dropped by `dropout`."""
        y = y if isinstance(y, Unbiased) else (y.reshape(-1, x.shape[-1]), None, None)
        return cls(x, *y, dropout.draw())

    def added(self) -> Float[Array, "b n d"]:
        """Returns the sum, without a kernel."""
        y = self.y if self.offset is None else Unbiased(self.y, self.offset, self.parts).biased()
        index = jnp.arange(y.size, dtype=jnp.uint32).reshape(y.shape)
        low, high, kept = self.draw.words
        keep = self.draw.bits(index, low, high) >> 8 < kept
        dropped = jnp.where(keep, y * self.draw.upscale[0].astype(y.dtype), jnp.zeros((), y.dtype))
        return self.x + dropped.reshape(self.x.shape)

    def by_kernel(self, function: Callable, norm: LayerNorm) -> Any:
        """Returns what a kernel of tx/kernels/residual_norm.py makes of it and a norm, each of the sum's shape."""
        rows, width = self.x.reshape(-1, self.x.shape[-1]), self.x.shape[-1]
        scale, bias, parts = _of_norm(norm, self.x)
        drawn = (self.draw.words, self.draw.upscale, self.draw.bits)
        offset, of_offset = self.offset, self.parts
        if offset is None:
            offset, of_offset = jnp.zeros((width,), self.y.dtype), None if parts is None else jnp.zeros_like(parts[0])
        parts = None if parts is None else (of_offset, *parts)
        made = function(rows, self.y, offset, scale, bias, parts, *drawn, EPSILON)
        return jax.tree.map(lambda each: each.reshape(self.x.shape), made)


class Residual(nn.Module):
    """Residual connection and norm around a sub-layer (section 3.1), with the dropout of section 5.4.

    norm: "post" for Norm(x + Dropout(f(x))), the paper's; "pre" for x + Dropout(f(Norm(x))); "none" for
    x + Dropout(f(x)). Without `residual` there is no x in the sum. With `kernels` "pallas" post-norm's LayerNorm is one
    kernel with the sum and the dropout before it while training (tx/kernels/residual_norm.py), and so is pre-norm's
    with those of the sub-layer before: its sum is pending until then.
    """

    norm: str
    normalization: str | Configured
    residual: bool
    dropout: Any
    kernels: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"] | PendingSum,
        sublayer: Callable[[Array], Array | Unbiased],
        *,
        train: bool,
    ) -> Float[Array, "b n d"] | PendingSum:
        norm = (lambda y: y) if self.norm == "none" else norms[self.normalization](name="norm")
        fuses = train and self.kernels == "pallas" and self.residual
        if fuses and self.norm == "post" and isinstance(norm, LayerNorm):
            return PendingSum.of(x, sublayer(x), Dropout(self.dropout)).by_kernel(add_and_normalise, norm)
        x, normalised = add_and_norm(norm, x, train and self.kernels == "pallas") if self.norm == "pre" else (x, x)
        y = sublayer(normalised)
        if fuses and self.norm == "pre":
            return PendingSum.of(x, y, Dropout(self.dropout))
        y = y.biased().reshape(x.shape) if isinstance(y, Unbiased) else y
        y = Dropout(self.dropout)(y, train=train)
        y = x + y if self.residual else y
        return norm(y) if self.norm == "post" else y


def add_and_norm(
    norm: nn.Module, x: Float[Array, "b n d"] | PendingSum, by_kernel: bool
) -> tuple[Float[Array, "b n d"], Float[Array, "b n d"]]:
    """Returns a residual stream, added up, and what a norm makes of it: by one kernel where that can be."""
    if isinstance(x, PendingSum):
        if _has_kernel(norm):
            return x.by_kernel(add_then_normalise, norm)
        x = add_up(x)
    return x, apply_norm(norm, x, by_kernel)


def add_up(x: Float[Array, "b n d"] | PendingSum) -> Float[Array, "b n d"]:
    """Returns a residual stream, added up."""
    return x.added() if isinstance(x, PendingSum) else x


def apply_norm(norm: nn.Module, x: Float[Array, "b n d"] | PendingSum, by_kernel: bool) -> Float[Array, "b n d"]:
    """Returns what a norm makes of x, by a kernel where that is asked for and there is one (tx/kernels/norm.py)."""
    has_kernel = _has_kernel(norm)
    if isinstance(x, PendingSum) and has_kernel:
        return x.by_kernel(add_and_normalise, norm)
    x = add_up(x)
    if not (by_kernel and has_kernel):
        return norm(x)
    return normalise(x.reshape(-1, x.shape[-1]), *_of_norm(norm, x), EPSILON).reshape(x.shape)


def _has_kernel(norm):
    return isinstance(norm, LayerNorm) and parts_of(norm, "scale") is not None


def _of_norm(norm, x):
    """Returns a norm's scale and bias, and the parts of their gradients, or None."""
    parts = tuple(parts_of(norm, name) for name in ("scale", "bias"))
    return *norm.scale_and_bias(x.shape[-1]), None if None in parts else parts

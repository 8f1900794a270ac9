"""Residual connection around every sub-layer, with its dropout and norm (section 5.4)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from tx.kernels.norm import normalise
from tx.kernels.residual_norm import add_and_normalise, add_then_normalise
from tx.model.kernel_params import parts_of
from tx.model.layers import Draw, Dropout, Unbiased, scaled
from tx.model.norms import EPSILON, LayerNorm, norms
from tx.registry import Configured


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
        dropped = jnp.where(keep, scaled(y, self.draw.upscale[0]), jnp.zeros((), y.dtype))
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
        if fuses and self.norm == "post" and _is_layer_norm(norm):
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
    return _is_layer_norm(norm) and parts_of(norm, "scale") is not None


def _is_layer_norm(norm):
    return type(norm) is LayerNorm  # one that is made of it is another function


def _of_norm(norm, x):
    """Returns a norm's scale and bias, and the parts of their gradients, or None."""
    parts = tuple(parts_of(norm, name) for name in ("scale", "bias"))
    return *norm.scale_and_bias(x.shape[-1]), None if None in parts else parts

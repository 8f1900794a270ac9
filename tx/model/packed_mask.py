"""Mask that keeps the sentences of a packed row apart, and later tokens unseen where it is causal (section 3.2.3)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


class PackedMask(NamedTuple):
    """Mask of packed sentences: which tokens of a row are of one sentence.

    Attributes:
      segments: the number of each token's sentence in its row, (b, n); its tokens stand side by side.
      causal: whether no token may see a later one.
      mask: of each query and key, whether they are of one sentence, and the key no later if it must not, (b, n, n).
    """

    segments: Array
    causal: bool
    mask: Array

    @classmethod
    def of(cls, segments: Int[Array, "b n"], causal: bool) -> "PackedMask":
        """Returns the mask of rows whose tokens have these segment numbers."""
        same = segments[:, :, None] == segments[:, None, :]
        order = jnp.arange(segments.shape[1])
        return cls(segments, causal, same & (order[:, None] >= order[None, :])[None] if causal else same)

    @classmethod
    def with_prefix(cls, segments: Int[Array, "b n"], prefix: Bool[Array, "b n"]) -> "PackedMask":
        """Returns that of sentences that begin with a prefix: every token sees all of it, and what is earlier."""
        packed = cls.of(segments, causal=True)
        same = segments[:, :, None] == segments[:, None, :]
        return cls(segments, False, packed.mask | (same & prefix[:, None, :]))

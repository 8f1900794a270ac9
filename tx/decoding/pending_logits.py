"""Logits of the next token that are not computed yet: of the best of them a kernel has no need of all at once."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int32

from tx.kernels import projection
from tx.runtime import backend


class PendingLogits(NamedTuple):
    """Logits hidden matrix^T of the next token, one row for each hypothesis."""

    hidden: Float[Array, "batch beam d"]
    matrix: Float[Array, "columns d"]  # of the output projection

    def top_k(
        self, log_probs: Float32[Array, "batch beam"], k: int, vocab_size: int
    ) -> tuple[Float32[Array, "batch k"], Int32[Array, "batch k"], Int32[Array, "batch k"]]:
        """Returns what `tx.decoding.top_k.top_k` does for the first `vocab_size` columns.

        What log_probs has as -inf has beam indices and tokens that mean nothing; and of a hypothesis' unequal logits
        whose log-probabilities are rounded to the same the greater is the better.
        """
        batch, beam, depth = self.hidden.shape
        hidden = self.hidden.reshape(-1, depth).astype(self.matrix.dtype)
        made = projection.best_columns(hidden, self.matrix[:vocab_size], k)
        logits, columns, normaliser = (x.reshape(batch, beam, -1) for x in made)
        scores = log_probs[:, :, None] + (logits - normaliser)
        values, chosen = lax.top_k(scores.reshape(batch, -1), k)
        tokens = jnp.take_along_axis(columns.reshape(batch, -1), chosen, axis=1, mode="promise_in_bounds")
        return values, chosen // scores.shape[2], tokens


def leaves_logits_pending(kernels: str, k: int) -> bool:
    """Returns whether beam search with this `model.kernels` has a kernel for the k best continuations of a sentence."""
    return backend.decodes_by_kernel(kernels) and k <= projection.MOST

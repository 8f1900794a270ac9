"""The k likeliest continuations of a sentence's hypotheses, where each has logits as long as a vocabulary."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float32, Int32

_CHUNK = 32  # columns of a chunk


def top_k(
    logits: Float32[Array, "batch beam columns"], log_probs: Float32[Array, "batch beam"], k: int
) -> tuple[Float32[Array, "batch k"], Int32[Array, "batch k"], Int32[Array, "batch k"]]:
    """Returns the best of all hypotheses with one token more: their log-probabilities (nats), beam indices and tokens.

    Of equal ones the first is the better: of the lower beam index, then of the lower token. The k best lie in the k
    chunks with the highest maxima, of all chunks of all hypotheses, so that after one pass for the maxima, and one for
    the sum that normalises, only k * _CHUNK columns of a sentence are left to select from.

    Args:
      logits: of the next token.
      log_probs: of the hypotheses, in nats; -inf where there is none.
      k: at most beam * columns.
    """
    batch, beam, columns = logits.shape
    chunks = -(-columns // _CHUNK)
    chunked = jnp.pad(logits, ((0, 0), (0, 0), (0, chunks * _CHUNK - columns)), constant_values=-jnp.inf)
    chunked = chunked.reshape(batch, beam * chunks, _CHUNK)
    maxima = chunked.max(axis=-1).reshape(batch, beam, chunks)
    largest = maxima.max(axis=-1)
    normaliser = jnp.log(jnp.exp(logits - largest[:, :, None]).sum(axis=-1)) + largest
    if chunks <= 2 * k:  # which leaves too little out
        every = log_probs[:, :, None] + (logits - normaliser[:, :, None])
        values, chosen = lax.top_k(every.reshape(batch, -1), k)
        return values, chosen // columns, chosen % columns
    # Rounding keeps order: the maximum of what is normalised is the maximum, normalised.
    scores = (log_probs[:, :, None] + (maxima - normaliser[:, :, None])).reshape(batch, -1)
    best = jnp.sort(lax.top_k(scores, k)[1], axis=-1)  # so that of equal values the first wins
    row = best // chunks
    less, plus = (_gather(x, row)[:, :, None] for x in (normaliser, log_probs))
    every = plus + (_gather(chunked, best[:, :, None]) - less)
    values, chosen = lax.top_k(every.reshape(batch, -1), k)
    chunk = _gather(best, chosen // _CHUNK)
    return values, chunk // chunks, chunk % chunks * _CHUNK + chosen % _CHUNK


def _gather(x, indices):
    return jnp.take_along_axis(x, indices, axis=1, mode="promise_in_bounds")  # as in tx.decoding.beam_search

"""Beam search over any autoregressive step function, as one `lax.while_loop` on the device.

The search of the paper's section 6.1, as tensor2tensor wrote it: unfinished ("alive") and finished hypotheses
are kept apart, every step looks at the best 2 * beam continuations of a sentence, and finished hypotheses are
ranked by log-probability over ((5 + length) / 6)^alpha (Wu et al. 2016, equation 14, without coverage).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32

from tx.errors import UserError

_CHUNK = 32  # columns of a chunk in _top_k


class Hypotheses(NamedTuple):
    """What was found, best first, for every sentence.

    A sentence of which nothing finished within its limit has its best unfinished hypotheses, without EOS. A
    place for which there is no hypothesis has score -inf, length 0 and padding.
    """

    tokens: Int32[Array, "batch nbest max_length"]  # EOS included, then padding
    scores: Float32[Array, "batch nbest"]  # log-probability (nats) over length penalty
    lengths: Int32[Array, "batch nbest"]  # tokens, EOS included


class _State(NamedTuple):
    index: Int32[Array, ""]  # of the token that comes next
    alive: Int32[Array, "batch beam max_length"]
    alive_log_probs: Float32[Array, "batch beam"]  # falling; -inf where there is no hypothesis
    last: Int32[Array, "batch beam"]  # last token of the alive hypotheses
    slots: Int32[Array, "batch beam max_length"]  # which place a hypothesis had at each position
    finished: Hypotheses
    done: Bool[Array, " batch"]
    cache: Any


def search(
    step: Callable,
    cache: Any,
    context: Any,
    limits: Int32[Array, " batch"],
    *,
    beam: int,
    alpha: float,
    vocab_size: int,
    max_length: int,
    nbest: int | None = None,
    eos_rank: int | None = None,
    halvings: int = 0,
    eos: int = 1,
    pad: int = 0,
) -> Hypotheses:
    """Searches for the best outputs of a batch of sentences; to be called under `jax.jit`.

    A sentence's result depends on nothing else in the batch. With beam 1 it is greedy search: the most
    probable token at every step, until EOS or the limit.

    Args:
      step: `step(tokens, index, slots, cache, context) -> (logits, cache)`. tokens (batch, beam) int32 are the
        previous output tokens (`pad` at index 0: the start symbol), index () int32 is the position of the one to
        come, logits are (batch, beam, vocab). Nothing in the cache moves when a hypothesis grows out of another: at
        position t <= index hypothesis j of sentence b stood at place slots[b, j, t].
      cache: a pytree of what `step` keeps; leaves have the batch as their leading axis, or belong to no sentence.
      context: a pytree of what `step` knows of the sentences; leaves likewise.
      limits: maximum output length of each sentence, EOS included, cut to max_length; 0 marks an empty row.
      beam: alive hypotheses a sentence.
      alpha: exponent of the length penalty; UserError below 0, where stopping early would not be exact.
      vocab_size: columns of the logits that stand for tokens.
      max_length: columns of the result.
      nbest: finished hypotheses kept, 1 to beam (None: beam). A sentence is over once no alive hypothesis can
        beat the worst of them, so 1 stops soonest; the best hypothesis is the same for every nbest.
      eos_rank: an EOS counts if it is among so many best continuations of a sentence. None: all that are looked at,
        as in tensor2tensor; `beam`: as in Marian, CTranslate2 and Hugging Face's library.
      halvings: how often the batch is cut to half, the sentences that are over left out, once half of it is over.
        Each costs another compilation of `step`.
    """
    nbest = beam if nbest is None else nbest
    if not 1 <= nbest <= beam:
        raise ValueError(f"nbest must lie between 1 and the beam of {beam}; got {nbest}")
    if not alpha >= 0:
        raise UserError(f"decode.alpha must be at least 0; got {alpha}")
    # 2 * beam continuations hold at least beam that are not EOS. Greedy search, however, ends with EOS: no
    # runner-up may go on beside it.
    candidates = 2 * beam if beam > 1 else 1
    per_row = min(candidates, vocab_size)
    eos_counts = (jnp.arange(candidates) < (candidates if eos_rank is None else eos_rank))[None, :]

    def penalty(length):
        return ((5.0 + length.astype(jnp.float32)) / 6.0) ** alpha

    def grow(state, context):
        """The best continuations (log-probabilities, parents, tokens: (batch, candidates)) and the cache."""
        batch = state.last.shape[0]
        logits, cache = step(state.last, state.index, state.slots, state.cache, context)
        logits = logits[..., :vocab_size].astype(jnp.float32).reshape(batch * beam, -1)
        # The best of a row are those of its logits: (batch * beam, vocab) log-probabilities are never made.
        values, tokens = _top_k(logits, per_row)
        log_probs = values - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        log_probs = state.alive_log_probs[:, :, None] + log_probs.reshape(batch, beam, per_row)
        log_probs, places = lax.top_k(log_probs.reshape(batch, -1), candidates)
        return log_probs, places // per_row, _take(tokens.reshape(batch, -1), places), cache

    def advance(state, context, limits):
        here = (jnp.arange(max_length) == state.index)[None, None, :]
        state = state._replace(slots=jnp.where(here, jnp.arange(beam)[None, :, None], state.slots))
        log_probs, parents, tokens, cache = grow(state, context)
        texts = jnp.where(here, tokens[:, :, None], _take(state.alive, parents))
        length = state.index + 1
        is_eos = tokens == eos
        new = Hypotheses(
            texts,
            jnp.where(is_eos & eos_counts, log_probs / penalty(length), -jnp.inf),
            jnp.broadcast_to(length, tokens.shape),
        )
        both = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), state.finished, new)
        _, places = lax.top_k(both.scores, nbest)  # of equal scores the first: an empty place stays empty
        finished = jax.tree.map(lambda x: _take(x, places), both)

        alive_log_probs, places = lax.top_k(jnp.where(is_eos, -jnp.inf, log_probs), beam)
        # A log-probability only falls and the penalty only grows with length, up to the sentence's own limit.
        bound = alive_log_probs[:, 0] / penalty(limits)
        done = state.done | (length >= limits) | (bound <= finished.scores[:, -1])

        def unless_done(old, new):
            return jnp.where(_like(state.done, old), old, new)

        return _State(
            index=length,
            alive=unless_done(state.alive, _take(texts, places)),
            alive_log_probs=unless_done(state.alive_log_probs, alive_log_probs),
            last=_take(tokens, places),
            slots=_take(state.slots, _take(parents, places)),
            finished=jax.tree.map(unless_done, state.finished, finished),
            done=done,
            cache=cache,
        )

    def result(state, limits):
        unfinished = Hypotheses(
            state.alive[:, :nbest],
            (state.alive_log_probs / penalty(limits)[:, None])[:, :nbest],
            jnp.broadcast_to(limits[:, None], (limits.shape[0], nbest)),
        )
        any_finished = state.finished.scores[:, 0] > -jnp.inf
        return jax.tree.map(lambda x, y: jnp.where(_like(any_finished, x), x, y), state.finished, unfinished)

    def nothing(count):
        return Hypotheses(
            jnp.full((batch, count, max_length), pad, jnp.int32),
            jnp.full((batch, count), -jnp.inf, jnp.float32),
            jnp.zeros((batch, count), jnp.int32),
        )

    limits, batch = jnp.minimum(limits, max_length), limits.shape[0]
    state = _State(
        index=jnp.zeros((), jnp.int32),
        alive=nothing(beam).tokens,
        # All hypotheses start alike: only the first one may be continued.
        alive_log_probs=nothing(beam).scores.at[:, 0].set(0.0),
        last=jnp.full((batch, beam), pad, jnp.int32),
        slots=jnp.zeros((batch, beam, max_length), jnp.int32),
        finished=nothing(nbest),
        done=limits <= 0,
        cache=cache,
    )
    found, rows = nothing(nbest), jnp.arange(batch)
    sizes = [batch >> i for i in range(halvings + 1) if batch >> i]
    for size, following in zip(sizes, [*sizes[1:], 0], strict=True):
        state = lax.while_loop(
            lambda state, following=following: (~state.done).sum() > following,
            lambda state, context=context, limits=limits: advance(state, context, limits),
            state,
        )
        found = jax.tree.map(functools.partial(_put, rows), found, result(state, limits))
        left = jnp.argsort(state.done, stable=True)[:following]
        keep = functools.partial(_rows, size, left)
        state, context, limits, rows = (jax.tree.map(keep, x) for x in (state, context, limits, rows))
    return found


def _put(rows, x, some):
    return x.at[rows].set(some)


def _rows(batch, chosen, x):
    """The chosen sentences of a leaf; all of one that belongs to no sentence."""
    return x[chosen] if x.ndim and x.shape[0] == batch else x


def _like(flags, x):
    """flags (batch,) with as many axes as x (batch, ...) has."""
    return flags.reshape(flags.shape + (1,) * (x.ndim - 1))


def _take(x, places):
    """The entries of x (batch, n, ...) at places (batch, m) of each sentence: (batch, m, ...)."""
    return jnp.take_along_axis(x, places.reshape(places.shape + (1,) * (x.ndim - 2)), axis=1)


def _top_k(x, k):
    """As `lax.top_k` on x (rows, columns), ties included; on a CPU twice as fast for 8,000 columns.

    The k best entries of a row lie in its k chunks with the highest maxima, so that after one cheap pass for
    the maxima only k * _CHUNK columns are left to select from.
    """
    rows, columns = x.shape
    chunks = -(-columns // _CHUNK)
    if chunks <= 8 * k:
        return lax.top_k(x, k)
    x = jnp.pad(x, ((0, 0), (0, chunks * _CHUNK - columns)), constant_values=-jnp.inf)
    x = x.reshape(rows, chunks, _CHUNK)
    _, best = lax.top_k(x.max(axis=-1), k)
    best = jnp.sort(best, axis=-1)  # so that of equal values the first column wins
    values, places = lax.top_k(_take(x, best).reshape(rows, k * _CHUNK), k)
    return values, _take(best, places // _CHUNK) * _CHUNK + places % _CHUNK

"""Beam search over any autoregressive step function, as one `lax.while_loop` on the device.

The search of the paper's section 6.1, as tensor2tensor wrote it: unfinished ("alive") and finished hypotheses
are kept apart, every step looks at the best 2 * beam continuations of a sentence, and finished hypotheses are
ranked by log-probability over a length penalty, ((5 + length) / 6)^alpha (Wu et al. 2016, equation 14, without
coverage) or another of LENGTH_PENALTIES.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, Shaped

from tx.decoding.pending_logits import PendingLogits
from tx.decoding.top_k import top_k

LENGTH_PENALTIES = {  # what is raised to the power of alpha, of lengths >= 0, EOS included; it never falls
    "wu2016": lambda length: (5.0 + length) / 6.0,
    "length": lambda length: jnp.maximum(length, 1.0),  # with alpha 1 the mean of a token
}


class Hypotheses(NamedTuple):
    """What was found, best first, for every sentence.

    A sentence of which nothing finished within its limit has its best unfinished hypotheses, without EOS. A
    place for which there is no hypothesis has score -inf, length 0 and padding.
    """

    tokens: Int32[Array, "batch nbest max_length"]  # EOS included, then padding
    scores: Float32[Array, "batch nbest"]  # log-probability (nats) over length penalty
    lengths: Int32[Array, "batch nbest"]  # tokens, EOS included


class BeamState(NamedTuple):
    """What one step of the search hands to the next."""

    index: Int32[Array, ""]  # of the token that comes next
    alive: Int32[Array, "batch beam max_length"]  # tokens of the unfinished hypotheses, best first, then padding
    alive_log_probs: Float32[Array, "batch beam"]  # falling; -inf where there is no hypothesis
    last: Int32[Array, "batch beam"]  # last token of the alive hypotheses
    ancestry: Int32[Array, "batch beam max_length"]  # beam index of a hypothesis at each position; ahead its own
    finished: Hypotheses
    done: Bool[Array, " batch"]
    cache: Any


class Candidates(NamedTuple):
    """The best continuations of a sentence's alive hypotheses by one token, best first."""

    log_probs: Float32[Array, "batch candidates"]  # of the whole hypothesis, in nats
    parents: Int32[Array, "batch candidates"]  # beam indices of what they continue
    tokens: Int32[Array, "batch candidates"]


@dataclasses.dataclass(frozen=True)
class _Settings:
    """What stays the same during a search; see `search`."""

    step: Callable
    beam: int
    num_candidates: int  # continuations of a sentence that a step looks at
    eos_allowed: Bool[Array, "1 candidates"]  # whether a candidate of that rank may end with EOS
    nbest: int
    length_penalty: Callable  # of lengths (an array): what their log-probabilities are divided by
    vocab_size: int
    max_length: int
    eos: int
    pad: int


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
    length_penalty: str = "wu2016",
    nbest: int | None = None,
    eos_rank: int | None = None,
    halvings: int = 0,
    cache_axes: Any = None,
    eos: int = 1,
    pad: int = 0,
) -> Hypotheses:
    """Searches for the best outputs of a batch of sentences; to be called under `jax.jit`.

    A sentence's result depends on nothing else in the batch. With beam 1 it is greedy search.

    Args:
      step: `step(tokens, index, ancestry, cache, context) -> (logits, cache)`. tokens (batch, beam) int32 are the
        previous output tokens (`pad` at index 0: the start symbol), index () int32 is the position of the one to
        come, logits are (batch, beam, vocab), or PendingLogits. Nothing in the cache moves when a hypothesis grows out
        of another: at position t <= index hypothesis j of sentence b had beam index ancestry[b, j, t].
      cache: a pytree of what `step` keeps.
      context: a pytree of what `step` knows of the sentences; leaves have the batch as their leading axis.
      limits: maximum output length of each sentence, EOS included, cut to max_length; 0 marks an empty row.
      beam: alive hypotheses a sentence.
      alpha: exponent of the length penalty, at least 0 (`tx.config.validate`): else stopping early would not be exact.
      length_penalty: what its base is, one of LENGTH_PENALTIES.
      vocab_size, max_length: columns of the logits that stand for tokens, and columns of the result.
      nbest: finished hypotheses kept, 1 to beam (None: beam). A sentence is over once no alive hypothesis can
        beat the worst of them, so 1 stops soonest; the best hypothesis is the same for every nbest.
      eos_rank: an EOS counts if it is among so many best continuations of a sentence. None: all that are looked at,
        as in tensor2tensor; `beam`: as in Marian, CTranslate2 and Hugging Face's library.
      halvings: how often half of the batch is left out, once it is over. Each costs another compilation of `step`.
      cache_axes: a tree like the cache, of each leaf's axis that is the batch, -1 where it belongs to no sentence.
        None: the leading axis of each leaf that is as long as the batch there.
    """
    nbest = beam if nbest is None else nbest
    if not 1 <= nbest <= beam:
        raise ValueError(f"nbest must lie between 1 and the beam of {beam}; got {nbest}")
    candidates = num_candidates(beam)
    eos_allowed = (jnp.arange(candidates) < (candidates if eos_rank is None else eos_rank))[None, :]
    penalty = functools.partial(_penalty, LENGTH_PENALTIES[length_penalty], alpha)
    settings = _Settings(step, beam, candidates, eos_allowed, nbest, penalty, vocab_size, max_length, eos, pad)
    limits, batch = jnp.minimum(limits, max_length), limits.shape[0]
    state = _initial_state(settings, cache, limits)
    found, rows = _no_hypotheses(settings, batch, nbest), jnp.arange(batch)
    if cache_axes is None:
        cache_axes = jax.tree.map(lambda leaf: 0 if leaf.shape[:1] == (batch,) else -1, cache)
    # Search until at most next_size sentences are left, note what all have found, go on with a batch of the others.
    for next_size in [*(batch >> i for i in range(1, halvings + 1) if batch >> i), 0]:
        state = _advance_until(settings, state, context, limits, next_size)
        found = jax.tree.map(functools.partial(_set_rows, rows), found, _best_hypotheses(settings, state, limits))
        state, context, limits, rows = _leave_out_done(next_size, cache_axes, state, context, limits, rows)
    return found


def num_candidates(beam: int) -> int:
    """Returns how many continuations of a sentence a step looks at."""
    # Among 2 * beam at least beam are not EOS, and go on. With a beam of 1 nothing may go on once EOS has won.
    return 2 * beam if beam > 1 else 1


def _initial_state(settings: _Settings, cache: Any, limits: Int32[Array, " batch"]) -> BeamState:
    """Returns the state before the first token: every hypothesis is empty."""
    batch, beam = limits.shape[0], settings.beam
    nothing = _no_hypotheses(settings, batch, beam)
    return BeamState(
        index=jnp.zeros((), jnp.int32),
        alive=nothing.tokens,
        # All hypotheses start alike: only the first one may be continued.
        alive_log_probs=nothing.scores.at[:, 0].set(0.0),
        last=jnp.full((batch, beam), settings.pad, jnp.int32),
        ancestry=jnp.broadcast_to(_beam_indices(settings), (batch, beam, settings.max_length)),
        finished=_no_hypotheses(settings, batch, settings.nbest),
        done=limits <= 0,
        cache=cache,
    )


def _beam_indices(settings: _Settings) -> Int32[Array, "1 beam 1"]:
    return jnp.arange(settings.beam, dtype=jnp.int32)[None, :, None]


def _no_hypotheses(settings: _Settings, batch: int, count: int) -> Hypotheses:
    """Returns `count` places for hypotheses of each sentence, and none in them: (batch, count, ...)."""
    return Hypotheses(
        jnp.full((batch, count, settings.max_length), settings.pad, jnp.int32),
        jnp.full((batch, count), -jnp.inf, jnp.float32),
        jnp.zeros((batch, count), jnp.int32),
    )


def _advance_until(
    settings: _Settings, state: BeamState, context: Any, limits: Int32[Array, " batch"], unfinished: int
) -> BeamState:
    """Returns the state after as many steps as leave at most so many sentences `unfinished`."""
    return lax.while_loop(
        lambda state: (~state.done).sum() > unfinished,
        lambda state: _advance(settings, state, context, limits),
        state,
    )


def _advance(settings: _Settings, state: BeamState, context: Any, limits: Int32[Array, " batch"]) -> BeamState:
    """Returns the state after one more token of every sentence that is not done."""
    position = jnp.arange(settings.max_length)[None, None, :]
    candidates, cache = _grow(settings, state, context)
    tokens = jnp.where(position == state.index, candidates.tokens[:, :, None], _gather(state.alive, candidates.parents))
    length = state.index + 1
    is_eos = candidates.tokens == settings.eos
    finished = _update_finished(settings, state.finished, candidates, tokens, is_eos, length)
    alive_log_probs, chosen = lax.top_k(jnp.where(is_eos, -jnp.inf, candidates.log_probs), settings.beam)
    # A log-probability only falls and the penalty only grows with length, up to the sentence's own limit.
    bound = alive_log_probs[:, 0] / settings.length_penalty(limits)
    done = state.done | (length >= limits) | (bound <= finished.scores[:, -1])

    def unless_done(old, new):
        return jnp.where(_align(state.done, old), old, new)

    return BeamState(
        index=length,
        alive=unless_done(state.alive, _gather(tokens, chosen)),
        alive_log_probs=unless_done(state.alive_log_probs, alive_log_probs),
        last=_gather(candidates.tokens, chosen),
        ancestry=jnp.where(
            position > state.index,
            _beam_indices(settings),
            _gather(state.ancestry, _gather(candidates.parents, chosen)),
        ),
        finished=jax.tree.map(unless_done, state.finished, finished),
        done=done,
        cache=cache,
    )


def _grow(settings: _Settings, state: BeamState, context: Any) -> tuple[Candidates, Any]:
    """Returns the best continuations of all hypotheses, and the cache with what they stand on."""
    logits, cache = settings.step(state.last, state.index, state.ancestry, state.cache, context)
    log_probs, count = state.alive_log_probs, settings.num_candidates
    if isinstance(logits, PendingLogits):
        return Candidates(*logits.top_k(log_probs, count, settings.vocab_size)), cache
    logits = logits[..., : settings.vocab_size].astype(jnp.float32)
    return Candidates(*top_k(logits, log_probs, count)), cache


def _update_finished(
    settings: _Settings,
    finished: Hypotheses,
    candidates: Candidates,
    tokens: Int32[Array, "batch candidates max_length"],
    is_eos: Bool[Array, "batch candidates"],
    length: Int32[Array, ""],
) -> Hypotheses:
    """Returns the nbest of what was finished and of the candidates that end now, whose whole `tokens` are given."""
    ends = is_eos & settings.eos_allowed
    scores = candidates.log_probs / settings.length_penalty(length)
    new = Hypotheses(
        tokens,
        jnp.where(ends, scores, -jnp.inf),
        jnp.broadcast_to(length, is_eos.shape),
    )
    both = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), finished, new)
    _, chosen = lax.top_k(both.scores, settings.nbest)  # of equal scores the first: an empty place stays empty
    return jax.tree.map(lambda x: _gather(x, chosen), both)


def _best_hypotheses(settings: _Settings, state: BeamState, limits: Int32[Array, " batch"]) -> Hypotheses:
    """Returns the nbest of each sentence: what was finished, or where nothing was, what is alive."""
    nbest = settings.nbest
    unfinished = Hypotheses(
        state.alive[:, :nbest],
        (state.alive_log_probs / settings.length_penalty(limits)[:, None])[:, :nbest],
        jnp.broadcast_to(limits[:, None], (limits.shape[0], nbest)),
    )
    any_finished = state.finished.scores[:, 0] > -jnp.inf
    return jax.tree.map(lambda x, y: jnp.where(_align(any_finished, x), x, y), state.finished, unfinished)


def _penalty(base: Callable, alpha: float, length: Int32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    return base(length.astype(jnp.float32)) ** alpha


def _set_rows(rows: Int32[Array, " some"], x: Array, values: Array) -> Array:
    """Returns x (batch, ...) with its rows of these numbers set to values (some, ...)."""
    return x.at[rows].set(values)


def _leave_out_done(size, cache_axes, state, *others):
    """Returns a state and other trees, whose leaves have the batch first, with so many sentences, the unfinished."""
    kept = jnp.argsort(state.done, stable=True)[:size]  # what is not done comes first
    cache = jax.tree.map(functools.partial(_keep_rows, kept), cache_axes, state.cache)
    batched = (state._replace(cache=None, index=None), *others)
    rest, *others = jax.tree.map(functools.partial(_keep_rows, kept, 0), batched)
    return rest._replace(cache=cache, index=state.index), *others


def _keep_rows(rows: Int32[Array, " some"], axis: int, x: Array) -> Array:
    """Returns the rows of these numbers of x, whose batch is `axis`; all of it where that is -1."""
    return x if axis < 0 else jnp.take(x, rows, axis=axis)


def _align(flags: Bool[Array, " batch"], x: Array) -> Array:
    """Returns flags with as many axes as x (batch, ...) has, of size 1."""
    return flags.reshape(flags.shape + (1,) * (x.ndim - 1))


def _gather(x: Shaped[Array, "batch n *rest"], indices: Int32[Array, "batch m"]) -> Shaped[Array, "batch m *rest"]:
    """Returns the entries of x at each sentence's own indices, such as beam indices."""
    indices = indices.reshape(indices.shape + (1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, indices, axis=1, mode="promise_in_bounds")  # to look costs an accelerator a kernel

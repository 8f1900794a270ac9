"""Translation with given parameters: batched beam search (section 6.1), compiled once a shape."""

import concurrent.futures
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from tx.data.vocabulary import EOS
from tx.decoding import beam_search
from tx.decoding.pending_logits import PendingLogits, leaves_logits_pending
from tx.model.attention import BLOCK
from tx.model.layers import CAST, DROPOUTS
from tx.model.positions import check_length, positions_needed
from tx.model.transformer import Transformer, cast_once
from tx.runtime import backend, determinism
from tx.runtime.liveness import show_progress


class Translator:
    """Translator of sentences, by beam search (section 6.1) with fixed parameters.

    Args:
      config: the run's configuration; `config.decode` sets beam, alpha, length_penalty, extra_length and batch_tokens.
      params: the model's parameters.
      eos_rank: see `beam_search.search`; only for comparisons with other programs.
    """

    def __init__(self, config: ConfigDict, params: dict, eos_rank: int | None = None):
        self._config, self._params = config, params
        self._search = jit_search(config, eos_rank)

    def __call__(self, sources: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the best translation of each sentence, in order, as tokens without end of sentence.

        The fewer calls the better: what is short translates fast beside other short sentences, and the longer the list
        the more shapes are worth their compilation.

        Args:
          sources: int32 tokens of each sentence, end of sentence included.
        """
        decode, model, outputs = self._config.decode, self._config.model, [None] * len(sources)
        threads = determinism.threads()
        halvings = backend.decoding_halvings(len(sources))

        def translate(batch):
            length, rows, members = batch
            needed = positions_needed(model.architecture, length, length + decode.extra_length)
            check_length(model.positions, needed, model.max_positions)
            src = np.zeros((rows, length), np.int32)
            for row, i in enumerate(members):
                src[row, : len(sources[i])] = sources[i]
            room = blocks(length + decode.extra_length)
            best = jax.device_get(self._search(self._params, src, length=room, halvings=halvings))
            show_progress()
            for row, i in enumerate(members):
                outputs[i] = best[row][(best[row] != 0) & (best[row] != EOS)]

        lengths = [len(source) for source in sources]
        cut = length_buckets(lengths, backend.decoding_tokens(decode.batch_tokens, threads), backend.decoding_shapes())
        with concurrent.futures.ThreadPoolExecutor(backend.decoding_workers(threads)) as pool:
            # The longest first, so that none is left alone at the end.
            for _ in pool.map(translate, reversed(cut)):
                pass  # what a thread has raised is raised here
        return outputs


def jit_search(config: ConfigDict, eos_rank: int | None = None) -> Callable:
    """Returns the jitted search (params, src, length, halvings) -> tokens; see `Translator` and `_search`."""
    # A dropout has no part in this: left as it is, it would only make runs compile apart that can share a program.
    model = config.model.to_dict() | dict.fromkeys(DROPOUTS, 0.0)
    return _compiled(FrozenConfigDict({"model": model, "decode": config.decode.to_dict()}), eos_rank)


@functools.lru_cache
def _compiled(program, eos_rank):
    """Returns one function for all translators of equal `program` (frozen: "model" and "decode")."""
    search = functools.partial(_search, program, eos_rank)
    options = backend.decoding_options(program.model.kernels)
    return jax.jit(search, static_argnames=("length", "halvings"), compiler_options=options)


def length_buckets(
    lengths: list[int], batch_tokens: int, most: int = backend.SHAPES
) -> list[tuple[int, int, list[int]]]:
    """Groups sentences of like length into batches of at most batch_tokens // length rows.

    Returns (padded length, rows, sentence indices) of each batch, at most as many sentences as rows. There are few
    padded lengths, multiples of 8 that share the sentences evenly: at most `most`, and one for MANY / 2 sentences.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    shapes = min(most, max(1, 2 * len(order) // backend.MANY))
    cuts = [order[-(-len(order) * (part + 1) // shapes) - 1] for part in range(shapes)] if order else []
    result, start = [], 0
    for length in sorted({padded(lengths[i]) for i in cuts}):
        end = start
        while end < len(order) and lengths[order[end]] <= length:
            end += 1
        count = -(-(end - start) // max(1, batch_tokens // length))  # batches; equal ones leave the fewest rows empty
        rows = -(-(end - start) // count)
        result += [(length, rows, order[i : min(i + rows, end)]) for i in range(start, end, rows)]
        start = end
    return result


def padded(length: int) -> int:
    """Returns the length that a batch is padded to whose longest sentence has `length` tokens."""
    return -8 * (-length // 8)


def blocks(length: int) -> int:
    """Returns the positions of a cache for `length` tokens: whole blocks."""
    return -BLOCK * (-length // BLOCK)


def _search(config, eos_rank, params, src, *, length, halvings):
    """Returns the best hypothesis of each row of src (batch, m): tokens (batch, length)."""
    model, width = Transformer(**config.model), config.decode.beam
    variables = cast_once(params, config.model.dtype, biases=backend.decodes_by_kernel(config.model.kernels))
    context = (model.apply(variables, src, method="precompute_kv"), src != 0)
    pending = leaves_logits_pending(config.model.kernels, beam_search.num_candidates(width))
    method = "decode_hidden" if pending else "decode_step"

    def step(token, index, ancestry, cache, context):
        inputs = (token, index, ancestry, *context)
        made, new = model.apply(variables | {"cache": cache}, *inputs, method=method, mutable=["cache"])
        return PendingLogits(made, variables[CAST]["projection"]) if pending else made, new["cache"]

    def first_cache(context):
        token = jnp.zeros((context[1].shape[0], width), jnp.int32)
        return step(token, jnp.int32(0), jnp.zeros((*token.shape, length), jnp.int32), {}, context)[1]

    shapes, cache_axes = jax.eval_shape(first_cache, context), None
    cache = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    if halvings:
        longer = jax.tree.map(lambda x: jax.ShapeDtypeStruct((x.shape[0] + 1, *x.shape[1:]), x.dtype), context)
        cache_axes = jax.tree.map(_differing_axis, shapes, jax.eval_shape(first_cache, longer))
    # The source's end of sentence is not counted: the output is at most input + extra_length tokens. An empty row is
    # over before it begins, else it would be searched when all others are done.
    tokens = (src != 0).sum(1).astype(jnp.int32)
    limits = jnp.where(tokens, tokens - 1 + config.decode.extra_length, 0)
    found = beam_search.search(
        step,
        cache,
        context,
        limits,
        beam=width,
        alpha=config.decode.alpha,
        length_penalty=config.decode.length_penalty,
        vocab_size=config.model.vocab_size,
        max_length=length,
        nbest=1,
        eos_rank=eos_rank,
        halvings=halvings,
        cache_axes=cache_axes,
    )
    return found.tokens[:, 0]


def _differing_axis(one, other):
    """Returns the axis along which two arrays differ in length, -1 where none does."""
    return next((axis for axis, (m, n) in enumerate(zip(one.shape, other.shape, strict=True)) if m != n), -1)

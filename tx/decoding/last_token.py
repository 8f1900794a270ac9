"""Prediction of the last token of each target, the earlier ones given."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from tx.decoding.translator import length_buckets
from tx.model.transformer import Transformer, projection
from tx.runtime.liveness import show_progress


def complete(config: ConfigDict, params: dict, pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """Returns each target with its last token before the end of sentence replaced by the likeliest, without the end.

    Args:
      config: the run's; at most `decode.batch_tokens` tokens of a side are looked at at once.
      params: the model's parameters.
      pairs: int32 tokens of (source, target), end of sentence included.
    """
    model = FrozenConfigDict(config.model.to_dict())
    outputs = [target[:-1].copy() for _, target in pairs]
    lengths = [max(len(source), len(target)) for source, target in pairs]
    for length, rows, members in length_buckets(lengths, config.decode.batch_tokens):
        src, tgt = np.zeros((2, rows, length), np.int32)
        last = np.zeros(rows, np.int32)
        for row, i in enumerate(members):
            source, target = pairs[i]
            src[row, : len(source)], tgt[row, : len(target)] = source, target
            last[row] = max(len(target) - 2, 0)
        likeliest = jax.device_get(_likeliest(model, params, src, tgt, last))
        show_progress()
        for row, i in enumerate(members):
            outputs[i][-1:] = likeliest[row]  # of a sentence without a word nothing is asked
    return outputs


@functools.partial(jax.jit, static_argnums=0)
def _likeliest(model, params, src, tgt, index):
    """Returns the likeliest token (b,) at one index of each row, which sees the tokens before it."""
    hidden = Transformer(**model).apply({"params": params}, src, tgt, method="hidden")
    at = jnp.take_along_axis(hidden, index[:, None, None], axis=1)[:, 0]
    return (at @ projection(params).T).argmax(-1)

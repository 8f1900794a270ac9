"""Dev perplexity of trained models, with the source and without it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from tx.data import tokenized
from tx.data.loader import eval_batches
from tx.data.packing import Batch
from tx.model.loss import batch_loss, count_targets
from tx.runs.selection import Selected
from tx.runtime.liveness import show_progress
from tx.runtime.trees import stack


def make_eval(config: ConfigDict, batches: list[Batch], members: int = 1) -> Callable[..., list[dict]]:
    """Returns a function of parameters that evaluates each member: {"nll", "ppl", "tokens"} over the batches.

    ppl is exp of the mean negative log-likelihood per target subword, end of sentence included, without smoothing. With
    `source=0.0` it is that of a model of the target language alone, for which the encoder's output is zero.

    Args:
      config: of any of the members.
      batches: the same for all.
      members: how many there are; the parameters are a `stack` of so many.
    """
    nll = _nll(FrozenConfigDict({"model": config.model.to_dict(), "loss": config.loss.to_dict()}), members > 1)
    count = sum(int((batch["tgt"] != 0).sum()) for batch in batches)

    def evaluate(params: Any, source: float = 1.0) -> list[dict]:
        scale = np.float32(source)
        sums = []
        for batch in batches:
            sums.append(np.asarray(nll(params, batch, scale), np.float64).reshape(members))
            show_progress()
        means = [row.sum() / count for row in np.stack(sums, axis=1)]
        with np.errstate(over="ignore"):  # what has diverged may have an infinite perplexity
            return [{"nll": float(mean), "ppl": float(np.exp(mean)), "tokens": count} for mean in means]

    return evaluate


@functools.lru_cache
def _nll(config: FrozenConfigDict, stacked: bool) -> Callable:
    """Returns the jitted sum over a batch; one for all runs of equal `config` (frozen: "model" and "loss")."""

    def nll(params, batch, source):
        return batch_loss(config, params, batch, source=source)[1] * count_targets(batch)

    return jax.jit(jax.vmap(nll, in_axes=(0, None, None)) if stacked else nll)


def dev_batches(config: ConfigDict, data: tokenized.PreparedData) -> list[Batch]:
    """Returns the packed sentences that dev perplexity is of."""
    return eval_batches(data.splits["validation"], row_length=config.data.row_length, batch_rows=config.data.batch_rows)


def measure_dev(config: ConfigDict, data: tokenized.PreparedData, params: Sequence[dict]) -> list[dict]:
    """Returns {"nll", "ppl", "tokens", "nll_without_source"} of dev for each of some models of one shape.

    The last is the loss of what is left where the encoder's output is zero: of a model of the target language, which
    in one stack with absolute positions knows how long the source is.
    """
    evaluate = make_eval(config, dev_batches(config, data), len(params))
    joined = stack(params)
    both = zip(evaluate(joined), evaluate(joined, source=0.0), strict=True)
    return [dev | {"nll_without_source": without["nll"]} for dev, without in both]


def described_dev(selected: Selected, dev: dict) -> dict:
    """Returns the entry "dev" of result.json: what was measured, of which parameters."""
    return {"split": "validation", **dev, "step": selected.step, "parameters": selected.name}

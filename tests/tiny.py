"""A configuration small enough that a test compiles it in seconds, with d_k != d_v and h * d_k != d_model."""

import jax
import jax.numpy as jnp
import numpy as np

from tx import config as config_lib
from tx.model.transformer import Transformer

SIZES = {
    "model.vocab_size": 40,
    "model.num_layers": 2,
    "model.d_model": 16,
    "model.d_ff": 24,
    "model.num_heads": 2,
    "model.d_k": 4,
    "model.d_v": 6,
    "model.max_positions": 64,
    "model.target_spaces": 4,
    "data.row_length": 32,
    "data.batch_rows": 4,
    "optim.warmup_steps": 10,
    "parallel.threads": 1,
}


def config(**diff):
    """Returns the tiny configuration; double underscores stand for dots: model__norm="pre"."""
    c = config_lib.get_config()
    config_lib.update(c, SIZES | {name.replace("__", "."): value for name, value in diff.items()})
    config_lib.validate(c)
    return c


def init(c, seed=0):
    """Returns (module, params), with every parameter random, so that no bias or scale hides behind its start."""
    model = Transformer(**c.model)
    empty = jnp.zeros((1, 1), jnp.int32)
    params = model.init(jax.random.key(seed), empty, empty)["params"]
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return model, jax.tree.unflatten(structure, noisy)


def sentences(rng, lengths, vocab_size=40):
    """Returns a right-padded int32 array of random sentences that end with 1, end of sentence."""
    rows = np.zeros((len(lengths), max(lengths)), np.int32)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = [*rng.integers(3, vocab_size, length - 1), 1]
    return rows


def metrics(loss=1.0):
    """What a step tells, of a model of one layer."""
    one = np.ones((), np.float32)
    return {"loss": one * np.float32(loss), "nll": one, "grad_norm": one, "layer_grad_norms": one[None]}

"""Trains a tiny model on eight simulated devices in several ways and writes down what came of it.

Tests start `main` as a process of its own, with eight devices.
"""

import pickle

import jax
import numpy as np
import tiny
from xla_flags import WITH_EMITTERS

from tx import components
from tx.data.packing import FIELDS
from tx.model.loss import batch_loss
from tx.training.sharding import Layout, gather, make_step_over_devices
from tx.training.stacking import TracedHyperparameters
from tx.training.step import init_state

STEPS = 3
ROWS, LENGTH = 8, 24
# Sentences of each row: the last is empty, and the first has many times the tokens of the others.
TARGETS = ((9, 8, 7), (2,), (3,), (4, 2), (2,), (5,), (3,), ())
VOCABULARY, LONG = 4000, 128  # a vocabulary and rows for which the loss is most of the work, in more than one chunk
RUNS = {  # name: (parallel.mode, devices, shards, dropout, micro-batches)
    "one": ("jit", 1, 1, 0.0),
    "data": ("jit", 8, 1, 0.0),
    "shards": ("jit", 8, 4, 0.0),
    "pmap": ("pmap", 8, 1, 0.0),
    "one, dropout": ("jit", 1, 1, 0.3),
    "shards, dropout": ("jit", 0, 2, 0.3),  # 0: all
    "pmap, dropout": ("pmap", 8, 1, 0.3),
}
MICRO = {
    "one": ("jit", 1, 1, 0.0),
    "micro": ("jit", 1, 1, 0.0, 8),
    "data, micro": ("jit", 4, 2, 0.0, 2),
    "pmap, micro": ("pmap", 2, 1, 0.0, 4),
    "micro, dropout": ("jit", 1, 1, 0.3, 8),
    "two micro, dropout": ("jit", 1, 1, 0.3, 2),
    "data, micro, dropout": ("jit", 4, 1, 0.3, 2),
}


OPTIMIZERS = {"one": ("jit", 1, 1), "shards": ("jit", 2, 2), "pmap": ("pmap", 2, 1)}


def config(mode="jit", devices=1, shards=1, dropout=0.0, micro=1, **diff):
    """The embedding and the feed-forward layers are big enough to be cut, the rest is not."""
    return tiny.config(
        model__num_layers=1,
        model__d_model=32,
        model__d_ff=64,
        model__dropout=dropout,
        **(diff or {"optim__epsilon": 1e-3}),  # big: a gradient of zero but for rounding would be blown up
        data__row_length=LENGTH,
        data__batch_rows=ROWS,
        train__micro_batches=micro,
        train__ema=0.5,
        parallel__mode=mode,
        parallel__devices=devices,
        parallel__fsdp_shards=shards,
    )


def batch(seed):
    rng = np.random.default_rng(seed)
    made = {field: np.zeros((ROWS, LENGTH), np.int32) for field in FIELDS}
    for r, targets in enumerate(TARGETS):
        for side in ("src", "tgt"):
            start = 0
            for segment, length in enumerate(targets, start=1):
                end = start + length
                made[side][r, start:end] = tiny.sentences(rng, [length])[0]
                made[f"{side}_segments"][r, start:end] = segment
                made[f"{side}_positions"][r, start:end] = np.arange(length)
                start = end
    return made


def train(c, step):
    """Returns (losses and nlls of every step, the last state in memory)."""
    state, metrics = Layout(c).shard_state(init_state(c)), []
    for i in range(STEPS):
        state, m = step(state, batch(i))
        metrics.append([float(m["loss"]), float(m["nll"])])
    return metrics, jax.tree.map(np.asarray, gather(state))


def shapes_on_a_device(c):
    """Returns {parameter or moment: (its shape, the shape of the part on the last device)}."""
    layout = Layout(c)
    placed = layout.shard_state(init_state(c))
    return {
        jax.tree_util.keystr(path): (leaf.shape, leaf.addressable_shards[-1].data.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(placed)
    }


def first_loss_by_rows(c):
    """Returns the loss of a first step in which each row has masks of its own, put together row by row."""
    state, values, whole = init_state(c), TracedHyperparameters.of(c), batch(0)
    rng = jax.random.fold_in(jax.random.key(c.train.seed), 0)
    loss = jax.jit(lambda row, key: batch_loss(c, state.params, row, values, key)[0])
    losses, counts = [], []
    for i in range(ROWS):
        row = {field: rows[i : i + 1] for field, rows in whole.items()}
        counts.append(np.count_nonzero(row["tgt"]))
        losses.append(float(loss(row, jax.random.fold_in(rng, i))) if counts[-1] else 0.0)
    return float(np.dot(losses, counts) / np.sum(counts))


def flops(c):
    """Returns (the multiplications and additions of a step that one device makes, the loops among them).

    What is in a loop is counted once, however often it is done; a scatter is none, as in code for use.
    """
    layout = Layout(c)
    rows = layout.shard_batch({field: np.ones((ROWS, LONG), np.int32) for field in FIELDS})
    lowered = layout.compile(c).lower(layout.shard_state(init_state(c)), rows, TracedHyperparameters.of(c))
    step = lowered.compile(compiler_options=WITH_EMITTERS)
    return step.cost_analysis()["flops"], step.as_text().count(" while(")


def train_with_optimizers():
    """Returns {(optimizer, way): what `train` found}."""
    found = {}
    for name in components.names("optim.optimizer"):
        own = {"optim__epsilon": 1e-3} if "beta1" in components.declaration("optim.optimizer", name).shared else {}
        for how, run in OPTIMIZERS.items():
            c = config(*run, optim__optimizer=name, optim__clip_norm=0.5, **own)
            found[name, how] = train(c, make_step_over_devices(c))
    return found


def main(path, which):
    if which == "optimizers":
        with open(path, "wb") as file:
            pickle.dump(train_with_optimizers(), file)
        return
    found = {"loss by rows": first_loss_by_rows(config(dropout=0.3))}
    for name, run in {"whole": RUNS, "micro": MICRO}[which].items():
        c = config(*run)
        found[name] = train(c, make_step_over_devices(c))
    if which == "whole":
        c = config(*RUNS["pmap, dropout"])
        found["pmap, dropout, again"] = train(c, make_step_over_devices(c))
        found["parts"] = shapes_on_a_device(config("jit", 8, 4))
        c = config("jit", 8)
        tiny.config_lib.update(c, {"model.vocab_size": VOCABULARY})
        found["flops"] = flops(c)
    with open(path, "wb") as file:
        pickle.dump(found, file)

"""Sentences that training is measured on: chosen once, written to a folder, read by every contestant."""

import dataclasses
import pathlib

import numpy as np
from ml_collections import ConfigDict

import tx.config
from experiments import registry
from experiments.scales import PAPER
from tx.data.loader import TrainBatches
from tx.data.tokenized import TokenizedSplit
from tx.data.vocabulary import EOS

_ARRAYS = ("src_ids", "src_offsets", "tgt_ids", "tgt_offsets")
# News text has 20 words a sentence in the median and a logarithm that varies by 0.64 (newstest2009 to 2012, English);
# a word is about 1.2 subwords.
MEDIAN, SPREAD, SIDES = 24, 0.6, 0.15


def config_of(size: str, overrides: dict[str, str], *, beside_peers: bool = False) -> ConfigDict:
    """Returns the configuration that is measured.

    Args:
      size: a scale (the base of table3 at it) or SWEEP/VARIANT@SCALE.
      overrides: {dotted field: value} on top.
      beside_peers: whether it is one that other programs can hold. They split d_model among the heads and put the norm
        after the sub-layer, so a scale whose heads shrink less than the model, or that puts the norm first, is
        measured with heads that shrink as the model does, h x d_k = h x d_v = d_model in base, and the paper's norm.

    At scale `paper` a batch is 4,096 tokens rather than 24,576 unless `overrides` say otherwise, so that a step on a
    processor takes seconds.
    """
    run = registry.parse(size if "@" in size else f"table3/base@{size}")
    scale = run.scale
    if beside_peers:
        fields = {**scale.fields, "model.norm": PAPER["model.norm"]}
        scale = dataclasses.replace(scale, heads=scale.width, fields=fields)
    small = {"data.batch_rows": "16"} if scale.name == "paper" else {}
    return registry.resolve(run.sweep, run.variant, scale, small | overrides)


def choose(config: ConfigDict, count: int, log=print) -> tuple[TokenizedSplit, str]:
    """Returns `count` training sentences, and a line that says where they are from.

    All are ones that a run of the configuration trains on: with text on both sides, none longer than a row or than
    data.max_length_quantile leaves; of invented ones there are fewer where that leaves some out. Raises UserError where
    none is.
    """
    if tx.config.is_of_tfds(config.data.corpus):  # TFDS's own sets are too large to fetch for a measurement
        split = invent(count, config.model.vocab_size, config.data.row_length)
        split = pick(split, _trained_on(config, split))
        text = (
            f"{len(split)} invented sentences over {config.model.vocab_size} subwords; source lengths are log-normal "
            f"(median {MEDIAN}, spread {SPREAD} of the logarithm), a target's length is its source's times log-normal "
            f"noise (spread {SIDES}), at most {config.data.row_length}, end of sentence included"
        )
        return split, text
    from tx.data import tokenized

    train = tokenized.prepare(config.data, config.model.vocab_size, log).splits["train"]
    chosen = np.random.default_rng(config.train.seed).permutation(_trained_on(config, train))[:count]
    return pick(train, chosen), f"{len(chosen)} training sentences of {config.data.corpus}, drawn at random"


def _trained_on(config, split):
    """Returns the numbers of the sentences that are trained on; others than ours would not leave any out."""
    sizes = {"row_length": config.data.row_length, "batch_rows": config.data.batch_rows}
    quantile = config.data.max_length_quantile
    return TrainBatches(split, seed=config.train.seed, **sizes, max_length_quantile=quantile).usable


def invent(count: int, vocab_size: int, row_length: int) -> TokenizedSplit:
    """Returns random sentences of the lengths that `choose` describes."""
    rng = np.random.default_rng(0)
    source = MEDIAN * np.exp(SPREAD * rng.standard_normal(count))
    target = source * np.exp(SIDES * rng.standard_normal(count))

    def side(lengths):
        lengths = np.clip(np.rint(lengths), 2, row_length).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = rng.integers(3, vocab_size, offsets[-1], dtype=np.int32)
        ids[offsets[1:] - 1] = EOS
        return ids, offsets

    return TokenizedSplit(*side(source), *side(target))


def pick(split: TokenizedSplit, chosen: np.ndarray) -> TokenizedSplit:
    """Returns some sentences of a split as one of their own."""

    def side(take):
        parts = [np.asarray(take(int(i))) for i in chosen]
        return np.concatenate(parts), np.cumsum([0, *map(len, parts)])

    return TokenizedSplit(*side(split.source), *side(split.target))


def save(split: TokenizedSplit, folder: pathlib.Path) -> None:
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(split, name))


def load(folder: str) -> TokenizedSplit:
    return TokenizedSplit(*(np.load(pathlib.Path(folder) / f"{name}.npy", mmap_mode="r") for name in _ARRAYS))

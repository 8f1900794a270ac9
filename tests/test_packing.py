"""Packing: nothing lost, nothing mixed, little padding, and a position that continues exactly."""

import itertools
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tx import config as config_lib
from tx.data import packing
from tx.data.packing import FIELDS, TrainBatches, best_fit, eval_batches
from tx.data.tokens import TokenizedSplit


def split_of(lengths):
    """Sentences of these (source, target) lengths; sentence i is made of the token i + 2 and ends with 1."""
    sides = []
    for k in (0, 1):
        sentences = [[i + 2] * (pair[k] - 1) + [1] for i, pair in enumerate(lengths)]
        offsets = np.cumsum([0, *map(len, sentences)])
        sides += [np.array(list(itertools.chain(*sentences)), np.int32), offsets.astype(np.int64)]
    return TokenizedSplit(*sides)


def unpack(batches):
    """Reads sentence pairs back out of batches by their segment numbers alone."""
    pairs = []
    for batch in batches:
        for r in range(len(batch["src"])):
            for segment in range(1, batch["src_segments"][r].max(initial=0) + 1):
                pair = []
                for side in ("src", "tgt"):
                    here = batch[f"{side}_segments"][r] == segment
                    np.testing.assert_array_equal(batch[f"{side}_positions"][r][here], np.arange(here.sum()))
                    assert np.ptp(np.flatnonzero(here)) == here.sum() - 1  # in one piece
                    pair.append(tuple(batch[side][r][here]))
                pairs.append(tuple(pair))
            for side in ("src", "tgt"):
                assert ((batch[side][r] == 0) == (batch[f"{side}_segments"][r] == 0)).all()
    return pairs


def sentences(split, indices):
    return [(tuple(split.source(i)), tuple(split.target(i))) for i in indices]


lengths_of_pairs = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=60)


@given(lengths_of_pairs)
def test_no_token_is_lost_and_no_sentences_are_mixed(lengths):
    split = split_of(lengths)
    batches = eval_batches(split, row_length=20, batch_rows=3)
    assert sorted(unpack(batches)) == sorted(sentences(split, range(len(split))))
    assert {batch[field].shape for batch in batches for field in FIELDS} == {(3, batches[0]["src"].shape[1])}


@given(lengths_of_pairs)
def test_best_fit_never_overfills_and_opens_a_row_only_when_it_must(lengths):
    src, tgt = np.array(lengths).T
    rows = best_fit(src, tgt, 20)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    for row in rows:
        assert src[row].sum() <= 20
        assert tgt[row].sum() <= 20
    for earlier, later in itertools.combinations(rows, 2):
        first = later[0]  # found no room in any row that was there
        fitted = [i for i in earlier if max(lengths[i]) >= max(lengths[first])]
        assert src[fitted].sum() + src[first] > 20 or tgt[fitted].sum() + tgt[first] > 20


@settings(max_examples=20)
@given(lengths_of_pairs, st.integers(0, 3))
def test_training_passes_every_usable_sentence_once_an_epoch(lengths, seed):
    split = split_of(lengths)
    usable = [i for i, pair in enumerate(lengths) if max(pair) <= 12]
    if not usable:
        return
    batches = TrainBatches(split, seed=seed, row_length=12, batch_rows=1)
    assert batches.too_long == len(lengths) - len(usable)
    for _ in range(2):
        epoch, rows = batches.position["epoch"], []
        while batches.position["epoch"] == epoch:
            rows.append(next(batches))
        assert sorted(unpack(rows)) == sorted(sentences(split, usable))


def stream(seed=1, **options):
    rng = np.random.default_rng(0)
    options = {"row_length": 16, "batch_rows": 4} | options
    return TrainBatches(split_of(rng.integers(2, 12, size=(150, 2))), seed=seed, **options)


def equal(a, b):
    return all((a[field] == b[field]).all() for field in FIELDS)


def test_order_is_the_seeds_and_changes_with_the_epoch(monkeypatch):
    monkeypatch.setattr(packing, "POOL", 40)
    first, again, other = stream(1), stream(1), stream(2)
    batches = [next(first) for _ in range(60)]
    assert all(equal(batch, next(again)) for batch in batches)
    assert not equal(batches[0], next(other))
    assert not any(equal(batches[0], batch) for batch in batches[1:])


@pytest.mark.parametrize("stop", [1, 7, 23, 50])
def test_a_position_continues_exactly(monkeypatch, stop):
    monkeypatch.setattr(packing, "POOL", 40)
    straight, before, after = stream(), stream(), stream()
    for _ in range(stop):
        next(straight), next(before)
    after.position = dict(before.position)
    for _ in range(40):
        assert equal(next(straight), next(after))


def test_epochs_count_passes():
    batches = stream()
    assert batches.epochs() == 0
    while batches.position["epoch"] < 2:
        next(batches)
    assert batches.epochs() == pytest.approx(2, abs=0.2)


def test_an_evaluation_sentence_longer_than_a_row_is_kept():
    batches = eval_batches(split_of([(40, 3), (5, 5)]), row_length=16, batch_rows=2)
    assert batches[0]["src"].shape == (2, 64)
    assert len(unpack(batches)) == 2


@pytest.mark.skipif("TX_DATA_DIR" not in os.environ, reason="TX_DATA_DIR is not set: no real text")
def test_padding_of_real_text_is_at_most_six_percent():
    from experiments import registry
    from tx.data import tokens

    config = registry.get_config("table3/base@multi30k")
    config_lib.validate(config)
    data = tokens.prepare(config.data, config.model.vocab_size)
    batches = TrainBatches(
        data.splits["train"],
        seed=1,
        row_length=config.data.row_length,
        batch_rows=config.data.batch_rows,
    )
    shares = []
    while batches.position["epoch"] < 1:
        batch = next(batches)
        shares.append(np.mean([batch["src"] == 0, batch["tgt"] == 0]))
    assert np.mean(shares) <= 0.06

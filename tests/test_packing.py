"""Packing: nothing lost, nothing mixed, little padding, and a position that continues exactly."""

import itertools
import json
import os
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tx import config as config_lib
from tx.data import loader, packing
from tx.data.loader import TrainBatches, eval_batches
from tx.data.packing import FIELDS, best_fit
from tx.data.tokenized import TokenizedSplit
from tx.errors import UserError


def split_of(lengths):
    """Sentences of these (source, target) lengths; each ends with 1, and every other token is there once."""
    sides, unused = [], itertools.count(2)
    for k in (0, 1):
        sentences = [[*itertools.islice(unused, int(pair[k]) - 1), 1] for pair in lengths]
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


def plain_best_fit(lengths, row_length):
    """`best_fit` without arrays."""
    rows, rooms = [], []
    for i in sorted(range(len(lengths)), key=lambda i: -max(lengths[i])):
        fitting = [r for r, room in enumerate(rooms) if room[0] >= lengths[i][0] and room[1] >= lengths[i][1]]
        if not fitting:
            fitting = [len(rows)]
            rows.append([])
            rooms.append((row_length, row_length))
        best = min(fitting, key=lambda r: sum(rooms[r]))
        rows[best].append(i)
        rooms[best] = (rooms[best][0] - lengths[i][0], rooms[best][1] - lengths[i][1])
    return rows


def plain_batches(split, rows, row_length, batch_rows):
    """What `pack_batch` makes of rows of sentence indices, batch after batch, as lists; the last may lack rows."""
    for start in range(0, len(rows), batch_rows):
        batch = {field: [] for field in FIELDS}
        for row in rows[start : start + batch_rows]:
            for side, take in (("src", split.source), ("tgt", split.target)):
                tokens = [(int(t), n, p) for n, i in enumerate(row, 1) for p, t in enumerate(take(i))]
                tokens += [(0, 0, 0)] * (row_length - len(tokens))
                for k, field in enumerate((side, f"{side}_segments", f"{side}_positions")):
                    batch[field].append([token[k] for token in tokens])
        yield batch


def as_lists(batch):
    return {field: array.tolist() for field, array in batch.items()}


def trained_on(lengths, row_length):
    """Sentences that fit a row, and hold more than their end on both sides."""
    return [i for i, pair in enumerate(lengths) if max(pair) <= row_length and min(pair) > 1]


def plain_rows(lengths, seed, row_length, pool, epochs):
    """Rows of the first epochs of `TrainBatches`, as lists of sentence indices."""
    usable = trained_on(lengths, row_length)
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(usable).tolist()
        for number, start in enumerate(range(0, len(order), pool)):
            chosen = order[start : start + pool]
            rows = plain_best_fit([lengths[i] for i in chosen], row_length)
            for r in np.random.default_rng((seed, epoch, number)).permutation(len(rows)):
                yield [chosen[i] for i in rows[r]]


lengths_of_pairs = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=60)
# Also where several pools make an epoch, a batch many pools, and some sentences, but not all, are too long.
shapes = st.fixed_dictionaries({"row_length": st.integers(8, 30), "batch_rows": st.integers(1, 9)})
pools = st.sampled_from([1, 2, 7, 25, 4096])
seeds = st.integers(0, 2**31 - 1)
some_usable = lengths_of_pairs.map(lambda lengths: [*lengths, (3, 5)])


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


@given(lengths_of_pairs, st.integers(20, 40))
def test_best_fit_is_the_plain_one(lengths, row_length):
    src, tgt = np.array(lengths).T
    assert best_fit(src, tgt, row_length) == plain_best_fit(lengths, row_length)


@given(lengths_of_pairs, st.integers(20, 40))
def test_best_fit_of_long_rows_is_that_of_others(lengths, row_length):
    src, tgt = np.array(lengths).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_SCANNED", 1)
        assert best_fit(src, tgt, row_length) == plain_best_fit(lengths, row_length)


def test_a_long_sentence_of_evaluation_takes_no_more_attention_than_rows_of_twice_the_length():
    """Rows as long as one of 3,000 tokens among many short ones, of which a batch of twelve needed gigabytes."""
    lengths = [*((7 + i % 9, 8) for i in range(400)), (3000, 12)]
    batches = eval_batches(split_of(lengths), row_length=48, batch_rows=12)
    assert {batch["src"].shape for batch in batches} == {(1, 3008)}
    assert len(unpack(batches)) == len(lengths)
    for longest, rows in ((96, 12), (97, 6), (400, 1)):
        (batch,) = eval_batches(split_of([(longest, 3)]), row_length=48, batch_rows=12)
        assert len(batch["src"]) == rows


@given(lengths_of_pairs, shapes)
def test_evaluation_batches_are_the_plain_ones_and_the_files_order_can_be_restored(lengths, shape):
    split = split_of(lengths)
    row_length = max(shape["row_length"], 32)  # whole 32s that hold the longest sentence
    batch_rows = min(shape["batch_rows"], max(1, 4 * shape["batch_rows"] * shape["row_length"] ** 2 // 32**2))
    batches = eval_batches(split, **shape)
    rows = plain_best_fit(lengths, row_length)
    padded = rows + [[]] * (-len(rows) % batch_rows)
    assert [as_lists(batch) for batch in batches] == list(plain_batches(split, padded, row_length, batch_rows))
    in_file_order = sorted(zip(itertools.chain(*rows), unpack(batches), strict=True))
    assert in_file_order == list(enumerate(sentences(split, range(len(split)))))


@settings(max_examples=25)
@given(some_usable, shapes, pools, seeds)
def test_training_batches_are_the_plain_ones_epoch_after_epoch(lengths, shape, pool, seed):
    split, row_length = split_of(lengths), shape["row_length"]
    usable = trained_on(lengths, row_length)
    rows = list(plain_rows(lengths, seed, row_length, pool, epochs=3))
    whole = rows[: len(rows) // shape["batch_rows"] * shape["batch_rows"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "POOL", pool)
        stream = TrainBatches(split, seed=seed, **shape)
        assert stream.num_skipped == sum(max(pair) > row_length for pair in lengths)
        assert stream.num_empty == len(lengths) - len(usable) - stream.num_skipped
        for expected in plain_batches(split, whole, **shape):
            assert as_lists(next(stream)) == expected
        one_by_one = TrainBatches(split, seed=seed, row_length=row_length, batch_rows=1)
        for _ in range(2):
            epoch, passed = one_by_one.position["epoch"], []
            while one_by_one.position["epoch"] == epoch:
                passed.append(next(one_by_one))
            assert sorted(unpack(passed)) == sorted(sentences(split, usable))


def test_text_of_which_no_sentence_fits_is_refused():
    with pytest.raises(UserError, match=r"no training sentence fits into data\.row_length=4; the shortest needs 5$"):
        TrainBatches(split_of([(5, 2), (1, 9)]), seed=1, row_length=4, batch_rows=2)


def stream(seed=1, **options):
    rng = np.random.default_rng(0)
    options = {"row_length": 16, "batch_rows": 4} | options
    return TrainBatches(split_of(rng.integers(2, 12, size=(150, 2))), seed=seed, **options)


def equal(a, b):
    return all((a[field] == b[field]).all() for field in FIELDS)


def test_order_is_the_seeds_and_changes_with_the_epoch(monkeypatch):
    monkeypatch.setattr(loader, "POOL", 40)
    first, again, other = stream(1), stream(1), stream(2)
    batches = [next(first) for _ in range(60)]
    assert all(equal(batch, next(again)) for batch in batches)
    assert not equal(batches[0], next(other))
    assert not any(equal(batches[0], batch) for batch in batches[1:])


@settings(max_examples=25)
@given(some_usable, shapes, pools, seeds, st.integers(0, 20))
def test_a_saved_position_continues_exactly(lengths, shape, pool, seed, stop):
    straight, after = (TrainBatches(split_of(lengths), seed=seed, **shape) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "POOL", pool)
        for _ in range(stop):
            next(straight)
        after.position = json.loads(json.dumps(straight.position))  # as a checkpoint keeps it
        for _ in range(15):
            assert equal(next(straight), next(after))
            assert straight.position == after.position


class Watched(np.ndarray):
    """Token ids that keep what is read of them in `read`."""

    def __getitem__(self, key):
        found = np.asarray(self)[key]
        self.read += found.tolist()
        return found


def watched(split):
    """A split whose ids are `Watched`."""
    ids = [side.view(Watched) for side in (split.src_ids, split.tgt_ids)]
    for side in ids:
        side.read = []
    return TokenizedSplit(ids[0], split.src_offsets, ids[1], split.tgt_offsets)


@settings(max_examples=25)
@given(some_usable, st.integers(8, 30), st.integers(1, 4), st.integers(1, 4), pools, seeds)
def test_each_process_makes_its_own_rows_of_the_whole_batch_and_no_others(
    lengths, row_length, processes, rows, pool, seed
):
    split, sizes = split_of(lengths), {"seed": seed, "row_length": row_length, "batch_rows": processes * rows}
    splits = [watched(split) for _ in range(processes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "POOL", pool)
        whole = TrainBatches(split, **sizes)
        streams = [TrainBatches(each, **sizes, share=(k, processes)) for k, each in enumerate(splits)]
        for _ in range(4):
            want, parts = next(whole), [next(one) for one in streams]
            assert equal(want, {field: np.concatenate([one[field] for one in parts]) for field in FIELDS})
            tokens = {"source": np.count_nonzero(want["src"]), "target": np.count_nonzero(want["tgt"])}
            for own, stream, part in zip(splits, streams, parts, strict=True):
                assert {len(part[field]) for field in FIELDS} == {rows}
                for side, ids in (("src", own.src_ids), ("tgt", own.tgt_ids)):
                    assert sorted(ids.read) == sorted(part[side][part[side] != 0])  # not a token of others' rows
                    ids.read = []
                # What they know of the whole batch, they know from its sentences' lengths.
                assert stream.position == whole.position
                assert stream.sentences.tolist() == whole.sentences.tolist()
                assert own.count_tokens(stream.sentences) == tokens


def test_epochs_count_passes():
    batches = stream()
    assert batches.epochs() == 0
    while batches.position["epoch"] < 2:
        next(batches)
    assert batches.epochs() == pytest.approx(2, abs=0.2)


def test_an_evaluation_sentence_longer_than_a_row_is_kept():
    batches = eval_batches(split_of([(40, 3), (5, 5)]), row_length=16, batch_rows=2)
    assert batches[0]["src"].shape == (1, 64)
    assert len(unpack(batches)) == 2


@pytest.mark.slow
@pytest.mark.skipif("TX_DATA_DIR" not in os.environ, reason="TX_DATA_DIR is not set: no real text")
def test_padding_of_real_text_is_at_most_six_percent():
    from experiments import registry
    from tx.data import tokenized

    config = registry.get_config("table3/base@multi30k")
    config_lib.validate(config)
    data = tokenized.prepare(config.data, config.model.vocab_size)
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


def same(one, other):
    return all(np.array_equal(one[field], other[field]) for field in FIELDS)


def test_planning_ahead_gives_the_same_batches(monkeypatch):
    rng = np.random.default_rng(6)
    split = split_of(rng.integers(1, 9, (60, 2)))
    sizes = {"seed": 2, "row_length": 16, "batch_rows": 3}
    here, ahead = TrainBatches(split, **sizes), TrainBatches(split, **sizes, ahead=True)
    assert ahead._plan._process is None  # before the first batch nothing is started
    assert all(same(next(here), next(ahead)) for _ in range(30))
    process = ahead._plan._process
    assert process.poll() is None
    assert ahead.position == here.position
    assert ahead.epochs() == here.epochs() > 2
    # A place elsewhere is planned by another process.
    here.position = ahead.position = {"epoch": 1, "pool": 0, "row": 2}
    assert all(same(next(here), next(ahead)) for _ in range(30))
    assert process.poll() is not None
    process = ahead._plan._process
    ahead.close()
    assert process.poll() is not None
    assert same(next(here), next(ahead))
    ahead.close()
    here.close()


def test_planning_that_breaks_off_says_so(monkeypatch):
    split = split_of([(3, 3)] * 10)
    ahead = TrainBatches(split, seed=1, row_length=8, batch_rows=2, ahead=True)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match=r"^planning broke off with status 1$"):
        next(ahead)
    ahead.close()

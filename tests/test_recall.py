"""The corpus that asks for memory, and the sentences that are completed: each asked for what it should be, where."""

import collections
import json

import fabricated
import jax
import numpy as np
import pytest
import tiny

from experiments import registry
from experiments.report import metrics
from tx.data import tokenized
from tx.data.synthetic import recall
from tx.decoding.last_token import complete
from tx.evaluation.translation import evaluate_translations


def test_every_target_ends_with_the_value_that_it_began_with_at_the_distance_of_its_length():
    splits = recall.generate()
    assert {split: len(pairs) for split, pairs in splits.items()} == {"train": 3000, "validation": 180, "test": 300}
    for split, pairs in splits.items():
        distances = collections.Counter()
        for source, target in pairs:
            value, *fillers, mark, last = target.split()
            assert (source, mark, last) == ("recall", "?", value)
            assert value in recall.VALUES
            assert set(fillers) <= set(recall.FILLERS)
            words = target.split()
            distances[words.index("?") - words.index(value)] += 1
            assert len(words) + 1 == recall.target_tokens(words.index("?") - words.index(value))
        assert distances == dict.fromkeys(recall.DISTANCES, recall.SENTENCES[split])
    values = collections.Counter(target[0] for _, target in splits["test"])
    assert set(values) == set(recall.VALUES)
    assert max(values.values()) < 40
    long = [{target for _, target in pairs if len(target.split()) > 12} for pairs in splits.values()]
    assert not long[0] & long[1]
    assert not long[0] & long[2]


def test_the_scale_gives_a_token_to_every_word():
    config = registry.get_config("table1/self-attention@recall")
    data = tokenized.prepare(config.data, config.model.vocab_size)
    for split in ("train", "test"):
        lengths = [len(target.split()) + 1 for _, target in data.pairs(split)]
        assert data.splits[split].tgt_lengths.tolist() == lengths
        assert max(lengths) <= config.data.row_length
        assert set(data.splits[split].src_lengths) == {2}


@pytest.mark.parametrize("batch_tokens", [8192, 40])
def test_a_completion_is_the_likeliest_last_token_of_the_sentence_alone(batch_tokens):
    config = tiny.config(decode__batch_tokens=batch_tokens)
    model, params = tiny.init(config)
    rng = np.random.default_rng(0)
    lengths = [(3, 9), (5, 2), (4, 17), (7, 9), (2, 1), (30, 20)]
    pairs = [tuple(tiny.sentences(rng, [n])[0] for n in both) for both in lengths]
    logits_of = jax.jit(lambda source, target: model.apply({"params": params}, source, target))
    for (source, target), completed in zip(pairs, complete(config, params, pairs), strict=True):
        if len(target) == 1:  # an end of sentence alone: nothing is asked
            assert completed.size == 0
            continue
        logits = logits_of(*(np.pad(side, (0, 32 - len(side)))[None] for side in (source, target)))
        assert completed.tolist() == [*target[:-2], int(np.argmax(logits[0, len(target) - 2]))]


def test_what_is_asked_for_last_is_scored_as_the_whole_sentence_with_that_token():
    """The scores of a model that knows nothing: the references, but for what it gives at the end of each."""
    config = tiny.config(
        model__vocab_size=320,
        model__max_positions=128,
        data__corpus="recall",
        data__row_length=72,
        decode__task="last",
        decode__splits="test",
    )
    data = tokenized.prepare(config.data, config.model.vocab_size)
    _, params = tiny.init(config)
    split = data.splits["test"]
    completed = complete(config, params, [(split.source(i), split.target(i)) for i in range(len(split))])
    right = [output.tolist() == split.target(i)[:-1].tolist() for i, output in enumerate(completed)]
    scores = evaluate_translations(config, params, data)["test"].scores
    assert scores["matches"] == right
    assert scores["exact_match"] == pytest.approx(sum(right) / 300)
    assert 0 < sum(not each for each in right) < 301


def test_the_table_shows_accuracy_by_distance_and_no_bleu(tmp_path):
    lengths = [recall.target_tokens(distance) for distance in recall.DISTANCES for _ in range(4)]
    matches = [int(i % 4 <= i // 4) for i in range(len(lengths))]  # 1 of 4 at the first distance, then 2, 3, 4, 4, 4
    result = fabricated.put(tmp_path, "table1/self-attention@recall", 1) / "result.json"
    told = json.loads(result.read_text())
    told["tests"]["test"] |= {"lengths": lengths, "matches": matches}
    result.write_text(json.dumps(told))
    table = fabricated.table_of(tmp_path)
    row = fabricated.cells(table)["self-attention"]
    assert [row[f"{distance} back"] for distance in recall.DISTANCES] == ["25", "50", "75", "100", "100", "100"]
    assert not any("BLEU" in title for title in row)
    caption = dict(table.caption)
    assert caption["last word asked of"] == "test"
    assert not {"BLEU on", "beam", "sacreBLEU"} & caption.keys()


def test_of_other_corpora_nothing_is_recalled(tmp_path):
    fabricated.put(tmp_path, "table1/self-attention@smoke", 1)
    table = fabricated.table_of(tmp_path)
    assert not any("back" in column.title for column in table.columns)
    assert all(f"{distance} back" in metrics.NAMED for distance in recall.DISTANCES)

"""The table of translations by length of sentence."""

import pytest
from fabricated import cells, put, table_of
from hypothesis import given
from hypothesis import strategies as st

from experiments import registry
from experiments.report import lengths_table, metrics, noise, reading
from experiments.report.lengths_table import Band


@given(st.lists(st.integers(1, 60), min_size=1), st.integers(1, 60))
def test_every_sentence_is_in_one_band_and_none_spans_the_trained_lengths(of_sentences, longest):
    made = lengths_table.bands(of_sentences, longest)
    assert all(sum(band.covers(length) for band in made) == 1 for length in of_sentences)
    assert made == sorted(made)
    assert sum(band.most <= longest for band in made) <= 3
    assert sum(band.least > longest for band in made) <= 2
    assert all({band.least, band.most} <= set(of_sentences) for band in made)


def test_bands_share_the_sentences():
    assert lengths_table.bands(range(1, 11), 6) == [Band(1, 2), Band(3, 4), Band(5, 6), Band(7, 8), Band(9, 10)]
    assert lengths_table.bands([4] * 7 + [5, 9], 9) == [Band(4, 4), Band(5, 9)]
    assert list(map(str, lengths_table.bands([4, 4, 8, 9], 4))) == ["4", "8", "9"]


def _scored(of_sentences, matches):
    # The statistics of sacreBLEU: lengths of hypothesis and reference, then matches and counts of 1- to 4-grams.
    stats = [[4, 4, 4, 3, 2, 1, 4, 3, 2, 1] if match else [4, 4, 0, 0, 0, 0, 4, 3, 2, 1] for match in matches]
    scores = {"bleu": 30.0, "signature": "s", "exact_match": 0.5, "sentences": len(matches), "chrf": 55.5}
    scores |= {"bleu_tokenized": 30.0, "bleu_compound": 30.0, "bleu_lower": 30.0}
    return {"test": scores | {"lengths": of_sentences, "matches": matches, "stats": stats}}


def test_each_band_is_scored_by_its_own_sentences(tmp_path):
    train = {"steps": 9, "epochs": 1.0, "target_tokens": 9, "flops": 1.0, "longest": 10}
    for seed, matches in ((1, [1, 1, 0, 0]), (2, [1, 0, 0, 0])):
        put(tmp_path, "table3/base@smoke", seed, tests=_scored([5, 6, 10, 30], matches), train=train)
    put(tmp_path, "table3/E@smoke", 1)  # of before lengths were recorded
    (found,) = reading.read([tmp_path])
    table = lengths_table.build(found)
    shown = cells(table)
    assert [c.title for c in table.columns[1:5]] == ["BLEU 5", "BLEU 6", "BLEU 10", "BLEU 30"]
    assert shown["base"]["exact % 5"] == "100.0 ± 0.0"
    assert shown["base"]["exact % 6"] == "50.0 ± 70.7"
    assert shown["base"]["BLEU 5"] == "100.0 ± 0.00"
    assert shown["base"]["BLEU 30"] == "0.0 ± 0.00"
    assert set(list(shown["E"].values())[1:]) == {""}
    assert table.records[0]["exact % 6"] == pytest.approx(50.0)
    assert "1 of 5, 1 of 6, 1 of 10, 1 of 30. Those trained on have at most 10." in table.notes[0]


def test_rows_whose_sentences_have_other_lengths_are_in_no_band(tmp_path):
    """By other subwords the same translations are in other bands, and would seem others."""
    train = {"steps": 9, "epochs": 1.0, "target_tokens": 9, "flops": 1.0, "longest": 10}
    matches = [1, 1, 0, 0]
    put(tmp_path, "table3/base@smoke", 1, tests=_scored([5, 6, 10, 30], matches), train=train)
    put(tmp_path, "table3/big@smoke", 1, tests=_scored([5, 6, 10, 30], matches), train=train | {"longest": 20})
    other = {"corpus": "c", "fingerprint": "f", "vocabulary_fingerprint": "other"}
    scored = _scored([30, 10, 6, 5], matches)
    put(tmp_path, "table3/E@smoke", 1, tests=scored, train=train | {"longest": 12}, data=other)
    (found,) = reading.read([tmp_path])
    table = lengths_table.build(found)
    shown = cells(table)
    assert (shown["base"]["BLEU 5"], shown["big"]["BLEU 5"], shown["base"]["BLEU 30"]) == ("100.0", "100.0", "0.0")
    assert set(list(shown["E"].values())[1:]) == {""}
    assert table.notes[0].endswith("Those trained on have at most 10, in big 20.")
    assert "Left out of all bands, since their test sentences have other lengths: E." in table.notes


@pytest.mark.parametrize("name", ["BLEU within", "BLEU beyond", "exact % within", "exact % beyond"])
def test_sentences_chosen_by_their_length_are_of_one_kind_of_subword(tmp_path, name):
    put(tmp_path, "table3/base@smoke", 1)
    put(tmp_path, "table3/E@smoke", 1, data={"corpus": "c", "fingerprint": "f", "vocabulary_fingerprint": "other"})
    (found,) = reading.read([tmp_path])
    rows = [row for row in found.rows if row.results]
    assert noise.of_one_text(metrics.BLEU, *rows)
    assert not noise.of_one_text(metrics.NAMED[name], *rows)


def test_without_lengths_there_is_no_table(tmp_path):
    put(tmp_path, "table3/base@smoke", 1)
    (found,) = reading.read([tmp_path])
    assert lengths_table.build(found).rows == ()


def test_what_is_recalled_has_shares_within_and_beyond_but_no_bands(tmp_path):
    train = {"steps": 9, "epochs": 1.0, "target_tokens": 9, "flops": 1.0, "longest": 10}
    name = registry.variants("positions")[0].name
    put(tmp_path, f"positions/{name}@recall", 1, tests=_scored([5, 6, 10, 30], [1, 1, 0, 1]), train=train)
    shown = cells(table_of(tmp_path))[name]
    assert not [title for title in shown if "BLEU" in title]
    assert (shown["exact % within"], shown["exact % beyond"]) == ("66.7", "100.0")
    (found,) = reading.read([tmp_path])
    assert lengths_table.build(found).rows == ()

"""Pictures: what they draw is what they are given."""

import io

import numpy as np
import pytest
import tiny

from experiments.analysis import figures
from tx.data.vocabulary import Vocabulary
from tx.decoding import trained_model
from tx.errors import UserError
from tx.runs.run_dir import RunDir


class Letters(Vocabulary):
    """A vocabulary of bytes."""

    def __init__(self):
        pass

    def encode(self, sentences):
        return [list(sentence.encode()) for sentence in sentences]


def lines_of(figure):
    """{(key, query): opacity} of the lines from key to query, head by head in one list."""
    [axes] = figure.axes
    return [
        (line.get_ydata()[0], line.get_ydata()[1], line.get_alpha(), line.get_color())
        for line in axes.lines
        if len(line.get_xdata())
    ]


def test_a_line_for_each_weight_of_the_heads_asked_for():
    weights = np.zeros((3, 2, 4))
    weights[0, 0, 3], weights[0, 0, 1], weights[0, 1, 2] = 0.75, 0.25, 1.0
    weights[2, 0, 0], weights[2, 1, 0] = 1.0, 0.01  # the last too faint to be drawn
    weights[1] = 0.25  # of a head that was not asked for
    figure = figures.attention(weights, ["x", "y"], ["a", "b", "c", "d"], [0, 2], "title")
    lines = lines_of(figure)
    assert sorted((key, round(query), alpha) for key, query, alpha, _ in lines) == [
        (0, 0, 1.0),
        (1, 0, 0.25),
        (2, 1, 1.0),
        (3, 0, 0.75),
    ]
    assert len({colour for *_, colour in lines}) == 2
    texts = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert [texts[piece][1] for piece in "abcd"] == [0, 1, 2, 3]
    assert texts["a"][0] < 0 < 1 < texts["x"][0]


def test_a_heat_map_of_each_head_asked_for():
    weights = np.random.default_rng(1).random((6, 2, 3))
    figure = figures.heat_maps(weights, ["x", "y"], ["a", "b", "c"], [0, 1, 2, 5, 3], "title")
    maps = {axes.get_title(): axes for axes in figure.axes if axes.images}
    assert list(maps) == ["head 0", "head 1", "head 2", "head 5", "head 3"]
    for head in (0, 1, 2, 5, 3):
        np.testing.assert_array_equal(maps[f"head {head}"].images[0].get_array(), weights[head])
    assert [text.get_text() for text in maps["head 0"].get_yticklabels()] == ["x", "y"]
    assert [text.get_text() for text in maps["head 3"].get_xticklabels()] == ["a", "b", "c"]


@pytest.mark.parametrize("draw", [figures.attention, figures.heat_maps])
def test_a_dollar_begins_no_formula(draw):
    pieces = ["$$", "$\\nothing$", "\\$", "US$5$"]
    figure = draw(np.full((2, 4, 4), 0.25), pieces, pieces, [0, 1], "cost$$")
    figure.savefig(io.BytesIO(), format="svg")
    texts = [text for text in figure.findobj(lambda one: hasattr(one, "get_parse_math")) if "$" in text.get_text()]
    assert {*pieces, "cost$$"} == {text.get_text() for text in texts}
    assert not any(text.get_parse_math() for text in texts)


def test_the_sentence_is_cut_as_the_training_text_is(tmp_path, monkeypatch):
    """Without the blanks around it, which are subwords of their own; what cannot be translated is refused."""
    found, config = [], tiny.config(model__positions="none")
    opened = trained_model.OpenedModel(config, ({},), Letters())
    monkeypatch.setattr(trained_model, "open_model", lambda run, options: opened)

    def attention(config, params, vocabulary, sentence, kind, layer):
        found.append(sentence)
        return np.ones((config.model.num_heads, 1, 1)), ["x"], ["x"]

    monkeypatch.setattr(figures, "_attention", attention)
    figures.draw(RunDir(tmp_path), " two\u3000thousand \n", "encoder", -1, None, tmp_path)
    assert found == ["two\u3000thousand"]
    for sentence, why in (
        (" \u3000", "--sentence is empty"),
        ("a" * 8192, "--sentence: source of 8193 tokens, .* a sentence has 8192 tokens at most"),
        ("a" * 70_000, "--sentence has 70,000 characters"),
    ):
        with pytest.raises(UserError, match=why):
            figures.draw(RunDir(tmp_path), sentence, "encoder", -1, None, tmp_path)


def test_the_curve_of_the_learning_rate():
    rates = np.array([0.1, 0.2, 0.15])
    axes = figures.learning_rate(rates, 2).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1, 0.1], [2, 0.2], [3, 0.15]])
    assert list(axes.lines[1].get_xdata()) == [2, 2]
    assert len(figures.learning_rate(rates, 9).axes[0].lines) == 1  # it never ends


def test_the_table_of_sinusoids():
    table = np.arange(6.0).reshape(3, 2) / 6
    image = figures.sinusoids(table).axes[0].images[0]
    np.testing.assert_array_equal(image.get_array(), table)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file.*; choose another --out"):
        figures._write({"x": figures.sinusoids(np.zeros((2, 2)))}, tmp_path / "file" / "folder")

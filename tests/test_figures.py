"""Pictures: what they draw is what they are given."""

import numpy as np
import pytest

from experiments.analysis import figures
from tx.errors import UserError


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

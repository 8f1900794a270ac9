"""Table 1, measured at small lengths: exponents and paths are those of the formulas."""

import json
import pathlib
import re

import pytest

from experiments import __main__ as command
from experiments.analysis import layer_costs

COMMITTED = pathlib.Path(__file__).parent.parent / "experiments" / "results" / "table1.json"
LENGTHS = [4, 9, 16, 28, 64]
each_layer = pytest.mark.parametrize("layer", layer_costs.LAYERS, ids=lambda layer: layer.kind)


@pytest.fixture(scope="module")
def measured():
    return json.loads(COMMITTED.read_text())


@pytest.fixture(scope="module")
def measured_now():
    return layer_costs.measure(LENGTHS, say=lambda line: None)


@each_layer
def test_what_is_committed_agrees_with_the_formulas(measured, layer):
    one = measured["layers"][layer.kind]
    assert one["n"] == list(layer_costs.LENGTHS)
    assert one["path"] == [layer.path_of(n) for n in one["n"]]
    assert layer_costs.fit(one, "flops") == pytest.approx(layer.exponents[0], abs=0.15)
    assert layer_costs.fit(one, "chain") == pytest.approx(layer.exponents[1], abs=0.15)


@pytest.mark.slow
@each_layer
def test_what_was_measured_is_what_the_paper_states(measured_now, measured, layer):
    one, committed = measured_now["layers"][layer.kind], measured["layers"][layer.kind]
    assert one["path"] == [layer.path_of(n) for n in LENGTHS]
    long = [n >= layer_costs.NEIGHBOURHOOD for n in LENGTHS]  # shorter ones a neighbourhood covers
    lengths, flops, chain = (
        [value for value, keep in zip(one[key], long, strict=True) if keep] for key in ("n", "flops", "chain")
    )
    assert layer_costs.exponent(lengths, flops) == pytest.approx(layer.exponents[0], abs=0.15)
    assert layer_costs.exponent(lengths, chain) == pytest.approx(layer.exponents[1], abs=0.15)
    assert all(seconds > 0 for seconds in one["seconds"])
    for key in ("flops", "chain", "path"):
        known = dict(zip(committed["n"], committed[key], strict=True))
        assert [known[n] for n in (16, 64)] == [one[key][LENGTHS.index(n)] for n in (16, 64)]


def test_exponents():
    assert layer_costs.exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)
    assert layer_costs.exponent([1, 10, 100], [7, 7, 7]) == pytest.approx(0)


@pytest.mark.parametrize("lengths", [[4, 9], [4, 9, 16]])
def test_of_few_lengths_time_is_fitted_through_two_of_them(lengths):
    assert layer_costs.fit({"n": lengths, "seconds": [n**2 for n in lengths]}, "seconds") == pytest.approx(2)


def test_the_table_says_where_a_path_is_not_the_formulas(measured):
    table = layer_costs.build(measured)
    titles = [column.title for column in table.columns]
    rows = {row[0]: dict(zip(titles, row, strict=True)) for row in table.rows}
    assert [row["so measured"] for row in rows.values()] == ["yes"] * 5
    assert rows["self-attention"]["operations measured"] == "n^2.00"
    wrong = json.loads(json.dumps(measured))
    wrong["layers"]["dilated"]["path"][-1] += 1
    assert dict((row[0], row[8]) for row in layer_costs.build(wrong).rows)["convolutional, dilated"] == "no"


def test_the_plot_has_the_exponents_of_the_table(measured):
    """Of short sentences a longer one may take less time: that exponent is below zero in both."""
    shorter = json.loads(json.dumps(measured))
    shorter["layers"]["local"]["seconds"] = [1 / n for n in shorter["layers"]["local"]["n"]]
    figure = layer_costs.plot(shorter)
    drawn = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    rows = layer_costs.build(shorter).rows
    for column, legend in ((2, 0), (4, 1), (10, 3)):
        assert [f"${row[column].replace('^', '^{')}}}$" for row in rows] == drawn[legend]
    assert drawn[3][-1] == "$n^{-1.00}$"
    assert drawn[1][0] == "$n^{0.00}$"


def test_the_command_writes_table_and_plot(tmp_path, monkeypatch, measured, capsys):
    monkeypatch.setattr(layer_costs, "measure", lambda lengths, say: measured)
    assert command.main(["table1", "--lengths=4,9", f"--out={tmp_path / 'made'}"]) == 0
    names = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert names == [f"table1.{form}" for form in ("csv", "json", "md", "png", "svg", "tex")]
    assert json.loads((tmp_path / "made" / "table1.json").read_text()) == measured
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table: table1@measured -->\nold\n<!-- end table -->\n")
    (tmp_path / "made" / "table3@smoke").mkdir()
    renew = ["report", str(tmp_path / "made"), "--readme", str(readme)]
    assert command.main([*renew, "--check"]) == 1
    assert command.main(renew) == 0
    assert re.search(r"\| self-attention +\| O\(n\^2 d\) +\| +n\^2\.00", readme.read_text())
    with pytest.raises(SystemExit):
        command.main(["table1", "--lengths=1,9", f"--out={tmp_path}"])
    assert "a sentence of 1 has no path" in capsys.readouterr().err

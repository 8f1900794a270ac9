"""Effects of a sweep beside each other at several scales."""

import csv
import math

import pytest
from fabricated import cells, put

from experiments import __main__ as command
from experiments.report import agreement_figure, differences_table, noise, pictures, reading, summary_table, transfer
from experiments.report.metrics import NLL

EFFECTS = {"smoke": {"relu": 0.0, "gelu": 0.1, "none": 0.9}, "multi30k": {"relu": 0.0, "gelu": -0.3, "none": 0.001}}


def fill(folder):
    for scale, effects in EFFECTS.items():
        for row, effect in effects.items():
            for seed, shift in enumerate((-0.01, 0.0, 0.01), 1):
                put(folder, f"feed_forward/{row}@{scale}", seed, ppl=math.exp(1 + effect + shift))


def test_each_rows_effect_with_its_interval_at_each_scale(tmp_path, capsys):
    fill(tmp_path / "runs")
    put(tmp_path / "runs", "table3/base@smoke", 1)
    assert command.main(["transfer", "feed_forward", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "multi30k and smoke: tau-b +0.33 over 3 rows, base one of them; of 1 told from base at both 0 on" in printed
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"feed_forward.transfer.{form}" for form in ("md", "csv", "tex", "json", "svg", "png")}
    found = [one for one in reading.read([tmp_path / "runs"]) if one.sweep.name == "feed_forward"]
    shown = cells(transfer.build(found))
    assert (shown["gelu"]["multi30k"], shown["gelu"]["smoke"]) == ("-0.3000", "+0.1000")
    assert (shown["none"]["multi30k"], shown["none"]["smoke"]) == ("(+0.0010)", "+0.9000")
    with (tmp_path / "out/feed_forward.transfer.csv").open(newline="") as file:
        records = {record["row"]: record for record in csv.DictReader(file)}
    for one in found:
        for row, interval in noise.intervals(one, NLL).items():
            ends = [float(records[row][f"{one.scale.label}_{end}"]) for end in ("difference", "low", "high")]
            assert ends == pytest.approx(list(interval))
    assert pictures.svg(transfer.figure(found)) == (tmp_path / "out/feed_forward.transfer.svg").read_text()


def test_the_papers_differences_stand_beside_ours(tmp_path):
    for row, ppl in (("base", 3.0), ("big", 2.0)):
        put(tmp_path, f"table3/{row}@smoke", 1, ppl=ppl)
    table = transfer.build(reading.read([tmp_path]))
    row = cells(table)["big"]
    assert row["paper"] == f"{math.log(4.33 / 4.92):+.4f}"
    assert (row["smoke"], row["smoke 95%"]) == (f"{math.log(2 / 3):+.4f}", "")  # of one seed nothing tells the noise
    assert "At smoke nothing tells the noise of every row: the difference is shown as it is." in table.notes
    assert "x: noise unknown" in pictures.svg(transfer.figure(reading.read([tmp_path])))
    (found,) = reading.read([tmp_path])
    assert differences_table.UNKNOWN in summary_table.build(found).notes
    assert "noise unknown" in pictures.svg(agreement_figure.figure(found))


@pytest.mark.parametrize(("sweep", "said"), [("tabel3", "unknown sweep 'tabel3'"), ("table3", "no results of table3")])
def test_what_is_not_there_is_an_error(tmp_path, capsys, sweep, said):
    put(tmp_path, "table3/big@smoke", 1)
    with pytest.raises(SystemExit) as ended:
        command.main(["transfer", sweep, str(tmp_path)])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err

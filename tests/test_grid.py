"""Grids of a launch, read as grids: axes, the best point and its rivals, table, picture."""

import argparse
import dataclasses
import json
import math
import random

import fabricated
import numpy as np
import pytest
from fabricated import cells

from experiments import __main__ as command
from experiments.report import grid, grid_figure, grid_table, main_table, noise, reading, tables
from launch import plan, request
from launch.plan import selection
from tx import config as config_lib
from tx.errors import UserError


def launched(workdir, *argv, ppl, seeds=3, bleu=lambda point, seed: 30.0, data=None):
    """A launch with results made up by functions of each run's configuration and seed; None leaves one out."""
    parser = argparse.ArgumentParser()
    selection.add_arguments(parser)
    given = ("table3@smoke", "--only=base", f"--seeds={seeds}", f"--workdir={workdir}", *argv)
    args = parser.parse_intermixed_args(given)
    runs = plan.make(args)
    request.remember(args, runs)
    for run in runs:
        value = ppl(run.config, run.config.train.seed)
        if value is not None:
            run.folder.create()
            score = bleu(run.config, run.config.train.seed)
            result = fabricated.result_of(run.config.to_dict(), value, score)
            run.folder.result.write_text(json.dumps(result | ({"data": data(run.config)} if data else {})))
    (found,) = reading.read([workdir])
    return found


def noisy(center, seed, size=0.02):
    return center + size * (seed - 2)


def one_axis(workdir):
    """h of 1 to 16: 4 is best, 8 inside its noise."""
    of = {1: 6.0, 2: 5.5, 4: 5.0, 8: 5.01, 16: 5.3}
    return launched(
        workdir, "--grid=model.num_heads=16,8,4,2,1", ppl=lambda config, seed: noisy(of[config.model.num_heads], seed)
    )


def two_axes(workdir, **options):
    return launched(
        workdir,
        "--grid=model.num_layers=2,3,4",
        "--grid=model.dropout=0.0,0.1",
        ppl=lambda config, seed: noisy(6 - 0.5 * config.model.num_layers + config.model.dropout, seed),
        **options,
    )


def test_a_grid_of_one_field_is_an_axis_in_order(tmp_path):
    found = one_axis(tmp_path)
    (one,) = grid.of(found)
    assert one.variant == "base"
    assert one.axes == (grid.Axis(("model.num_heads",), ((1,), (2,), (4,), (8,), (16,))),)
    best = one.best("PPL")
    assert best.row == "base+num_heads=4"
    assert math.exp(best.low) < 5.0 < math.exp(best.high)
    assert [name for name in best.differences if best.is_close(name)] == ["base+num_heads=8"]
    table = grid_table.build(found)
    assert [row[1] for row in table.rows] == ["1", "2", "4", "8", "16"]
    shown = {row[1]: row[2] for row in table.rows}
    assert (shown["4"], shown["8"]) == ("5.00 ± 0.02 best", "5.01 ± 0.02")
    assert [row[1] for row in table.rows if row[3].startswith("(")] == ["8"]
    assert any(
        note.startswith("base: best PPL at num_heads=4, 5.00 [4.") and note.endswith("its noise: num_heads=8.")
        for note in table.notes
    )
    records = {record["model.num_heads"]: record for record in table.records}
    assert records[4]["ppl_is_best"]
    assert (records[8]["ppl_inside_noise_of_best"], records[1]["ppl_inside_noise_of_best"]) == (True, False)


@pytest.mark.parametrize(
    ("seeds_of_best", "apart", "said"),
    [
        (2, 0.02, "inside its noise: no other point."),
        (1, 0.02, "nothing tells what is inside its noise: that needs two seeds of it or more."),
        (2, 0.0, "nothing tells the noise: nothing varies between seeds."),
    ],
)
def test_why_nothing_is_held_against_the_best(tmp_path, seeds_of_best, apart, said):
    def ppl(config, seed):
        best = config.model.num_heads == 4
        return None if best and seed > seeds_of_best else noisy(5.0 if best else 6.0, seed, apart)

    found = launched(tmp_path, "--grid=model.num_heads=4,8", ppl=ppl, seeds=2)
    (one,) = grid.of(found)
    told = grid.told(one, "PPL")
    assert told.startswith("base: best PPL at num_heads=4, ")
    assert told.endswith(f"; {said}")


def test_points_that_scatter_unevenly_are_said_to(tmp_path):
    size = {2: 0.001, 4: 0.001, 8: 0.5}

    def ppl(config, seed):
        return noisy(5.0, seed, size[config.model.num_heads])

    found = launched(tmp_path, "--grid=model.num_heads=2,4,8", ppl=ppl)
    said = "base: points scatter unevenly between seeds (Bartlett's test) in log PPL, by 0.0002 to 0.1. The intervals"
    assert [note.startswith(said) for note in grid_table.build(found).notes if "scatter" in note] == [True]


def test_points_are_held_against_those_of_their_own_grid_in_size(tmp_path):
    launched(tmp_path, "--grid=model.attention_dropout=0.0,0.1", ppl=lambda config, seed: 5.0, seeds=1)
    found = launched(tmp_path, "--grid=model.d_ff=128,1024", ppl=lambda config, seed: 5.0, seeds=1)
    (note,) = [note for note in main_table.build(found).notes if "differ in size" in note]
    assert note.startswith("Points differ in size: base with d_ff varied, all else fixed: ")


def test_a_point_without_a_field_that_it_does_not_read_is_of_its_grid(tmp_path):
    """Sinusoids have no table, whose length the other axis is; learned positions have one."""
    axes = ("--grid=model.positions=sinusoidal,learned", "--grid=model.max_positions=4000,5000")
    found = launched(tmp_path, *axes, ppl=lambda config, seed: 5.0, seeds=1)
    (note,) = [note for note in main_table.build(found).notes if "differ in size" in note]
    wanted = "base with positions, max_positions varied, all else fixed: 534K to 1.17M parameters"  # d_model 64
    assert note.startswith(f"Points differ in size: {wanted}")


def test_the_points_of_a_grid_are_one_group(tmp_path):
    table = fabricated.build(one_axis(tmp_path))
    assert set(table.groups) == {"base"}
    assert tables.to_latex(table).count("midrule") == 1


def test_the_interval_of_the_best_is_students(tmp_path):
    """By hand: seeds spread by 0.02 nats in every point, so that the pooled spread is that, of 2 * 3 degrees."""
    found = launched(
        tmp_path,
        "--grid=model.num_heads=2,4,8",
        ppl=lambda config, seed: math.exp(noisy(1.0 if config.model.num_heads == 4 else 1.5, seed)),
    )
    (one,) = grid.of(found)
    best = one.best("PPL")
    half = 2.446912 * 0.02 / math.sqrt(3)  # t of 6 degrees at 97.5%
    assert (best.mean, best.low, best.high) == pytest.approx((1.0, 1.0 - half, 1.0 + half), rel=1e-6)


def test_fields_that_go_together_are_one_axis(tmp_path):
    found = launched(
        tmp_path,
        "--grid=model.num_heads,model.d_k=2:64,4:32,8:16",
        "--grid=model.norm=pre",
        ppl=lambda config, seed: noisy(config.model.num_heads, seed),
    )
    (one,) = grid.of(found)
    assert [(axis.fields, axis.values) for axis in one.axes] == [
        (("model.num_heads", "model.d_k"), ((2, 64), (4, 32), (8, 16)))
    ]
    assert one.axes[0].title == "h, d_k"


def test_two_axes_are_a_pivot_and_the_field_in_the_columns_can_be_chosen(tmp_path):
    found = two_axes(tmp_path)
    table = grid_table.build(found)
    assert [c.title for c in table.columns] == [
        *("N", "PPL P_drop=0.0", "PPL P_drop=0.1", "BLEU P_drop=0.0", "BLEU P_drop=0.1")
    ]
    assert [row[:3] for row in table.rows] == [
        ("2", "5.00 ± 0.02", "5.10 ± 0.02"),
        ("3", "4.50 ± 0.02", "4.60 ± 0.02"),
        ("4", "4.00 ± 0.02 best", "4.10 ± 0.02"),
    ]
    for pivot in ("model.num_layers", "N"):
        other = cells(grid_table.build(found, pivot))
        assert other["0.0"]["PPL N=4"] == "4.00 ± 0.02 best"
        assert list(other) == ["0.0", "0.1"]
    with pytest.raises(UserError, match=r"--pivot=h: is no axis of it; the axes are model.num_layers, model.dropout"):
        grid_table.build(found, "h")
    assert len(table.records) == 6


def test_three_axes_and_a_point_that_failed(tmp_path):
    found = launched(
        tmp_path,
        "--grid=model.num_layers=2,3",
        "--grid=model.dropout=0.0,0.1,0.2",
        "--grid=model.num_heads=4,8",
        seeds=1,
        ppl=lambda config, seed: None if config.model.num_layers == 2 and config.model.dropout == 0.1 else 5.0,
    )
    table = grid_table.build(found)
    assert [c.title for c in table.columns][:4] == ["N", "P_drop", "PPL h=4", "PPL h=8"]
    assert [row[:2] for row in table.rows] == [(n, p) for n in "23" for p in ("0.0", "0.1", "0.2")]
    assert [row[2] for row in table.rows][:3] == ["5.00 best", "missing", "5.00"]
    assert any("nothing tells the noise" in note for note in table.notes)
    assert grid_figure.drawable(found) == []
    for render in (tables.to_markdown, tables.to_csv, tables.to_latex, tables.to_json):
        assert render(table)


def test_grids_of_other_axes_have_a_line_a_point(tmp_path):
    def ppl(config, seed):
        return noisy(5.0 + config.model.dropout, seed)

    launched(tmp_path, "--grid=model.num_heads=4,8", ppl=ppl)
    found = launched(tmp_path, "--grid=model.dropout=0.2,0.3", ppl=ppl)
    assert [[axis.title for axis in one.axes] for one in grid.of(found)] == [["h"], ["P_drop"]]
    table = grid_table.build(found)
    assert [row[:3] for row in table.rows] == [
        *(("base", "4", ""), ("base", "8", ""), ("base", "", "0.2"), ("base", "", "0.3"))
    ]
    with pytest.raises(UserError, match="needs grids of the same axes"):
        grid_table.build(found, "h")


def test_what_a_report_writes_of_a_grid(tmp_path, capsys):
    two_axes(tmp_path, bleu=lambda config, seed: noisy(30 + config.model.num_layers, seed))
    assert command.main(["report", str(tmp_path), "--pivot=N"]) == 0
    printed = capsys.readouterr().out
    assert "table3@smoke: grid." in printed
    assert "P_drop" in printed
    fabricated.put(tmp_path / "plain", "table3/base@smoke", 1)
    with pytest.raises(SystemExit):
        command.main(["report", str(tmp_path / "plain"), "--pivot=N"])
    assert capsys.readouterr().err == "error: --pivot=N: there is no grid here\n"
    folder = tmp_path / "table3@smoke"
    assert (folder / "grid.png").read_bytes().startswith(b"\x89PNG")
    picture = (folder / "grid.svg").read_text()
    assert ">4.00<" in picture
    told = json.loads((folder / "grid.json").read_text())
    assert {(row["model.num_layers"], row["model.dropout"]) for row in told["rows"]} == {
        (n, p) for n in (2, 3, 4) for p in (0.0, 0.1)
    }


def test_a_point_that_diverged_far_leaves_table_picture_and_page(tmp_path, capsys):
    """It is not the best by the seed that did not."""

    def ppl(config, seed):
        return 1e300 if (config.model.num_heads, seed) == (8, 2) else noisy(5.0, seed)

    found = launched(tmp_path, "--grid=model.num_heads=4,8", ppl=ppl, seeds=2)
    assert grid.told(grid.of(found)[0], "PPL").startswith("base: best PPL at num_heads=4, 4.99 [4.86, 5.12]; no ")
    assert command.main(["report", str(tmp_path), "--html"]) == 0
    assert "best PPL at num_heads=4" in " ".join(capsys.readouterr().out.split())
    folder = tmp_path / "table3@smoke"
    assert {"grid.png", "grid.md", "report.html"} <= {path.name for path in folder.iterdir()}


def test_a_curve_has_a_band_and_marks_the_best(tmp_path):
    found = one_axis(tmp_path)
    figure = grid_figure.draw(found)
    ppl, bleu = figure.axes
    assert (ppl.get_xlabel(), ppl.get_xscale()) == ("h", "log")
    assert [tick.get_text() for tick in ppl.get_xticklabels()] == ["1", "2", "4", "8", "16"]
    band = ppl.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((4.98, 6.02))
    rings = [line for line in ppl.lines if line.get_color() == "C3"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in rings] == [(4.0, pytest.approx(5.0))]
    hollow = [line for line in ppl.lines if line.get_markerfacecolor() == "white"]
    assert [line.get_xdata()[0] for line in hollow] == [8.0]
    assert bleu.get_title() == "base: BLEU"


def test_the_points_inside_the_noise_of_the_best_hold_the_best_as_often_as_is_said():
    """Simulated seeds of five points, two of them equally good: how often the set misses a point that is truly best."""
    rng, missed, found = np.random.default_rng(random.Random(1).randrange(2**32)), 0, 400
    truth = {"a": 0.0, "b": 0.0, "c": 0.3, "d": 1.0, "e": 2.0}
    sizes = []
    for _ in range(found):
        samples = {name: list(mean + rng.normal(size=4)) for name, mean in truth.items()}
        best = min(samples, key=lambda name: sum(samples[name]))
        others = {name: values for name, values in samples.items() if name != best}
        intervals = noise.compare(samples[best], others).intervals
        close = {best, *(name for name, one in intervals.items() if not one.sign)}
        missed += "a" not in close
        sizes.append(len(close))
    assert missed / found <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / found)
    assert 1 < sum(sizes) / found < 5  # it leaves something out


def test_a_table_tells_of_rows_and_points_what_their_runs_were(tmp_path):
    """`big` trains longer than base, so that it is evaluated and saved less often: told where a grid asks for it."""
    launched(tmp_path, "--only=big", ppl=lambda config, seed: 5.0)
    found = launched(tmp_path, "--only=big", "--grid=train.eval_every=450,900", ppl=lambda config, seed: 5.0)
    ran = [config_lib.fields(row.results[0].config) for row in found.shown]
    records = main_table.build(found).records
    told = [{field: value for field, value in record.items() if field in ran[0]} for record in records]
    assert told == [{field: config[field] for field in told[0]} for config in ran]
    assert {"train.eval_every", "train.steps"} < set(told[0])
    assert "train.checkpoint_every" not in told[0]
    points = {row.label: row.diff.get("train.eval_every") for row in found.shown if row.asked.point}
    assert points == {f"{name}+eval_every={every}": every for name in ("base", "big") for every in (450, 900)}


def test_a_row_is_said_to_train_longer_where_others_are_shown(tmp_path):
    both = launched(tmp_path, "--only=big", "--grid=decode.beam=1,2", ppl=lambda config, seed: 5.0, seeds=1)
    alone = dataclasses.replace(both, only=("big*",))
    assert len(alone.shown) == len(both.shown) // 2
    notes = [[note for note in main_table.build(found).notes if "times as long" in note] for found in (alone, both)]
    assert notes == [[], ["big: trained 3 times as long as the others, as in the paper (steps: 2,250)."]]


def test_a_row_is_not_said_to_train_longer_where_all_were_given_their_steps(tmp_path):
    found = launched(tmp_path, "--only=base,big", "--set=train.steps=500", ppl=lambda config, seed: 5.0, seeds=1)
    assert {row.results[0].train.steps for row in found.shown} == {500}
    assert not [note for note in main_table.build(found).notes if "times as long" in note]

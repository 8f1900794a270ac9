"""A launch remembers what it was asked for, and what reads its folder judges by that: grids, seeds, rows, imports."""

import argparse
import functools
import json
import os
import pathlib

import fabricated
import pytest
from fabricated import cells, put, table_of

from experiments import __main__ as command
from experiments import launches, registry
from experiments.report import compare, main_table, reading, summary_table, tables
from launch import assignments, local, plan, request, status, tuning, worker
from launch.plan import selection
from tx import components, decode, evaluate, plugins
from tx.errors import UserError
from tx.fields import SHARE, Field
from tx.model import flops
from tx.runs import imports
from tx.runs.run_dir import RunDir

SWEEP = """
from experiments.registry import Sweep, Variant, register

register(Sweep(name="{name}", base={{}}, doc="Mine", variants=(Variant("base"), Variant("x", {{"model.norm": "pre"}}))))
"""


@pytest.fixture(autouse=True)
def _nothing_imported(monkeypatch, tmp_path):
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_SWEEPS", dict(registry._SWEEPS))


def arguments(*argv):
    parser = argparse.ArgumentParser()
    selection.add_arguments(parser)
    return parser.parse_intermixed_args(argv)


def launched(workdir, *argv, done=lambda run: True):
    """The runs of a launch as it leaves them, those `done` with a result; nothing is trained."""
    args = arguments(*argv, f"--workdir={workdir}")
    runs = plan.make(args)
    request.remember(args, runs)
    for run in runs:
        if done(run):
            run.folder.create()
            result = fabricated.result_of(run.config.to_dict(), ppl=4 + run.config.model.num_heads / 10)
            run.folder.result.write_text(json.dumps(result))
    return runs


def tuned(workdir, *argv):
    """Leaves the grid of a tuning as `launched` does."""
    args = arguments(*argv, f"--workdir={workdir}")
    grid, _ = tuning.stages(args)
    request.remember(args, grid.plan())
    grid.begun()
    for run in grid.plan():
        run.folder.create()
        run.folder.result.write_text(json.dumps(fabricated.result_of(run.config.to_dict())))


# What was asked for


def test_rows_are_what_they_were_launched_as(tmp_path):
    launched(tmp_path, "table3@smoke", "--only=base,C/N=2", "--set=train.steps=7", "--set=parallel.threads=2")
    found = table_of(tmp_path)
    assert {row: told["runs"] for row, told in cells(found).items()} == {"base": "done", "C/N=2": "done"}
    assert "steps" not in cells(found)["base"]  # no row differs in it
    assert "Launched with --set train.steps=7: every row." in found.notes


def test_another_meaning_of_the_name_is_stale_still(tmp_path):
    base, _ = launched(tmp_path, "table3@smoke", "--only=base,C/N=2", "--set=train.steps=7")
    value = base.folder.read("result")
    value["config"]["train"]["steps"] = 8
    base.folder.result.write_text(json.dumps(value))
    found = table_of(tmp_path)
    assert [told["runs"] for told in cells(found).values()] == ["done, stale [1]", "done"]
    assert "[1] Stale: train.steps was 8, is now 7." in found.notes


def test_without_the_record_rows_are_what_their_names_say(tmp_path):
    launched(tmp_path, "table3@smoke", "--only=base", "--set=train.steps=7")
    (tmp_path / "table3@smoke" / "launch.json").unlink()
    found = cells(table_of(tmp_path))
    assert len(found) == len(registry.variants("table3"))
    assert (found["base"]["runs"], found["big"]["runs"]) == ("done, stale [1]", "missing")


def test_status_calls_nothing_stale_that_was_asked_for_so(tmp_path):
    rows = ("base", "C/N=2", "E", "big")
    runs = launched(
        tmp_path, "table3@smoke", f"--only={','.join(rows)}", "--set=train.steps=7", done=lambda run: "base" in run.name
    )
    runs[1].hand_over()
    for run in runs[1:3]:
        run.hand_over()
        run.folder.config.write_text(json.dumps(run.folder.read("config") | {"code": "abc"}))
    runs[2].folder.error.write_text(json.dumps({"error": "no loss today"}))
    found = {run.name.partition("/")[2]: run.state.name for run in status.find(tmp_path)}
    wanted = {"base": "done", "C/N=2": "interrupted", "E": "failed", "big": "pending"}
    assert found == {f"{name}@smoke": state for name, state in wanted.items()}


def test_launches_into_one_folder_add_up(tmp_path):
    launched(tmp_path, "table3@smoke", "--only=base,E", "--seeds=2", "--set=train.steps=7")
    launched(tmp_path, "table3@smoke", "--only=E,big", "--seeds=3,", done=lambda run: "E" in run.name)
    (found,) = reading.read([tmp_path])
    wanted = {row.variant.name: found.seeds(row) for row in found.shown}
    assert wanted == {"base": [1, 2], "E": [1, 2, 3], "big": [3]}
    table = cells(main_table.build(found))
    assert (table["big"]["runs"], table["base"]["runs"]) == ("missing", "2 done")
    assert table["E"]["runs"] == "3 done, 2 stale [1]"  # of a row asked for in two ways the newer counts
    launched(tmp_path, "table3@smoke", "--only=E,big", "--seeds=3,")
    told = json.loads((tmp_path / "table3@smoke" / "launch.json").read_text())
    assert [one["seeds"] for one in told["launches"]] == ["2", "3,"]  # what is launched again is one launch


def test_a_wider_grid_stands_in_its_order(tmp_path):
    launched(tmp_path, "table3/base@smoke", "--grid=model.num_heads=1,4")
    launched(tmp_path, "table3/base@smoke", "--grid=model.num_heads=1,2,4")
    (found,) = reading.read([tmp_path])
    assert [row.label for row in found.shown] == ["base", *(f"base+num_heads={h}" for h in (1, 2, 4))]


def test_a_launch_writes_it_before_anything_starts(tmp_path, monkeypatch):
    seen = []

    def launch(runs, *_):
        seen.append(json.loads((tmp_path / "table3@smoke" / "launch.json").read_text()))
        return worker.Tally()

    monkeypatch.setattr(local, "launch", launch)
    argv = ["table3@smoke", "--only=base", "--set=train.steps=7", f"--workdir={tmp_path}"]
    assert local.main(argv, prepare=lambda runs: None, report=lambda folders: None) == 0
    assert [one["row"] for one in seen[0]["rows"]] == ["base"]
    assert seen[0]["launches"][0]["set"] == ["train.steps=7"]


def test_a_tuning_asks_for_its_points_alone(tmp_path):
    tuned(tmp_path, "table3@smoke", "--only=base", "--tune=optim.lr_factor=1,2", "--set=train.steps=7")
    (found,) = reading.read([tmp_path])
    assert found.shown == ()
    assert [(row.variant.name, [run.stale for run in row.runs]) for row in found.points] == [
        ("base+lr_factor=1", [()]),
        ("base+lr_factor=2", [()]),
    ]
    assert command.main(["report", str(tmp_path)]) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_points_of_a_grid_stay_in_the_table_when_they_are_tuned_too(tmp_path, order):
    grid = functools.partial(launched, tmp_path, "table3/base@smoke", "--grid=optim.lr_factor=0.5,1,2", "--seeds=2")
    tune = functools.partial(tuned, tmp_path, "table3@smoke", "--only=base,E", "--tune=optim.lr_factor=0.5,1,4")
    for launch in (grid, tune)[::order]:
        launch()
    (found,) = reading.read([tmp_path])
    points = [f"base+lr_factor={value}" for value in ("0.5", "1", "2")]
    assert sorted(row.label for row in found.shown) == ["base", *points]
    assert found.axes == ("optim.lr_factor",)
    assert [found.seeds(row) for row in found.shown] == [[1, 2]] * 4
    tried = [f"{row}+lr_factor={value}" for row in ("E", "base") for value in ("0.5", "1", "4")]
    assert sorted(row.variant.name for row in found.points) == tried
    every = [row.variant.name for row in found.all_rows]
    assert sorted(every) == sorted({"base", *points, *tried})  # each once
    assert command.main(["report", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"imports": [], "launches": [], "rows": [{}]}', '{"imports": [3], "launches": [], "rows": []}']
    + [
        json.dumps({"imports": [], "launches": [], "rows": [{"row": "x", "variant": "base", "seeds": [1]} | one]})
        for one in ({"point": [[[], 1]], "set": []}, {"point": [["a", {}]], "set": []}, {"point": [], "set": 3})
    ],
)
def test_a_damaged_record_is_named(tmp_path, text):
    run = put(tmp_path, "table3/base@smoke", 1)
    (tmp_path / "table3@smoke" / "launch.json").write_text(text)
    with pytest.raises(UserError, match=r"launch\.json is damaged; delete it and launch again: the runs stay"):
        reading.read([tmp_path])
    imports.recall([tmp_path, run])


def test_a_record_that_is_no_file_is_not_waited_for(tmp_path):
    put(tmp_path, "table3/base@smoke", 1)
    os.mkfifo(tmp_path / "table3@smoke" / "launch.json")
    imports.recall([tmp_path])
    with pytest.raises(UserError, match="is damaged"):
        reading.read([tmp_path])


def test_a_row_that_cannot_be_any_more_has_no_meaning(tmp_path):
    launched(tmp_path, "table3/base@smoke", "--grid=model.num_heads=2")
    file = tmp_path / "table3@smoke" / "launch.json"
    file.write_text(file.read_text().replace('"model.num_heads"', '"model.gone"'))
    (found,) = reading.read([tmp_path])
    assert [run.stale for row in found.shown for run in row.runs] == [(), ()]


# Grids


def test_zipped_axes_are_one_axis():
    zipped = "--grid=model.num_heads,model.d_k=1:64,2:32,4:16"
    runs = plan.make(arguments("table3/base@smoke", zipped, "--grid=model.dropout=0.1,0.3", "--only=base+*"))
    got = [(run.config.model.num_heads, run.config.model.d_k, run.config.model.dropout) for run in runs]
    assert got == [(h, d, p) for h, d in ((1, 64), (2, 32), (4, 16)) for p in (0.1, 0.3)]
    assert runs[0].name == "table3/base+d_k=64,dropout=0.1,num_heads=1@smoke"


def test_a_colon_is_part_of_the_value_of_one_field():
    assert assignments.axes(["data.corpus=files:/a,files:/b"]) == [
        [{"data.corpus": "files:/a"}, {"data.corpus": "files:/b"}]
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--grid=model.num_heads,model.d_k=1:64,2"], "takes 2 values with a colon between them, such as X:Y; got '2'"),
        (["--grid=model.num_heads,model.d_k=1:2:3"], "takes 2 values"),
        (["--grid=model.d_k,model.d_k=1:2"], "model.d_k twice"),
        (["--grid=model.d_k,model.num_heads=1:2", "--grid=model.d_k=3"], "model.d_k twice"),
        (["--grid=model.d_k,model.num_heads=1:2", "--set=model.d_k=3"], "model.d_k is given to --set and to --grid"),
        (["--tune=model.d_k,model.num_heads=1:2"], "--tune takes FIELD=VALUE"),
        (["--match=params"], "is for the points of a grid"),
        (["--grid=model.d_ff=8,16", "--match=params"], "sets model.d_ff"),
        (["--grid=model.num_heads=1,2", "--set=model.d_ff=8", "--match=params"], "sets model.d_ff"),
        (["--grid=model.num_heads=300", "--match=params"], "no model.d_ff gives table3/base@smoke with h=300"),
        (["--grid=model.num_heads=2", "--set=model.feed_forward=none", "--match=params"], "no model.d_ff gives"),
        (["--seeds=0"], "at least 1"),
        (["--seeds=3,0"], "at least 1"),
        (["--seeds=,"], "takes a number"),
        (["--seeds=1-3"], "takes a number"),
        (["--seeds="], "takes a number"),
    ],
)
def test_what_no_grid_is(given, message):
    with pytest.raises(UserError, match=message):
        plan.make(arguments("table3/base@smoke", *given))


def test_a_row_that_sets_its_width_is_not_matched():
    with pytest.raises(UserError, match=r"sets model\.d_ff, which table3/C/d_ff=1024@smoke"):
        plan.make(arguments("table3/C/d_ff=1024@smoke", "--grid=model.num_heads=1", "--match=params"))


def test_matched_points_have_the_parameters_of_their_variant():
    names = ("table3/base@smoke", "table3/C/N=2@smoke")
    runs = plan.make(arguments(*names, "--grid=model.num_heads=1,2,4", "--set=model.d_k=8", "--match=params"))
    base, *others = runs
    assert "d_ff" not in base.name
    for run in others:
        variant = registry.get_config(run.registered, {"model.d_k": 8})
        assert abs(run.params - flops.parameter_count(variant.model)) <= 0.005 * run.params
        assert f"d_ff={run.config.model.d_ff}" in run.name
    assert len({run.config.model.d_ff for run in others}) == 3
    assert "parameters" not in request.differences(runs)
    unmatched = plan.make(arguments(*names, "--grid=model.num_heads=1,2,4"))
    note = request.differences(unmatched)
    sizes = [flops.parameter_count(run.config.model) for run in unmatched[1:4]]
    assert f"base with h varied, all else fixed: {sizes[0] / 1e3:.0f}K to {sizes[2] / 1e3:.0f}K parameters, " in note
    assert "C/N=2 with h varied" in note


def test_the_base_is_added_once_unless_rows_are_named():
    grid = "--grid=model.num_heads=1,2"
    both = plan.make(arguments("table3/E@smoke", "table3/C/N=2@smoke", "positions@smoke", grid))
    bases = [f"{one.name}/{one.variants[0].name}@smoke" for one in map(registry.sweep, ("table3", "positions"))]
    assert [run.name for run in both if not run.point] == bases
    assert all(run.point for run in plan.make(arguments("table3/E@smoke", grid, "--only=E*")))
    settings = plan.make(arguments("table3/E@smoke", grid, "--set=train.steps=7"))
    assert {run.config.train.steps for run in settings} == {7}


@pytest.fixture
def grid(tmp_path):
    launched(tmp_path, "table3/base@smoke", "--grid=model.num_heads,model.d_k=4:16,1:64,8:16", "--set=train.steps=7")
    return tmp_path


def test_every_form_names_the_points_by_columns_in_the_order_given(grid, monkeypatch, capsys):
    (found,) = reading.read([grid])
    table = main_table.build(found)
    assert [column.head for column in table.columns[:3]] == ["row", "h", "d_k"]
    points = [("8", "16"), ("4", "16"), ("1", "64"), ("8", "16")]  # base first, its values filled in
    assert [row[:3] for row in table.rows] == [("base", *point) for point in points]
    assert [row[-1] for row in table.rows] == ["done"] * 4
    deltas = [column.title for column in table.columns].index("ΔPPL")
    assert [row[deltas] for row in table.rows] == ["", "-0.40", "-0.70", "+0.00"]
    csv = tables.to_csv(table).splitlines()
    assert [tuple(line.split(",done,")[1].split(",")[2:4]) for line in csv[1:]] == points
    assert "| row  |   h | d_k |" in tables.to_markdown(table)
    assert "base & 1 & 64 & " in tables.to_latex(table)
    assert [column.title for column in summary_table.build(found).columns][:3] == ["row", "h", "d_k"]
    monkeypatch.setenv("COLUMNS", "60")
    assert command.main(["report", str(grid)]) == 0
    printed = capsys.readouterr().out
    assert any(line.split()[:3] == ["base", "1", "64"] for line in printed.splitlines())
    assert any("Points differ in size: base with h, d_k varied" in note for note in table.notes)


def test_other_tables_name_points_in_the_order_given(grid):
    (found,) = reading.read([grid])
    shown = ["base", "base+num_heads=4,d_k=16", "base+num_heads=1,d_k=64", "base+num_heads=8,d_k=16"]
    assert [row.label for row in found.shown] == shown
    assert [row[0] for row in compare.build(found, found).rows] == shown
    assert [run.name.partition("/")[2] for run in status.find(grid)][1] == "base+d_k=16,num_heads=4@smoke"


# Rows by name


def test_some_rows_are_shown_and_the_whole_tables_stay(tmp_path, capsys):
    launched(tmp_path, "positions@smoke", "--only=sinusoidal,learned,none")
    folder = tmp_path / "positions@smoke"
    assert command.main(["report", str(tmp_path)]) == 0
    whole = (folder / "table.md").read_text()
    capsys.readouterr()
    assert command.main(["report", str(tmp_path), "--only=l*", "--only", "none"]) == 0
    out = capsys.readouterr().out
    begin = [line.split()[0] for line in out.splitlines() if line.split()]
    assert [word for word in begin if word in ("sinusoidal", "learned", "none")] == ["learned", "none"]
    assert "Written" not in out
    assert (folder / "table.md").read_text() == whole
    assert command.main(["report", str(tmp_path), "--only=l*", f"--out={tmp_path / 'out'}"]) == 0
    assert "none" not in (tmp_path / "out" / "positions@smoke" / "table.csv").read_text()
    delta = [cells(main_table.build(reading.read([tmp_path], only)[0]))["learned"] for only in ((), ("l*",))]
    assert delta[0]["ΔPPL"] == delta[1]["ΔPPL"] != ""  # from a base that is not shown
    capsys.readouterr()
    assert command.main(["compare", str(tmp_path), str(tmp_path), "--only=none"]) == 0
    assert "learned" not in capsys.readouterr().out


def test_a_grids_points_go_by_their_variant_too(grid):
    for glob, count in (("base", 4), ("base+*", 3), ("*num_heads=1", 1)):
        assert len(reading.read([grid], [glob])[0].shown) == count
    with pytest.raises(UserError, match=r"--only=A/h=3 is none of: base, A/h=1, "):
        reading.read([grid], ["base", "A/h=3"])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("1", [1]), ("3", [1, 2, 3]), ("3,4", [3, 4]), ("7,", [7]), ("4,3,4", [3, 4])],
)
def test_seeds_are_counted_or_listed(given, wanted):
    assert list(assignments.seeds(arguments("table3@smoke", f"--seeds={given}"))) == wanted
    assert [run.seed for run in plan.make(arguments("table3/E@smoke", f"--seeds={given}"))] == wanted


def test_fresh_seeds_are_not_that_of_the_tuning():
    tune = ("table3/base@smoke", "--tune=optim.lr_factor=1,2")
    assert tuning.Tuning(arguments(*tune, "--seeds=5,6"))._seeds == (5, 6)
    assert tuning.Tuning(arguments(*tune, "--seeds=2"))._seeds == (2, 3)
    with pytest.raises(UserError, match="--seeds=1,5: with --tune, seed 1 is of the grid; give fresh ones"):
        tuning.Tuning(arguments(*tune, "--seeds=1,5"))


# Imports


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A sweep of a file, launched, as the next process finds it: (the file, the workdir)."""
    file = tmp_path / "mine.py"
    file.write_text(SWEEP.format(name="mine"))
    plugins.take([f"--import={file}"])
    launched(tmp_path / "runs", "mine@smoke", "--only=x")
    forget(monkeypatch)
    return file, tmp_path / "runs"


def forget(monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, "")
    registry._SWEEPS.pop("mine", None)
    for name in [name for name in plugins.sys.modules if name.startswith("tx_import_")]:
        monkeypatch.delitem(plugins.sys.modules, name)


def test_what_was_imported_is_imported_again(mine, capsys, monkeypatch):
    file, runs = mine
    for argv in (["report", str(runs)], ["compare", str(runs), str(runs / "mine@smoke")]):
        assert command.main(argv) == 0
        assert capsys.readouterr().err == ""
        forget(monkeypatch)
    assert local.main([f"--status={runs}"]) == 0
    assert "mine/x@smoke" in capsys.readouterr().out
    forget(monkeypatch)
    run = runs / "mine@smoke" / "x" / "seed1"
    for one in (decode, evaluate):
        with pytest.raises(SystemExit):  # nothing is trained
            one.main([str(run), os.devnull] if one is decode else [str(run)])
        assert registry.sweep("mine")
        forget(monkeypatch)
    assert plugins.take([f"--import={file}"]) == []  # named all the same: once is enough
    imports.recall([runs])
    assert plugins.files() == [file]


def refused(runs, capsys, *words):
    imports.recall([runs])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in (*words, "give --import FILE"))
    assert plugins.files() == []


def test_a_file_that_changed_or_is_gone_is_said_and_not_run(mine, capsys, tmp_path, monkeypatch):
    file, runs = mine
    file.write_text(f"open({str(tmp_path / 'obeyed')!r}, 'w')")
    refused(runs, capsys, "mine.py", "has changed since")
    assert not (tmp_path / "obeyed").exists()
    with pytest.raises(SystemExit):
        command.main(["report", str(runs)])
    assert "unknown sweep 'mine'" in capsys.readouterr().err
    file.unlink()
    refused(runs, capsys, "mine.py", "is gone")
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "mine.py").write_text(SWEEP.format(name="mine"))
    assert command.main(["report", str(runs), f"--import={tmp_path / 'moved' / 'mine.py'}"]) == 0
    assert capsys.readouterr().err == ""  # that one was meant, and nothing is left to say


@pytest.mark.parametrize(
    ("choosing", "choice", "own", "more"),
    [
        ("optim.optimizer", "signum", "optim.signum.momentum", ()),
        ("probe.metrics", "ter,signum", "probe.signum.momentum", ("--set=probe.ter.normalized=true",)),
    ],
)
def test_nothing_is_stale_because_the_file_of_a_component_is_gone(tmp_path, choosing, choice, own, more):
    settings = (f"--set={choosing}={choice}", "--set=train.steps=7", *more)
    components.declare(choosing, "signum", own={"momentum": Field(0.9, "m", SHARE), "other": Field(2, "o")})
    try:
        runs = launched(tmp_path, "table3@smoke", "--only=base", *settings)
        runs += launched(tmp_path, "table3/E@smoke", f"--grid={own}=0.5,0.6", *settings)[1:]
        here = cells(table_of(tmp_path))
    finally:
        components.withdraw(choosing, "signum")
    gone = main_table.build(reading.read([tmp_path])[0])
    assert {row[-1] for row in gone.rows} == {"done"}
    assert cells(gone).keys() == here.keys()
    assert {"0.5", "0.6"} <= {row[cells_of("momentum", gone)] for row in gone.rows}
    value = runs[-1].folder.read("result")
    value["config"]["train"]["steps"] = 8
    runs[-1].folder.result.write_text(json.dumps(value))
    assert [row[-1] for row in table_of(tmp_path).rows if row[-1] != "done"] == ["done, stale [1]"]


def cells_of(word, table):
    """The index of the column whose head has a word."""
    return next(i for i, column in enumerate(table.columns) if word in column.head)


@pytest.mark.parametrize("newest", ["a", "b"])
@pytest.mark.parametrize("selectors", [("mine@smoke", "mine@smoke"), ("mine@smoke", "mine@multi30k")])
def test_of_two_files_that_register_one_name_the_newest_launch_counts(tmp_path, capsys, monkeypatch, newest, selectors):
    folders = ["b", "a"] if newest == "a" else ["a", "b"]
    for i, (folder, selector) in enumerate(zip(folders, selectors, strict=True)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(SWEEP.format(name="mine") + f"OF = {folder!r}\n")
        (tmp_path / folder / f"more_{folder}.py").write_text("")
        plugins.take([f"--import={tmp_path / folder / 'mine.py'}", f"--import={tmp_path / folder}/more_{folder}.py"])
        launched(tmp_path / "runs", selector, "--only=x")
        os.utime(tmp_path / "runs" / selector / "launch.json", (1e9 + i, 1e9 + i))
        forget(monkeypatch)
    capsys.readouterr()
    imports.recall([tmp_path / "runs"])
    said = capsys.readouterr().err
    assert registry.sweep("mine")
    other = tmp_path / folders[0] / "mine.py"
    assert said.count("\n") == 1
    assert said.startswith(f"not imported: {other}, with which {tmp_path / 'runs' / selectors[0]} was launched, cannot")
    assert "ValueError: sweep 'mine' is registered already" in said
    mine = tmp_path / newest / "mine.py"
    assert set(plugins.files()) == {mine, *(tmp_path / one / f"more_{one}.py" for one in "ab")}
    imported = plugins.sys.modules[f"tx_import_{mine}"].OF
    assert imported == newest
    assert command.main(["report", str(tmp_path / "runs")]) == 0


def test_a_relative_path_in_the_environment_is_the_file_itself(tmp_path, monkeypatch):
    (tmp_path / "near.py").write_text("")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for named in ("near.py", f"{tmp_path}/link/../{tmp_path.name}/near.py", "near.py:./near.py", '["near.py"]'):
        monkeypatch.setenv(plugins.VARIABLE, named)
        assert plugins.files() == [tmp_path / "near.py"]
        assert [one["file"] for one in imports.remember(plugins.files())] == [str(tmp_path / "near.py")]
        assert plugins.take(["--import", "near.py"]) == []
        assert os.environ[plugins.VARIABLE] == str(tmp_path / "near.py")


def test_a_folder_from_elsewhere_runs_nothing(tmp_path, capsys, monkeypatch):
    """Whatever file it names, its own or one of the user's: the digest is in its own hands too."""
    evil = tmp_path / "runs" / "evil.py"
    put(tmp_path / "runs", "table3/base@smoke", 1)
    evil.write_text(f"open({str(tmp_path / 'obeyed')!r}, 'w')")
    monkeypatch.chdir(evil.parent)
    for name in (str(evil), "evil.py", "/proc/self/cwd/evil.py", f"{evil.parent}/../runs/evil.py"):
        told = {
            "imports": [{"file": name, "sha256": imports.digest_if_readable(pathlib.Path(name))}],
            "launches": [],
            "rows": [],
        }
        (tmp_path / "runs" / "table3@smoke" / "launch.json").write_text(json.dumps(told))
        refused(tmp_path / "runs", capsys, "is not a file that you have launched with here")
    assert not (tmp_path / "obeyed").exists()
    told["imports"][0]["file"] = "\x1b[2J\n.py"
    (tmp_path / "runs" / "table3@smoke" / "launch.json").write_text(json.dumps(told))
    refused(tmp_path / "runs", capsys, r"\x1b[2J\n.py", "is gone")


def test_what_others_can_write_says_nothing_of_the_users_own(mine, capsys, tmp_path):
    _, runs = mine
    (folder,) = (tmp_path / "cache").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o770)
    refused(runs, capsys, "is not a file that you have launched with here")
    folder.chmod(0o700)
    (folder / "files.json").write_text("[")
    refused(runs, capsys, "is not a file that you have launched with here")


def test_a_cache_that_cannot_be_written_costs_the_memory_alone(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "file"))
    (tmp_path / "mine.py").write_text("")
    assert [one["file"] for one in imports.remember([tmp_path / "mine.py", tmp_path / "gone.py"])] == [
        str(tmp_path / "mine.py")
    ]


def test_a_sweep_that_nobody_knows_leaves_the_others_their_tables(tmp_path, capsys):
    put(tmp_path, "table3/base@smoke", 1)
    RunDir(tmp_path / "theirs@smoke").create()
    with pytest.raises(SystemExit, match="2"):
        command.main(["report", str(tmp_path)])
    told = capsys.readouterr()
    assert "table3@smoke: " in told.out
    assert told.err.startswith("error: left out: ")
    assert "unknown sweep 'theirs'" in told.err
    assert launches.read([tmp_path / "theirs@smoke"]) == launches.Launched({}, False)


def test_a_file_that_was_edited_between_two_launches_is_imported_without_a_word(tmp_path, capsys, monkeypatch):
    """As it is now; what was made by its other content is stale by the fingerprint."""
    (tmp_path / "mine.py").write_text(SWEEP.format(name="mine"))
    for i, selector in enumerate(("mine@smoke", "mine@multi30k")):
        (tmp_path / "mine.py").write_text(SWEEP.format(name="mine") + f"OF = {i}\n")
        plugins.take([f"--import={tmp_path / 'mine.py'}"])
        launched(tmp_path / "runs", selector, "--only=x")
        os.utime(tmp_path / "runs" / selector / "launch.json", (1e9 + i, 1e9 + i))
        forget(monkeypatch)
    capsys.readouterr()
    imports.recall([tmp_path / "runs"])
    assert plugins.files() == [tmp_path / "mine.py"]
    assert capsys.readouterr().err == ""

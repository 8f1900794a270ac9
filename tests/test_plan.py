"""A sweep planned for devices: hours and memory beside what was measured, the whole, and what cannot be planned."""

import json
import pathlib
import re
import subprocess
import sys

import fabricated
import pytest

from experiments import registry
from launch import devices, forecast
from launch.plan import __main__ as command

ROOT = pathlib.Path(__file__).parent.parent
AS_MEASURED = ("--set=model.dtype=bfloat16", "--set=model.attention_backend=cudnn")


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch):
    """Memory is estimated, whatever is installed."""
    monkeypatch.setenv("TX_COMPILE_PYTHON", "")


def planned(capsys, tmp_path, *arguments):
    """{row: its cells} and the lines behind the table."""
    assert command.main([*arguments, f"--workdir={tmp_path}"]) == 0
    out = capsys.readouterr().out.splitlines()
    whole = next(i for i, line in enumerate(out) if line.startswith("in all: "))
    cells = [re.split(r"\s{2,}", line.strip()) for line in out[1:whole]]
    return {row[0]: row[1:] for row in cells}, out[whole:]


@pytest.mark.parametrize("row", ["base", "big"])
def test_hours_and_memory_are_what_was_measured(capsys, tmp_path, row):
    """An H100 took so many seconds a step, and so many MiB at most."""
    told = json.loads((devices.RESULTS / f"train-{row}-h100.json").read_text())
    seconds = told["contestants"]["tx"]["median"]["seconds"] / told["contestants"]["tx"]["median"]["steps"]
    name = f"table3/{row}@paper"
    cells, lines = planned(capsys, tmp_path, name, "--device=h100", *AS_MEASURED)
    steps = registry.get_config(f"table3/{row}@paper").train.steps
    assert float(cells[f"table3/{row}@paper"][3]) == pytest.approx(seconds * steps / 3600, rel=0.03)
    assert f"train-{row}-h100.json" in " ".join(lines)
    config = registry.get_config(f"table3/{row}@paper", dict(one[6:].split("=") for one in AS_MEASURED))
    assert forecast.memory_bytes(config, 1) / 2**20 == pytest.approx(
        told["contestants"]["tx"]["median"]["peak_mib"], rel=0.1
    )


def test_table2_in_all(capsys, tmp_path):
    sweeps = ["table2@paper", "table2@paper.en-fr", "--set=model.dtype=bfloat16"]
    cells, lines = planned(capsys, tmp_path, *sweeps, "--device=h100", "--count=2", "--price=2.5", "--seeds=2")
    names = [f"table2/{row}@paper{pair}" for pair in ("", ".en-fr") for row in ("base", "big")]
    assert list(cells) == names
    base, big = (float(cells[name][3]) for name in names[:2])
    assert [row[0] for row in cells.values()] == ["2"] * 4
    assert [row[5] for row in cells.values()] == ["yes"] * 4
    assert float(cells[names[1]][6]) == pytest.approx(2 * 2.5 * big, rel=0.01)
    found = re.search(r"8 runs, .* ([\d.]+) device hours, ([\d.]+) hours on 2 h100, ([\d.,]+) ", lines[0])
    used, wall, cost = found.groups()
    assert float(used) == pytest.approx(4 * (base + big), rel=0.01)
    assert float(wall) == pytest.approx(2 * (base + big), rel=0.02)  # the same on both
    assert float(cost) == pytest.approx(2 * float(wall) * 2.5, rel=0.02)


def test_a_run_on_all_tpus(capsys, tmp_path):
    arguments = ["table3/big@paper", "--mfu=0.4", "--set=model.dtype=bfloat16"]
    one, _ = planned(capsys, tmp_path, *arguments, "--device=v5e", "--count=1")
    eight, lines = planned(capsys, tmp_path, *arguments, "--device=v5e-8")
    name = "table3/big@paper"
    assert float(one[name][3]) == pytest.approx(8 * float(eight[name][3]), rel=0.01)
    assert (one[name][5], eight[name][5]) == ("NO", "yes")
    assert "8 devices lose" in " ".join(lines)
    wanted = 9.648e18 / (8 * 197e12 * 0.4) / 3600
    assert float(eight[name][3]) == pytest.approx(wanted, rel=0.01)


def test_where_nothing_was_measured_it_says_what_fits_all_the_same(capsys, tmp_path):
    cells, lines = planned(capsys, tmp_path, "table3/b*@paper", "--device=v5e-8")
    assert [(row[3], row[5]) for row in cells.values()] == [("?", "yes"), ("?", "yes")]
    assert lines[0] == "in all: 2 runs, 1.06e+19 FLOPs on 8 v5e"
    assert lines[1].startswith("note: hours are not known: no training was measured on v5e, only on h100; give --mfu")
    assert "hours are of training" not in " ".join(lines)


def test_what_is_done_is_not_made_again(capsys, tmp_path):
    fabricated.put(tmp_path, "table3/big@paper", 1)
    cells, lines = planned(capsys, tmp_path, "table3/b*@paper", "--device=h100", "--seeds=2")
    assert cells["table3/big@paper"][0] == "1 (1 done)"
    assert lines[0].startswith("in all: 3 runs")
    assert "measured in bfloat16; float32 takes longer" in " ".join(lines)


def test_a_result_of_another_configuration_is_refused_as_by_a_launch(capsys, tmp_path):
    fabricated.put(tmp_path, "table3/base@paper", 1, overrides={"train.steps": 5})
    with pytest.raises(SystemExit):
        command.main(["table3/base@paper", "--device=h100", f"--workdir={tmp_path}"])
    assert "holds another configuration: train.steps 5 -> 100000" in capsys.readouterr().err


def test_the_devices_of_a_run_are_those_that_it_asks_for(capsys, tmp_path):
    name, of = "table3/big@paper", ("--device=h100", "--count=8", "--mfu=0.3", "--set=data.batch_rows=96")
    found = {}
    for asked in ("--per_run=4", "--set=parallel.devices=4", "--set=parallel.devices=0", "--per_run=8"):
        cells, lines = planned(capsys, tmp_path, name, *of, asked)
        found[asked] = cells[name], lines
    assert found["--set=parallel.devices=4"] == found["--per_run=4"] != found["--per_run=8"]
    assert found["--set=parallel.devices=0"] == found["--per_run=8"]


def test_an_average_of_the_parameters_takes_memory_too():
    sizes = [forecast.memory_bytes(registry.get_config("table3/big@paper", {"train.ema": ema}), 1) for ema in (0, 0.99)]
    params = forecast.flops.parameter_count(registry.get_config("table3/big@paper").model)
    assert sizes[1] - sizes[0] == 4 * params


def test_hours_count_what_is_computed_again(capsys, tmp_path):
    """A backward pass takes twice a forward one, and train.remat makes a second forward one: 4 for 3."""
    name, hours = "table3/big@paper", []
    for remat in ("false", "true"):
        cells, _ = planned(capsys, tmp_path, name, "--device=h100", "--mfu=0.1", f"--set=train.remat={remat}")
        hours.append(float(cells[name][3]))
    assert hours[1] == pytest.approx(hours[0] * 4 / 3, rel=0.01)


def test_hours_are_those_of_the_longest_first():
    class Row:
        def __init__(self, hours, runs):
            self.hours, self.runs = hours, runs

    assert forecast.hours([Row(1, 4), Row(3, 1)], 2) == 4
    assert forecast.hours([Row(2, 3)], 2) == 4
    assert forecast.hours([], 2) == 0


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--device=h1000"], "unknown device"),
        (["--device=v5e-0", "--mfu=0.3"], "unknown device"),
        (["--device=h100\n"], "unknown device"),
        (["--device=v5e-8", "--price=2"], "no training was measured on v5e, only on h100; give --mfu"),
        (["--device=v5e-8", "--count=4", "--mfu=0.3"], "leave one out"),
        (["--device=h100", "--count=0"], "--per_run must be from 1 to the 0"),
        (["--device=h100", "--per_run=2"], "--per_run must be from 1 to the 1"),
        (["--device=h100", "--mfu=30"], "--mfu must be above 0"),
        (["--device=h100", "--price=-1"], "--price"),
        (["--device=h100", "--price=nan"], "--price"),
        ([], "--device"),
        (["--device=h100", "--set=parallel.devices=4"], "parallel.devices=4, but there are 1 devices"),
        (
            ["--device=h100", "--count=8", "--per_run=2", "--set=parallel.devices=4"],
            "parallel.devices=4, but --per_run=2; leave one out",
        ),
        (["--device=h100", "--count=8", "--grid=parallel.devices=2,4", "--only=base"], "rows take 2 and 4 devices"),
        (["--device=h100", "--set=parallel.fsdp_shards=8"], "parallel.fsdp_shards=8 does not divide 1 devices a run"),
        (
            ["--device=h100", "--count=5", "--per_run=5", "--set=data.batch_rows=96"],
            "data.batch_rows=96 cannot be split over 5 devices a run; make it a multiple of 5",
        ),
    ],
)
def test_what_cannot_be_planned_is_one_line(capsys, tmp_path, arguments, wanted):
    with pytest.raises(SystemExit) as ended:
        command.main(["table3/base@paper", f"--workdir={tmp_path}", *arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert wanted in error
    assert error.count("\n") == 1


def test_planning_imports_no_jax():
    code = "import sys; from launch.plan import __main__ as c; c.main(sys.argv[1:]); assert 'jax' not in sys.modules"
    arguments = ["table3@paper", "--device=h100", "--workdir=nowhere"]
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True)

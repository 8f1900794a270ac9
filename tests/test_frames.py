"""Runs as data frames: `experiments.load` and `experiments.curves`."""

import json
import math
import os
import pathlib
import statistics
import subprocess
import sys

import pandas as pd
import pytest
from fabricated import cells, fail, put, table_of

import experiments
from experiments import tuning
from experiments.export import trials
from experiments.report import reading
from tx.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMOKE = ROOT / "experiments" / "results" / "table3@smoke"


def test_a_line_for_each_run_whatever_became_of_it(tmp_path, monkeypatch):
    put(tmp_path, "table3/base@smoke", 1, ppl=5.0, bleu=30.0, exact=0.25)
    put(tmp_path, "table3/base@smoke", 2, ppl=6.0, bleu=31.0)
    put(tmp_path, "table3/A/h=1@smoke", 1, ppl=7.0)
    fail(tmp_path, "E", 3, "KeyError: <b>")
    put(tmp_path, "positions/rotary@smoke", 1)
    frame = experiments.load(tmp_path)
    assert isinstance(frame, pd.DataFrame)
    assert frame["name"].tolist() == [
        "positions/rotary@smoke",
        *["table3/base@smoke"] * 2,
        "table3/A/h=1@smoke",
        "table3/E@smoke",
    ]
    table3 = frame[frame["sweep"] == "table3"].set_index(["row", "seed"])
    assert table3.loc[("base", 1), ["ppl", "bleu", "exact_percent"]].tolist() == [5.0, 30.0, 25.0]
    assert table3.loc[("A/h=1", 1), "log_ppl"] == pytest.approx(math.log(7.0))
    assert table3.loc[("A/h=1", 1), "diff"] == "h=1 d_k=128 d_v=128"
    assert table3["model.num_heads"].tolist() == [8, 8, 1, 8]
    assert table3["model.positions"].tolist() == ["sinusoidal"] * 3 + ["learned"]
    assert table3["state"].tolist() == ["done"] * 3 + ["failed"]
    assert table3.loc[("E", 3), "error"] == "KeyError: <b>"
    assert math.isnan(table3.loc[("E", 3), "bleu"])
    assert table3.loc[("base", 1), "device_hours"] == 1.0
    assert table3.loc[("base", 1), "path"] == str(tmp_path / "table3@smoke/base/seed1")
    assert frame.loc[0, "model.positions"] == "rotary"
    assert experiments.load([tmp_path], only=["A/*"])["row"].tolist() == ["A/h=1"]
    assert experiments.load(tmp_path, only="A/*")["row"].tolist() == ["A/h=1"]
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert experiments.load(f"~/{tmp_path.name}").equals(frame)
    with pytest.raises(UserError, match="no folder"):
        experiments.load(str(tmp_path / "none"))


def test_only_means_the_points_of_tunings_too(tmp_path):
    asked = [tuning.Asked(row, {}, {"optim.lr_factor": [0.5, 1.0]}, (2,)) for row in ("base", "E")]
    for one in asked:
        for point, values in one.points.items():
            put(tmp_path, f"table3/{one.row}@smoke", 1, overrides=values, folder=point)
    tuning.record(tmp_path / "table3@smoke", [(one, dict.fromkeys(one.points, 1.0)) for one in asked])
    points = ["E+lr_factor=0.5", "E+lr_factor=1"]
    assert sorted(experiments.load(tmp_path, only="E")["row"]) == points
    assert len(experiments.load(tmp_path)) == 4


def test_a_field_that_came_after_a_run_has_its_default_there(tmp_path):
    for name in ("published", "published/to-the-letter"):
        run = put(tmp_path, f"regularised/{name}@smoke", 1)
        result = json.loads((run / "result.json").read_text())
        if name == "published":
            del result["config"]["data"]["lowercase"]
        (run / "result.json").write_text(json.dumps(result))
    frame = experiments.load(tmp_path).set_index("row")
    assert frame["data.lowercase"].to_dict() == {"published": False, "published/to-the-letter": True}


def test_a_field_that_a_run_has_not_has_no_value(tmp_path):
    put(tmp_path, "optimizers/sgd@smoke", 1)
    put(tmp_path, "schedule/beta2=0.9@smoke", 1)
    put(tmp_path, "schedule/factor=2@smoke", 1)
    (tmp_path / "schedule@smoke/mine/seed1").mkdir(parents=True)  # nobody knows what it is
    frame = experiments.load(tmp_path).set_index("row")
    beta = frame["optim.beta2"]
    assert (beta["beta2=0.9"], beta["factor=2"]) == (0.9, 0.98)
    assert beta[["sgd", "mine"]].isna().all()
    assert pd.isna(frame["optim.lr_factor"]["mine"])


def test_the_states_are_those_that_are_documented(tmp_path):
    (tmp_path / "table3@smoke" / "base" / "seed1").mkdir(parents=True)
    assert experiments.load(tmp_path)["state"].tolist() == ["begun"]
    for told in (experiments.load.__doc__, trials.Trial.__doc__):
        assert "done, failed or begun" in told


def test_means_over_a_frame_are_those_of_the_table():
    frame = experiments.load(SMOKE)
    for row, line in cells(table_of(SMOKE)).items():
        some = frame[frame["row"] == row]
        assert line["PPL ours"] == f"{some['ppl'].mean():.2f} ± {some['ppl'].std():.2f}"
        assert line["BLEU ours"] == f"{some['bleu'].mean():.1f} ± {some['bleu'].std():.2f}"
        assert ("still descending" in line["runs"]) == some["unfinished"].all() == some["unfinished"].any()


def test_a_curve_ends_at_what_the_run_counted():
    frame, (found,) = experiments.curves([SMOKE], only=["base", "big"]), reading.read([SMOKE])
    assert list(dict.fromkeys(frame["row"])) == ["base", "big"]
    ours = frame[(frame["row"] == "base") & (frame["seed"] == 1)]
    result = found.rows[0].runs[0].result
    assert ours["step"].is_monotonic_increasing
    assert ours["step"].is_unique
    assert ours["target_tokens"].iloc[-1] == result.train.target_tokens
    assert ours["flops"].iloc[-1] == result.train.flops
    assert ours["dev_nll"].dropna().tolist() == [line["dev_nll"] for line in result.curve if "dev_nll" in line]
    finals = frame[frame["row"] == "base"].groupby("seed")["dev_nll"].last()
    assert statistics.fmean(finals) == pytest.approx(found.rows[0].results[0].dev.nll, abs=0.02)


def test_a_curve_of_a_run_under_way_is_what_it_has_logged(tmp_path):
    path = put(tmp_path, "table3/base@smoke", 1, curve=[{"step": 10, "loss": 2.0}])
    lines = '{"step": 5, "loss": 3.0, "timing": {"time": 7.0}}\n{"step": 5, "dev_nll": 1.5, "timing": {}}\n'
    (path / "metrics.jsonl").write_text(lines + '{"step": 10, "lo')
    assert experiments.curves(tmp_path)[["step", "loss"]].to_numpy().tolist() == [[10, 2.0]]
    full = experiments.curves(tmp_path, full=True)
    assert full[["step", "loss", "dev_nll", "time"]].to_numpy().tolist() == [[5, 3.0, 1.5, 7.0]]
    (path / "result.json").unlink()
    assert experiments.curves(tmp_path)[["step", "dev_nll"]].to_numpy().tolist() == [[5, 1.5]]
    (path / "metrics.jsonl").unlink()
    empty = experiments.curves(tmp_path)
    assert empty.empty
    assert {"step", "loss", "dev_nll"} <= set(empty.columns)


def test_planning_imports_no_pandas():
    code = "import sys, experiments, launch.plan, experiments.__main__; print({'jax', 'pandas'} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ran.stdout == "set()\n", ran.stderr
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        experiments.lode  # noqa: B018

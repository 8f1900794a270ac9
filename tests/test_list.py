"""`python -m experiments list`."""

import json
import subprocess
import sys

import pytest

from experiments import __main__ as command
from experiments import registry

# The printed counts, in millions, of rows base, B and C; and the accounting's own to two decimals.
COUNTS = {
    "base": (65, 65.13),
    "B/d_k=16": (58, 58.03),
    "B/d_k=32": (60, 60.40),
    "C/N=2": (36, 35.70),
    "C/N=4": (50, 50.41),
    "C/N=8": (80, 79.84),
    "C/d_model=256": (28, 27.86),
    "C/d_model=1024": (168, 167.98),
    "C/d_ff=1024": (53, 52.53),
    "C/d_ff=4096": (90, 90.32),
}


def listed(capsys, *arguments):
    assert command.main(["list", *arguments]) == 0
    return capsys.readouterr().out


def test_json(capsys):
    rows = json.loads(listed(capsys, "table3@paper", "--format=json"))
    assert len(rows) == 20
    assert [row["name"] for row in rows] == registry.select("table3@paper")
    keys = [
        "name",
        "sweep",
        "variant",
        "scale",
        "diff",
        "params",
        "params_paper",
        "flops",
        "ppl_paper",
        "bleu_paper",
    ]
    assert all(sorted(row) == sorted(keys) for row in rows)
    assert rows[0]["diff"] == {}
    assert rows[1] | {"flops": 0} == {
        "name": "table3/A/h=1@paper",
        "sweep": "table3",
        "variant": "A/h=1",
        "scale": "paper",
        "diff": {"model.num_heads": 1, "model.d_k": 512, "model.d_v": 512},
        "params": 40_960 * 512
        + 32 * 512
        + 6 * (2 * (2 * 512 * 2048 + 2048 + 512))
        + 6 * 5 * 2 * 512
        # attention: 18 blocks of four 512 x 512 matrices with biases
        + 18 * 4 * (512 * 512 + 512),
        "params_paper": None,
        "flops": 0,
        "ppl_paper": 5.29,
        "bleu_paper": 24.9,
    }


def test_parameters_are_the_printed_ones(capsys):
    rows = {row["variant"]: row for row in json.loads(listed(capsys, "table3", "--format=json"))}
    printed = {name: row["params_paper"] for name, row in rows.items() if row["params_paper"]}
    assert printed == {name: count for name, (count, _) in COUNTS.items()} | {"big": 213}
    for name, (millions, exactly) in COUNTS.items():
        assert round(rows[name]["params"] / 1e6) == millions
        assert round(rows[name]["params"] / 1e6, 2) == exactly
    assert round(rows["big"]["params"] / 1e6, 2) == 218.33


def test_longer_training_costs_more(capsys):
    rows = {row["variant"]: row for row in json.loads(listed(capsys, "table3", "--format=json"))}
    assert rows["A/h=1"]["flops"] == rows["base"]["flops"]
    # 300K steps instead of 100K, of a model with over three times the parameters
    assert 9 < rows["big"]["flops"] / rows["base"]["flops"] < 12


def test_text_shows_every_row_and_the_open_discrepancy(capsys):
    text = listed(capsys, "table3@paper")
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    for variant in registry.variants("table3"):
        assert f"{variant.paper.ppl:.2f}" in lines[variant.name]
        assert f"{variant.paper.bleu:.1f}" in lines[variant.name]
    assert lines["A/h=1"][1:4] == ["h=1", "d_k=512", "d_v=512"]
    assert lines["base"][1:3] == ["65,126,400", "65"]
    assert "213 [1]" in text
    assert "218.33 (a known open discrepancy)" in text


def test_a_scale_changes_sizes(capsys):
    rows = {row["variant"]: row for row in json.loads(listed(capsys, "table3@multi30k.en-fr", "--format=json"))}
    assert rows["C/d_model=256"]["diff"] == {"model.d_model": 64, "model.d_k": 16, "model.d_v": 16}
    assert rows["C/d_model=256"]["scale"] == "multi30k.en-fr"
    assert rows["big"]["diff"]["train.steps"] == 3 * 4500


def test_without_a_name_sweeps_and_scales(capsys):
    text = listed(capsys)
    assert "table3" in text
    for scale in ("paper", "tatoeba", "multi30k", "smoke", "recall"):
        assert scale in text
    overview = json.loads(listed(capsys, "--format=json"))
    assert [s["name"] for s in overview["scales"]] == ["paper", "tatoeba", "multi30k", "smoke", "recall"]
    assert {s["name"]: s["variants"] for s in overview["sweeps"]}.items() >= {("table3", 20), ("regularised", 4)}


def test_unknown_names_end_with_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["list", "table4@paper"])
    assert caught.value.code == 2
    hint = "(one of your own needs --import FILE.py)"
    assert capsys.readouterr().err == f"error: unknown sweep 'table4'; the nearest is 'table3' {hint}\n"


def test_it_does_not_import_jax():
    code = (
        "import sys; from experiments.__main__ import main; main(['list', 'table3@paper']);"
        "sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_sweeps_own_base_is_said(capsys):
    assert "Its base differs from the paper's by P_drop=0.3 steps=400,000 select=last." in listed(
        capsys, "regularised@multi30k"
    )
    assert "Its base differs" not in listed(capsys, "table3@paper")

"""Two sweeps side by side."""

import json
import math
import statistics

import pytest
from fabricated import cells, fail, put
from scipy.stats import ttest_ind

from experiments import __main__, registry
from experiments.report import compare, reading


def beside(a, b):
    return compare.build(*(reading.read([folder])[0] for folder in (a, b)))


def test_means_differences_and_their_standard_errors(tmp_path):
    ours, theirs = [5.0, 5.2, 5.7], [4.0, 4.1]
    for side, values in (("a", ours), ("b", theirs)):
        for seed, ppl in enumerate(values, 1):
            put(tmp_path / side, "table3/base@smoke", seed, ppl=ppl)
    put(tmp_path / "a", "table3/E@smoke", 1, ppl=6.0)
    put(tmp_path / "b", "table3/E@smoke", 1, ppl=5.5)
    table = beside(tmp_path / "a", tmp_path / "b")
    row = cells(table)["base"]
    error = (statistics.variance(ours) / 3 + statistics.variance(theirs) / 2) ** 0.5
    assert (row["PPL A"], row["PPL B"]) == ("5.30 ± 0.36", "4.05 ± 0.07")
    assert row["ΔPPL"] == f"-1.25 ± {error:.2f}"
    assert (row["runs A"], row["runs B"]) == ("3 done", "2 done")
    assert cells(table)["E"]["ΔPPL"] == "-0.50"  # of one seed each nothing is known of the noise
    record = table.records[0]
    assert record["PPL difference"] == pytest.approx(-1.25)
    assert record["PPL standard error"] == pytest.approx(error)


def test_a_seed_that_diverged_far_leaves_a_table(tmp_path):
    """The square of its standard deviation is beyond a float."""
    sides(tmp_path, [5.0, 5.2], [5.0, 2e200])
    row = cells(beside(tmp_path / "a", tmp_path / "b"))["E"]
    assert row["PPL B"] == "1.0e+200 ± 1.4e+200"
    assert row["ΔPPL"].strip("()") == "1.0e+200 ± 1.0e+200"


def test_a_rerun_is_the_same_or_not(tmp_path):
    for seed, ppl in ((1, 5.0), (2, 5.0), (3, 5.0)):
        put(tmp_path / "a", "table3/base@smoke", seed, ppl=ppl)
    put(tmp_path / "b", "table3/base@smoke", 1)
    put(tmp_path / "b", "table3/base@smoke", 2, dev={"split": "validation", "ppl": 5.0, "nll": 1.0 + 1e-12})
    put(tmp_path / "b", "table3/base@smoke", 4)
    assert cells(beside(tmp_path / "a", tmp_path / "b"))["base"]["same"] == "1 of 2"
    assert cells(beside(tmp_path / "a", tmp_path / "a"))["base"]["same"] == "3 of 3"


def test_nothing_is_dropped(tmp_path):
    put(tmp_path / "a", "table3/base@smoke", 1)
    fail(tmp_path / "a", "E", 1, "out of memory")
    put(tmp_path / "b", "table3/base@smoke", 1)
    put(tmp_path / "b", "table3/base@smoke", 1, folder="mine")
    table = beside(tmp_path / "a", tmp_path / "b")
    found = cells(table)
    assert list(found)[-1] == "mine"
    assert (found["mine"]["PPL A"], found["mine"]["PPL B"], found["mine"]["ΔPPL"]) == ("", "5.00", "")
    assert (found["E"]["runs A"], found["E"]["runs B"]) == ("failed [1]", "missing")
    assert "[1] out of memory" in table.notes


def test_what_differs_is_told(tmp_path):
    for name in ("base", "E"):
        put(tmp_path / "a", f"table3/{name}@smoke", 1)
    longer = {"train.steps": 900}
    put(tmp_path / "b", "table3/base@smoke", 1, overrides=longer | {"model.norm": "none"}, code="def456")
    put(tmp_path / "b", "table3/E@smoke", 1, overrides=longer, data={"fingerprint": "f", "vocabulary_fingerprint": "w"})
    table = beside(tmp_path / "a", tmp_path / "b")
    assert "In every row: train.steps is 750 in A, 900 in B." in table.notes
    assert "base: model.norm is pre in A, none in B." in table.notes
    assert any("different vocabularies" in note for note in table.notes)
    assert ("steps", "A 750, B 900") in table.caption
    assert ("code", "A abc123, B abc123 (1 run), def456 (1 run)") in table.caption
    assert ("beam", "4") in table.caption


def test_sweeps_of_other_names_or_scales_are_compared_by_row(tmp_path, capsys):
    put(tmp_path / "a", "table3/base@smoke", 1, ppl=5.0)
    put(tmp_path / "b", "table3/base@multi30k", 1, ppl=7.0)
    assert __main__.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    assert "table3@smoke (A) beside table3@multi30k (B)." in printed
    assert "+2.00" in printed
    assert "model.d_model" not in printed  # the scales say so


def test_the_sweeps_that_both_hold_are_compared(tmp_path, capsys):
    for side, sweeps in (("a", ("table3", "schedule", "heads")), ("b", ("schedule", "heads", "similarity"))):
        for sweep in sweeps:
            put(tmp_path / side, f"{sweep}/{registry.variants(sweep)[0].name}@smoke", 1)
    assert __main__.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    compared = {name for name in ("table3", "schedule", "heads", "similarity") if f"{name}@smoke (A)" in printed}
    assert compared == {"schedule", "heads"}


def test_nothing_in_common_is_an_error(tmp_path, capsys):
    put(tmp_path / "a", "table3/base@smoke", 1)
    put(tmp_path / "a", "table3/base@multi30k", 1)
    put(tmp_path / "b", "table3/base@paper", 1)
    with pytest.raises(SystemExit) as ended:
        __main__.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "no sweep is in both: A has table3@multi30k, table3@smoke, B has table3@paper" in error
    assert len(error.strip().splitlines()) == 1


def sides(tmp_path, a, b, row="E", bleu=30.0):
    for side, values in (("a", a), ("b", b)):
        for seed, ppl in enumerate(values, 1):
            put(tmp_path / side, f"table3/{row}@smoke", seed, ppl=ppl, bleu=bleu)


def run(tmp_path, *more):
    return __main__.main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), *more])


def test_what_is_inside_the_noise_is_in_parentheses(tmp_path):
    """Welch's intervals at 95% for two rows together, as scipy has them: at 97.5% each."""
    samples = {"E": ([5.0, 5.2, 5.7], [5.3, 5.6, 5.1]), "big": ([5.0, 5.1, 5.2], [4.0, 4.1])}
    for row, pair in samples.items():
        sides(tmp_path, *pair, row=row)
    table = beside(tmp_path / "a", tmp_path / "b")
    assert cells(table)["E"]["ΔPPL"].startswith("(+0.03 ± ")
    assert cells(table)["big"]["ΔPPL"].startswith("-1.05 ± ")
    assert any(note.startswith("(Δ): inside the noise") for note in table.notes)
    records = {record["row"]: record for record in table.records}
    for row, (a, b) in samples.items():
        test = ttest_ind([math.log(x) for x in b], [math.log(x) for x in a], equal_var=False)
        ends = test.confidence_interval(0.975)
        assert (records[row]["log_ppl_low"], records[row]["log_ppl_high"]) == pytest.approx((ends.low, ends.high))
    assert (records["E"]["log_ppl_inside_noise"], records["big"]["log_ppl_inside_noise"]) == (True, False)


@pytest.mark.parametrize(
    ("b", "status"), [([6.0, 6.1, 6.2], 1), ([5.15, 5.0, 5.1], 0), ([4.0, 4.1, 4.2], 0), ([6.0, math.nan, 6.1], 1)]
)
def test_a_regression_ends_with_status_1(tmp_path, capsys, b, status):
    sides(tmp_path, [5.0, 5.1, 5.2], b)
    assert run(tmp_path) == 0
    assert run(tmp_path, "--fail-on=regression") == status
    printed = capsys.readouterr().out
    assert ("Regression: table3@smoke: E: log PPL +0.1" in printed) == bool(status)


def test_a_lower_bleu_is_a_regression_too(tmp_path, capsys):
    for side, bleus in (("a", (30.0, 30.2, 30.1)), ("b", (28.0, 28.1, 28.2))):
        for seed, bleu in enumerate(bleus, 1):
            put(tmp_path / side, "table3/E@smoke", seed, bleu=bleu)
    assert run(tmp_path, "--fail-on=regression") == 1
    assert "Regression: table3@smoke: E: BLEU -2.0 [" in capsys.readouterr().out


def test_what_failed_in_b_alone_is_a_regression(tmp_path, capsys):
    sides(tmp_path, [5.0, 5.1], [5.0, 5.1])
    put(tmp_path / "a", "table3/big@smoke", 1)
    fail(tmp_path / "b", "big", 1, "out of memory")
    assert run(tmp_path, "--fail-on=regression") == 1
    assert (
        "Regression: table3@smoke: big: 1 of 1 failed, diverged or without a finite dev loss" in capsys.readouterr().out
    )


def test_no_regression_is_told_between_texts(tmp_path, capsys):
    sides(tmp_path, [5.0, 5.1, 5.2], [6.0, 6.1, 6.2])
    for path in (tmp_path / "b").glob("**/result.json"):
        told = json.loads(path.read_text())
        told["data"]["fingerprint"] = "another"
        path.write_text(json.dumps(told))
    assert run(tmp_path) == 0
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "--fail-on=regression")
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert "Regression:" not in printed.out
    wanted = "table3@smoke: E: A and B of different texts or vocabularies, so that no regression can be told"
    assert printed.err == f"error: {wanted}\n"


def test_a_guard_that_can_judge_nothing_is_an_error(tmp_path, capsys):
    sides(tmp_path, [5.0], [9.0])
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "--fail-on=regression")
    assert ended.value.code == 2
    assert "no row could be tested" in capsys.readouterr().err

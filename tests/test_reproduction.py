"""What of a table reproduces: intervals of Dunnett's test, and the sentences made of them."""

import math
import statistics

import pytest
from fabricated import put
from scipy.stats import t as student

from experiments.report import reading, reproduction
from experiments.report.metrics import BLEU, NLL
from experiments.report.noise import intervals


def read(folder):
    (found,) = reading.read([folder])
    return found


def fill(folder, rows):
    for row, values in rows.items():
        for seed, (ppl, bleu) in enumerate(values):
            put(folder, f"table3/{row}@smoke", seed, ppl=ppl, bleu=bleu)
    return read(folder)


def test_of_one_row_it_is_students_interval(tmp_path):
    base, row = [30.0, 31.0, 33.0], [28.0, 29.5]
    found = fill(tmp_path, {"base": [(5, x) for x in base], "C/N=2": [(6, x) for x in row]})
    (one,) = intervals(found, BLEU).items()
    name, (difference, low, high) = one
    squares = sum((x - statistics.fmean(sample)) ** 2 for sample in (base, row) for x in sample)
    error = math.sqrt(squares / 3 * (1 / 3 + 1 / 2))  # pooled, 3 degrees of freedom
    middle, half = statistics.fmean(row) - statistics.fmean(base), student.ppf(0.975, 3) * error
    assert name == "C/N=2"
    assert difference == pytest.approx(middle)
    assert (low + high) / 2 == pytest.approx(middle)
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)  # scipy integrates by sampling


def test_more_rows_widen_every_interval(tmp_path):
    samples = [[30.0, 31.0, 33.0], [28.0, 29.5, 30.0], [27.0, 28.0, 29.0]]
    rows = dict(zip(("base", "C/N=2", "E"), [[(5, x) for x in sample] for sample in samples], strict=True))
    together = intervals(fill(tmp_path, rows), BLEU)["C/N=2"]
    squares = sum((x - statistics.fmean(sample)) ** 2 for sample in samples for x in sample)
    error = math.sqrt(squares / 6 * (2 / 3))  # 6 degrees of freedom
    half = (together.high - together.low) / 2
    # Between one comparison and, by Bonferroni, two.
    assert student.ppf(0.975, 6) * error < half < student.ppf(0.9875, 6) * error


@pytest.mark.parametrize("base", [[(5, 30)], [(5, 30), (math.nan, 30)]])
def test_a_single_seed_has_no_interval(tmp_path, base):
    assert intervals(fill(tmp_path, {"base": base, "E": [(6, 31), (7, 32)]}), NLL) == {}


def test_a_row_of_one_seed_has_an_interval_and_numbers_without_spread_have_none(tmp_path):
    found = fill(tmp_path, {"base": [(5, 30), (6, 30)], "E": [(6, 31)], "big": [(6, 31), (7, 31)]})
    assert list(intervals(found, NLL)) == ["E", "big"]
    assert intervals(found, BLEU) == {}
    alone = fill(tmp_path / "alone", {"base": [(5, 30)], "big": [(6, 31), (7, 31)]})
    assert intervals(alone, NLL) == {}


def test_a_row_is_as_in_the_paper_within_the_noise_or_the_other_way(tmp_path):
    def around(ppl, bleu):
        return [(ppl - 0.01, bleu - 0.1), (ppl, bleu), (ppl + 0.01, bleu + 0.1)]

    rows = {
        "base": around(5, 30),
        "A/h=1": around(6, 29),  # the paper's: worse, worse
        "A/h=32": around(4.5, 29.95),  # worse, worse
        "A/h=16": around(9, 9),  # the paper does not tell it from base
        "big": around(4, 33),  # better, better
    }
    text = reproduction.to_markdown(fill(tmp_path, rows))
    assert text.splitlines()[:3] == [
        "- Heads (A): in perplexity 1 of 2 as in the paper, the other way h=32; "
        "in BLEU 1 of 2 as in the paper, within the noise h=32.",
        "- Positions (E), big: in perplexity 1 of 1 as in the paper; in BLEU 1 of 1 as in the paper.",
        "",
    ]


@pytest.mark.parametrize(
    ("late", "start"),
    [
        (["C/N=2"], "Undecided: C/N=2 is unfinished."),
        (["C/N=2", "C/N=4", "big"], "Undecided: C/N=2, C/N=4, big are unfinished."),
        (["C/N=2", "C/N=4", "C/d_model=256", "big"], "Undecided: 4 rows are unfinished."),
    ],
)
def test_few_unfinished_rows_are_named_and_many_are_counted(tmp_path, late, start):
    curve = [{"step": step, "dev_nll": nll} for step, nll in ((500, 3.0), (800, 2.5), (1000, 1.6))]
    done = {"train": {"steps": 1000, "epochs": 1.0, "target_tokens": 9, "flops": 1.0}}
    for name in ("base", "A/h=1", "C/N=2", "C/N=4", "C/d_model=256", "big"):
        for seed, shift in enumerate((-0.01, 0.0, 0.01), 1):
            planted = done | {"curve": curve if name in late else []}
            put(tmp_path, f"table3/{name}@smoke", seed, ppl=5 + shift, **planted)
    assert reproduction.to_markdown(read(tmp_path)).startswith(f"{start} As they stand, where the paper tells a row")


def test_rows_of_another_sweep_are_called_what_they_are(tmp_path):
    for row, ppl in (("h=8", 5.0), ("h=1", 6.0)):
        for seed, shift in enumerate((-0.01, 0.0, 0.01), 1):
            put(tmp_path, f"heads/{row}@smoke", seed, ppl=ppl + shift)
    lines = [line for line in reproduction.to_markdown(read(tmp_path)).splitlines() if line.startswith("- ")]
    assert lines == ["- h=1: in perplexity 1 of 1 as in the paper."]


def test_without_seeds_nothing_is_said(tmp_path):
    assert reproduction.to_markdown(fill(tmp_path, {"base": [(5, 30)], "E": [(6, 31)]})) == ""

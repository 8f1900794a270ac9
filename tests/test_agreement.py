"""Agreement of a sweep with the paper: Kendall's tau-b and directions."""

import itertools
import math
import random
import statistics

import numpy as np
import pytest
from fabricated import cells, put
from scipy.stats import kendalltau, linregress

from experiments import __main__ as command
from experiments import registry
from experiments.report import agreement, agreement_steps, agreement_table, bootstrap, main_table, reading


def tau_b(ours, papers):
    """From its definition: pairs in order less pairs in reverse, over the geometric mean of the pairs not tied."""
    score, untied = 0, [0, 0]
    for (a, b), (c, d) in itertools.combinations(zip(ours, papers, strict=True), 2):
        signs = [(a > c) - (a < c), (b > d) - (b < d)]
        score += signs[0] * signs[1]
        untied = [count + abs(sign) for count, sign in zip(untied, signs, strict=True)]
    return score / math.sqrt(untied[0] * untied[1])


def test_kendall():
    # Pairs: (1,2) in order, (1,3) in order, (2,3) tied on one side: 2 of sqrt(3 x 2).
    assert agreement.kendall([1.0, 2.0, 3.0], [1.0, 2.0, 2.0]) == pytest.approx(2 / math.sqrt(6))
    assert agreement.kendall([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == -1
    assert agreement.kendall([1.0, 2.0, math.inf], [1.0, 2.0, 3.0]) == 1
    for nothing in (([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0])):
        assert agreement.kendall(*nothing) is None
    rng = random.Random(3)
    for _ in range(20):
        ours, papers = ([float(rng.randrange(5)) for _ in range(12)] for _ in range(2))
        assert agreement.kendall(ours, papers) == pytest.approx(tau_b(ours, papers))


def fill(tmp_path, left_out=("C/N=8", "E"), seeds=2):
    """Every row but those left out, with numbers at random; returns {row: mean log-perplexity}, {row: mean BLEU}."""
    rng = random.Random(1)
    losses, bleus = {}, {}
    for variant in registry.variants("table3"):
        if variant.name in left_out:
            continue
        runs = [(rng.uniform(1.5, 9.0), rng.uniform(20.0, 30.0)) for _ in range(seeds)]
        for seed, (ppl, bleu) in enumerate(runs):
            put(tmp_path, f"table3/{variant.name}@smoke", seed, ppl=ppl, bleu=bleu)
        losses[variant.name] = sum(math.log(ppl) for ppl, _ in runs) / seeds
        bleus[variant.name] = sum(bleu for _, bleu in runs) / seeds
    return losses, bleus


def test_the_table_of_all_rows_and_of_each_group(tmp_path):
    losses, bleus = fill(tmp_path)
    (found,) = reading.read([tmp_path])
    table = agreement_table.build(found)
    groups = {
        "all": list(losses),
        "A": ["base", *(f"A/h={h}" for h in (1, 4, 16, 32))],
        "B": ["base", "B/d_k=16", "B/d_k=32"],
        "C": ["base", *(name for name in losses if name.startswith("C/"))],
        "D/P_drop": ["base", "D/P_drop=0.0", "D/P_drop=0.2"],
        "D/eps_ls": ["base", "D/eps_ls=0.0", "D/eps_ls=0.2"],
    }
    assert [row[0] for row in table.rows] == list(groups)
    paper = {variant.name: variant.paper for variant in registry.variants("table3")}
    for record, (name, rows) in zip(table.records, groups.items(), strict=True):
        assert record["rows"] == name
        assert (record["compared"], record["left_out"]) == (len(rows), {"all": 2, "C": 1}.get(name, 0))
        for score, ours, margin in (("ppl", losses, 0.05), ("bleu", bleus, 0.2)):
            theirs = {row: getattr(paper[row], score) for row in rows}
            assert record[f"{score}_tau_b"] == pytest.approx(tau_b([ours[row] for row in rows], list(theirs.values())))
            told = [row for row in rows if abs(theirs[row] - theirs["base"]) > margin - 1e-6]
            same = [row for row in told if (ours[row] > ours["base"]) == (theirs[row] > theirs["base"])]
            assert (record[f"{score}_same"], record[f"{score}_told"]) == (len(same), len(told))
    shown = cells(table)["B"]
    assert shown["left out"] == ""
    assert shown["PPL same direction"] == f"{table.records[2]['ppl_same']} of 2"
    assert float(shown["PPL tau-b"]) == pytest.approx(table.records[2]["ppl_tau_b"], abs=0.005)
    assert cells(table)["D/P_drop"]["PPL same direction"].endswith(" of 1")  # 4.95 is no other than 4.92


def test_what_equals_base_here_has_not_the_papers_direction(tmp_path):
    for name in ("base", "A/h=1", "C/N=2"):
        put(tmp_path, f"table3/{name}@smoke", 1, ppl=3.0 + (name == "C/N=2"), bleu=30.0)
    (found,) = reading.read([tmp_path])
    record = agreement_table.build(found).records[0]
    assert (record["ppl_same"], record["ppl_told"], record["bleu_same"], record["bleu_told"]) == (1, 2, 0, 2)
    assert record["bleu_tau_b"] is None


def test_a_run_that_diverged_is_worse_than_any_other(tmp_path):
    for name, ppl in (("base", 3.0), ("A/h=1", float("nan")), ("A/h=4", 4.0)):
        put(tmp_path, f"table3/{name}@smoke", 1, ppl=ppl)
    (found,) = reading.read([tmp_path])
    record = agreement_table.build(found).records[0]
    assert (record["ppl_tau_b"], record["ppl_same"], record["ppl_told"]) == (1, 2, 2)


def test_without_base_there_are_no_directions(tmp_path):
    fill(tmp_path, left_out=("base",))
    (found,) = reading.read([tmp_path])
    for record in agreement_table.build(found).records:
        assert (record["ppl_told"], record["left_out"]) == (0, 1)
    line = agreement_table.line(found)
    assert "PPL tau-b" in line
    assert "directions" not in line


def test_what_has_nothing_to_compare_has_no_table(tmp_path):
    put(tmp_path / "one", "table3/base@smoke", 1)
    put(tmp_path / "other", "heads/h=8@smoke", 1)
    put(tmp_path / "other", "heads/h=1@smoke", 1)
    for folder in ("one", "other"):
        (found,) = reading.read([tmp_path / folder])
        assert agreement_table.build(found).rows == ()


def test_it_is_printed_written_and_put_into_a_readme(tmp_path, capsys):
    fill(tmp_path)
    assert command.main(["report", str(tmp_path), "--show=agreement"]) == 0
    assert "table3@smoke: agreement with the paper." in capsys.readouterr().out
    folder = tmp_path / "table3@smoke"
    markdown = (folder / "agreement.md").read_text()
    assert (folder / "agreement.csv").read_text().startswith("rows,compared,left_out,ppl_tau_b,")
    assert (folder / "agreement.tex").exists()
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table: table3@smoke/agreement -->\n<!-- end table -->\n")
    assert command.main(["report", str(tmp_path), "--readme", str(readme)]) == 0
    assert markdown in readme.read_text()


def test_resampled_taus_and_slopes_are_scipys_of_each_sample():
    rng = np.random.default_rng(1)
    ours, papers = rng.integers(4, size=(30, 9)).astype(float), rng.integers(4, size=(30, 9)).astype(float)
    expected = [kendalltau(one, other).statistic for one, other in zip(ours, papers, strict=True)]
    assert list(agreement.taus(ours, papers)) == pytest.approx(expected, nan_ok=True)
    slopes = [linregress(x, y).slope for x, y in zip(papers, ours, strict=True)]
    assert list(agreement._slopes(papers, ours)) == pytest.approx(slopes)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_drawn_means_spread_as_means_of_so_many_seeds_do(seeds):
    own = [1.0 + 0.3 * i**2 for i in range(seeds)]
    rng = np.random.default_rng(0)
    drawn = bootstrap.draws_over_seeds(np.broadcast_to(own, (40_000, seeds)), rng)
    assert drawn.mean() == pytest.approx(statistics.mean(own), rel=0.01)
    assert drawn.std() == pytest.approx(statistics.stdev(own) / math.sqrt(seeds), rel=0.02)


def exactly(tmp_path, size, apart=0.0):
    """All rows as far from base as `size` times what the paper prints."""
    of_base = registry.variants("table3")[0].paper
    for variant in registry.variants("table3"):
        for seed in (1, 2, 3):
            nll = 1 + size * math.log(variant.paper.ppl / of_base.ppl) + apart * (seed - 2)
            bleu = 30 + size * (variant.paper.bleu - of_base.bleu)
            put(tmp_path, f"table3/{variant.name}@smoke", seed, ppl=math.exp(nll), bleu=bleu + 9 * apart * (seed - 2))
    (found,) = reading.read([tmp_path])
    return found


def test_a_copy_of_the_paper_at_half_its_size(tmp_path):
    found = exactly(tmp_path, 0.5)
    record = agreement_table.build(found).records[0]
    for key, told in (("ppl", 15), ("bleu", 16)):
        assert record[f"{key}_tau_b"] == pytest.approx(1)
        assert (record[f"{key}_same"], record[f"{key}_told"]) == (told, told)
        assert record[f"{key}_slope"] == pytest.approx(0.5)
        assert (record[f"{key}_tau_rows_low"], record[f"{key}_tau_rows_high"]) == pytest.approx((1, 1))
    assert record["ppl_same_sign"] < record["ppl_compared"] == 19  # half of 0.05 PPL is inside the margin
    assert exactly(tmp_path / "whole", 1).done
    whole = agreement_table.build(reading.read([tmp_path / "whole"])[0]).records[0]
    assert (whole["ppl_same_sign"], whole["bleu_same_sign"]) == (19, 19)


def test_seeds_apart_make_it_unsure_and_the_paper_too(tmp_path):
    found = exactly(tmp_path, 1, apart=0.05)
    record = agreement_table.build(found).records[0]
    low, high = record["ppl_tau_seeds_low"], record["ppl_tau_seeds_high"]
    assert 0.4 < low < high < 1.0
    (rows,) = [agreement_table.printed_rows(found)]
    middle, *ends = agreement.under_noise(rows, "ppl", agreement_table.NLL)
    assert ends[0] < middle < ends[1] < 1.0
    assert low - 0.1 < middle < high + 0.1


def test_the_papers_own_columns(tmp_path):
    paper = [variant.paper for variant in registry.variants("table3")]
    by_scipy = kendalltau([-row.ppl for row in paper], [row.bleu for row in paper]).statistic
    found = exactly(tmp_path, 1)
    assert agreement.of_paper(found.rows) == pytest.approx(by_scipy)
    assert f"{by_scipy:.2f}" == "0.69"
    line = agreement_table.line(found)
    assert line in main_table.build(found).notes
    assert "PPL tau-b +1.00" in line
    assert "The paper's own PPL and BLEU have +0.69 with each other." in line


def test_the_papers_own_columns_are_of_the_rows_that_ours_are_of(tmp_path):
    fill(tmp_path, left_out=("big", "C/N=2"))
    (found,) = reading.read([tmp_path])
    paper = [variant.paper for variant in registry.variants("table3") if variant.name not in ("big", "C/N=2")]
    by_scipy = kendalltau([-row.ppl for row in paper], [row.bleu for row in paper]).statistic
    assert agreement.of_paper(found.rows) == pytest.approx(by_scipy)
    assert f"PPL and BLEU have {by_scipy:+.2f} with each other." in agreement_table.line(found)


def evaluated_twice(tmp_path, variants):
    """In the first half rows stand in reverse, at the end as in the paper."""
    for variant in variants:
        final, steps = math.log(variant.paper.ppl), registry.get_config(f"table3/{variant.name}@smoke").train.steps
        curve = [{"step": steps // 2, "dev_nll": -final}, {"step": steps, "dev_nll": final}, {"step": 1, "loss": 1.0}]
        put(tmp_path, f"table3/{variant.name}@smoke", 1, curve=curve)
    (found,) = reading.read([tmp_path])
    return agreement_steps.build(found)


def test_agreement_against_training_is_of_the_rows_that_are_compared(tmp_path):
    """Without base no row takes its place; one of other subwords, evaluated at its end alone, is left out."""
    table = evaluated_twice(tmp_path, registry.variants("table3")[1:6])
    assert [(row[1], row[2], row[4], row[5]) for row in table.rows] == [("5", t, "", "") for t in ("-1.00", "+1.00")]
    evaluated_twice(tmp_path, registry.variants("table3")[:1])
    other = {"corpus": "c", "fingerprint": "f", "vocabulary_fingerprint": "other"}
    put(tmp_path, "table3/big@smoke", 1, data=other, curve=[{"step": 2250, "dev_nll": 1.0}])
    (found,) = reading.read([tmp_path])
    assert [(row[1], row[4]) for row in agreement_steps.build(found).rows] == [("6", "0 of 4"), ("6", "4 of 4")]


def test_agreement_against_training(tmp_path):
    table = evaluated_twice(tmp_path, registry.variants("table3")[:6])
    assert [(row[0], row[2], row[4]) for row in table.rows] == [("50%", "-1.00", "0 of 4"), ("100%", "+1.00", "4 of 4")]

"""Agreement of a sweep with the paper: Kendall's tau-b and directions."""

import itertools
import math
import random

import pytest
from fabricated import cells, put

from experiments import __main__ as command
from experiments import registry
from experiments.report import agreement, agreement_table, results


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
    (found,) = results.read([tmp_path])
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
    (found,) = results.read([tmp_path])
    record = agreement_table.build(found).records[0]
    assert (record["ppl_same"], record["ppl_told"], record["bleu_same"], record["bleu_told"]) == (1, 2, 0, 2)
    assert record["bleu_tau_b"] is None


def test_a_run_that_diverged_is_worse_than_any_other(tmp_path):
    for name, ppl in (("base", 3.0), ("A/h=1", float("nan")), ("A/h=4", 4.0)):
        put(tmp_path, f"table3/{name}@smoke", 1, ppl=ppl)
    (found,) = results.read([tmp_path])
    record = agreement_table.build(found).records[0]
    assert (record["ppl_tau_b"], record["ppl_same"], record["ppl_told"]) == (1, 2, 2)


def test_without_base_there_are_no_directions(tmp_path):
    fill(tmp_path, left_out=("base",))
    (found,) = results.read([tmp_path])
    for record in agreement_table.build(found).records:
        assert (record["ppl_told"], record["left_out"]) == (0, 1)


def test_what_has_nothing_to_compare_has_no_table(tmp_path):
    put(tmp_path / "one", "table3/base@smoke", 1)
    put(tmp_path / "other", "heads/h=8@smoke", 1)
    put(tmp_path / "other", "heads/h=1@smoke", 1)
    for folder in ("one", "other"):
        (found,) = results.read([tmp_path / folder])
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

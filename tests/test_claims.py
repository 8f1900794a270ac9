"""Expectations: what is claimed of rows that exist, and that Table 3's are those of its printed numbers."""

import math
import subprocess
import sys

import pytest

from experiments import claims, registry
from experiments.claims import CLAIMS, Claim
from experiments.registry import PaperRow
from experiments.report.metrics import NAMED
from experiments.scales import SCALES
from tx.errors import UserError


def test_every_claim_is_of_rows_measures_and_scales_that_exist():
    for claim in CLAIMS:
        sweep = registry.sweep(claim.sweep)
        names = [variant.name for variant in sweep.variants]
        assert claim.row in names
        assert claim.against in names
        assert claim.row != claim.against
        assert claim.measure in ("ppl", "bleu", *sweep.measures), claim
        assert claim.sign in (-1, 0, 1)
        assert claim.margin > 0 or not claim.allows_equality, claim  # without a margin nothing is equal
        assert set(claim.scales) <= set(SCALES)
        assert claim.scales
        assert claim.statement.endswith(".")
        assert claim.source
        if claim.measure != "ppl" and claim.measure in NAMED and claim.measure.endswith(" back"):
            assert claim.scales == ("recall",)


def test_every_sweep_has_claims_but_that_of_trials():
    assert {sweep.name for sweep in registry.sweeps()} - {claim.sweep for claim in CLAIMS} == {"recipe"}


def test_nothing_is_claimed_twice_of_one_scale():
    keys = [(c.sweep, c.row, c.against, c.measure, scale) for c in CLAIMS for scale in c.scales]
    assert len(keys) == len(set(keys))


# (row, log-perplexity, BLEU), by hand from Table 3 of the paper: base has 4.92 and 25.8.
SIGNS = [
    *(("A/h=1", 1, -1), ("A/h=4", 1, -1), ("A/h=16", 0, 0), ("A/h=32", 1, -1)),
    *(("B/d_k=16", 1, -1), ("B/d_k=32", 1, -1), ("C/N=2", 1, -1), ("C/N=4", 1, -1), ("C/N=8", 0, -1)),
    *(("C/d_model=256", 1, -1), ("C/d_model=1024", -1, 1), ("C/d_ff=1024", 1, -1), ("C/d_ff=4096", -1, 1)),
    *(("D/P_drop=0.0", 1, -1), ("D/P_drop=0.2", 0, -1), ("D/eps_ls=0.0", -1, -1), ("D/eps_ls=0.2", 1, 0)),
    *(("E", 0, 0), ("big", -1, 1)),
]


def test_table_3_is_claimed_as_printed():
    of_table = {(claim.row, claim.measure): claim for claim in CLAIMS if claim.sweep == "table3"}
    assert {key: claim.sign for key, claim in of_table.items()} == {
        (row, measure): sign for row, *signs in SIGNS for measure, sign in zip(("ppl", "bleu"), signs, strict=True)
    }
    assert of_table["C/N=2", "ppl"].printed == pytest.approx(math.log(6.11) - math.log(4.92))
    assert of_table["C/N=2", "bleu"].printed == pytest.approx(-2.1)
    assert {claim.against for claim in of_table.values()} == {"base"}
    assert of_table["E", "ppl"].margin == pytest.approx(math.log(4.97) - math.log(4.92))
    assert of_table["E", "bleu"].margin == 0.2
    assert of_table["big", "ppl"].statement == "big has a lower perplexity than base: 4.33, where base has 4.92."


def test_rows_that_are_those_of_table_3_are_claimed_alike():
    """Where a claim of another sweep has a printed difference, its row and that of Table 3 are one configuration."""
    where_it_runs = ("name", "probe.")
    others = [c for c in CLAIMS if c.sweep != "table3" and c.printed is not None]
    assert len(others) >= 14
    for claim in others:
        row = claim.statement.partition(" ")[0]
        pairs = [(f"table3/{row}", f"{claim.sweep}/{claim.row}"), ("table3/base", f"{claim.sweep}/{claim.against}")]
        for pair in pairs:
            one, other = (registry.get_config(f"{name}@paper") for name in pair)
            assert not [f for f in registry.diff(other, one) if not f.startswith(where_it_runs)], pair


def test_within_reach_and_beyond_it():
    signs = {(c.row, int(c.measure.split()[0])): c.sign for c in claims.of_sweep("table1", "recall")}
    layers = registry.get_config("table1/self-attention@recall").model.num_layers
    for row, reach in (
        ("recurrent", 10**6),
        ("self-attention/r=4", 4 * layers),
        ("self-attention/r=16", 16 * layers),
        ("convolution/k=3", 2 * layers),
        ("dilated/k=3", sum(2 * 3**layer for layer in range(layers))),
    ):
        assert {distance for (name, distance), sign in signs.items() if name == row and sign == 0} == {
            distance for distance in (2, 4, 8, 16, 32, 64) if distance <= reach
        }
    assert set(signs.values()) == {0, -1}


def test_optimizers_are_judged_at_rates_of_their_own_alone():
    assert {claim.sweep for claim in CLAIMS if claim.tuned} == {"optimizers"}
    assert all(claim.tuned for claim in CLAIMS if claim.sweep == "optimizers")


def test_the_warm_up_is_expected_to_matter_where_the_norm_comes_after():
    for scale in SCALES:
        said = [claim.relation for claim in claims.of_sweep("schedule", scale) if claim.row == "no-ramp"]
        norm = registry.get_config(f"schedule/base@{scale}").model.norm
        assert said == ([] if scale == "recall" else [{"post": ">", "pre": "<="}[norm]])


@pytest.mark.parametrize("relation", ["<", "<=", "=", ">=", ">"])
def test_what_is_said_of_two_rows_is_written_as_it_is_shown(relation):
    (claim,) = claims._said("table3", "s", "t.", f"bleu: E {relation} base @paper,smoke")
    assert (claim.relation, claim.row, claim.against, claim.measure) == (relation, "E", "base", "bleu")
    assert claim.allows_equality == ("=" in relation)
    assert claim.scales == ("paper", "smoke")


@pytest.mark.parametrize(
    ("row", "base", "measure", "sign"),
    [
        (PaperRow(4.97, 26.0), PaperRow(4.92, 25.8), "ppl", 1),  # just as far as counts
        (PaperRow(4.97, 26.0), PaperRow(4.92, 25.8), "bleu", 1),
        (PaperRow(4.88, 25.7), PaperRow(4.92, 25.8), "ppl", 0),
        (PaperRow(4.87, 25.6), PaperRow(4.92, 25.8), "ppl", -1),
        (PaperRow(4.87), PaperRow(4.92, 25.8), "bleu", None),
        (None, PaperRow(4.92, 25.8), "ppl", None),
    ],
)
def test_directions(row, base, measure, sign):
    assert claims.direction(row, base, measure) == sign


def test_a_claim_of_a_row_that_there_is_not_is_refused():
    for wrong in ({"row": "A/h=3"}, {"against": "bass"}, {"sweep": "table4"}):
        with pytest.raises(UserError, match="the nearest is"):
            Claim(**{"sweep": "table3", "row": "E", "sign": 1, "statement": ".", "source": "s"} | wrong)


def test_neither_jax_nor_scipy_is_imported_for_them():
    code = "import sys, experiments.claims; from experiments.report import agreement_table, flags; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "experiments.claims" in modules
    assert not {"jax", "scipy"} & set(modules)

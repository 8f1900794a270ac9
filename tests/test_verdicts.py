"""Verdicts on claims: two hand-made folders of results, what is unfinished, and what pages say."""

import dataclasses
import math
import pathlib
import re
import types

import pytest
from fabricated import put

from experiments import tuning
from experiments.claims import Claim
from experiments.launches import AskedRow
from experiments.report import claims_table, findings, flags, reading, reproduction, tuned_table, verdicts
from experiments.report.noise import Comparison, Interval

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"


def read(folder):
    (found,) = reading.read([folder])
    return found


def fill(folder, rows, **more):
    for row, values in rows.items():
        for seed, (ppl, bleu) in enumerate(values, 1):
            put(folder, f"feed_forward/{row}@smoke", seed, ppl=ppl, bleu=bleu, **more)
    return read(folder)


def around(nll, apart=0.001):
    return [(math.exp(nll + shift), 30.0) for shift in (-apart, 0.0, apart)]


def words(found):
    return {(one.claim.row, one.claim.against): (one.word, one.why) for one in verdicts.judge(found)}


def test_one_hand_made_folder(tmp_path):
    """GELU is said to equal ReLU, SwiGLU to be ahead, and none behind: it is, by 0.002, 0.1 and 0.5 nats."""
    found = fill(tmp_path, {"relu": around(1.0), "gelu": around(1.002), "swiglu": around(0.9), "none": around(1.5)})
    assert words(found) == {
        ("gelu", "relu"): ("supported", ""),  # 0.002 of 0.01
        ("swiglu", "relu"): ("supported", ""),
        ("none", "relu"): ("supported", ""),
    }
    assert claims_table.build(found).title == "feed_forward@smoke: 3 claims: 3 supported."


def test_another_hand_made_folder(tmp_path):
    """The other way round: GELU apart by more than the margin, SwiGLU the same, none better; and one of one seed."""
    rows = {"relu": around(1.0), "gelu": around(1.1), "swiglu": around(0.999), "none": around(0.7)}
    found = fill(tmp_path, rows)
    assert {row: word for (row, _), (word, _) in words(found).items()} == {
        "gelu": "contradicted",
        "swiglu": "equivalent",
        "none": "contradicted",
    }
    tally = claims_table.tally(verdicts.judge(found))
    assert tally == "3 claims: 2 contradicted, 1 equivalent."
    assert claims_table.tally([]) == "0 claims."
    alone = fill(tmp_path / "alone", rows | {"gelu": around(1.1)[:1], "swiglu": around(0.5)[:1], "none": []})
    assert words(alone)["gelu", "relu"] == ("contradicted", "")  # by the spread of the seeds of others
    assert words(alone)["swiglu", "relu"] == ("supported", "")
    apart = fill(tmp_path / "apart", rows | {"gelu": [(1e9, 0.0)], "swiglu": [*around(0.5)[:2], (1e9, 0.0)]})
    assert {words(apart)[row, "relu"][1] for row in ("gelu", "swiglu")} == {"diverged: gelu", "diverged: swiglu"}
    nothing = {"split": "validation", "nll": math.nan, "ppl": math.nan, "tokens": 7}
    fill(tmp_path / "lost", {"relu": around(1.0)})
    training = {"steps": 9, "epochs": 1.0, "target_tokens": 9, "flops": 1.0, "final_loss": 2.0}
    for seed in (1, 2, 3):
        put(tmp_path / "lost", "feed_forward/none@smoke", seed, dev=nothing, train=training)
    assert words(read(tmp_path / "lost"))["none", "relu"][1] == "no finite dev loss: none"
    near = fill(tmp_path / "near", rows | {"gelu": around(1.001)[:1], "swiglu": around(0.9999)[:1]})
    assert words(near)["gelu", "relu"] == ("undecided", "one seed: gelu")  # which equals nothing by itself
    assert words(near)["swiglu", "relu"] == ("undecided", "")  # tested, and inside the noise
    assert words(alone)["none", "relu"] == ("undecided", "no result: none")
    noisy = fill(tmp_path / "noisy", {"relu": around(1.0, 0.1), "swiglu": around(0.9, 0.1)})
    (one,) = [one for one in verdicts.judge(noisy) if one.claim.row == "swiglu"]
    assert (one.word, one.why) == ("undecided", "")
    assert one.seeds == 17  # of two groups 0.1 apart, at a standard deviation of 0.1, to be told in 80%: G*Power's 17
    equal = fill(tmp_path / "equal", {"relu": [(5, 1.0)] * 2, "gelu": [(5, 1.0)] * 2, "none": around(1.5)})
    assert words(equal)["gelu", "relu"] == ("undecided", verdicts.NO_SPREAD)


def test_rows_that_share_no_spread_are_told_apart_by_their_own_too(tmp_path):
    """By the spread of all four, 0.35, a row 0.9 behind is told from another; by its own, 0.7, it is not."""
    rows = {"relu": around(1.0), "gelu": around(1.002), "swiglu": around(0.9), "none": around(1.9, 0.7)}
    found = fill(tmp_path, rows)
    judged = {one.claim.row: one for one in verdicts.judge(found)}
    none = judged["none"]
    assert none.interval.sign == 1
    assert none.uneven == pytest.approx((0.001, 0.7))
    assert (none.word, none.why, none.stands) == ("undecided", "seeds too far apart: none", "undecided")
    assert judged["gelu"].word == "supported"  # that they are equal goes by the two rows' own spreads anyway
    assert (judged["swiglu"].word, judged["swiglu"].why) == ("undecided", "")
    said = claims_table.build(found).notes
    assert any("(Bartlett's test) among those compared with relu in log PPL." in note for note in said)
    assert "1 not tested: seeds too far apart: none." in findings.to_markdown(found)
    near = fill(tmp_path / "near", rows | {"none": around(1.9, 0.001), "gelu": around(1.2, 0.3)})
    (gelu,) = [one for one in verdicts.judge(near) if one.claim.row == "gelu"]
    assert gelu.uneven
    assert (gelu.word, gelu.why) == ("undecided", "")  # which it were if one spread were all rows'
    far = fill(tmp_path / "far", rows | {"none": around(4.0, 0.7)})
    assert words(far)["none", "relu"] == ("supported", "")
    alone = fill(tmp_path / "alone", rows | {"none": around(1.9, 0.7), "gelu": [(math.exp(5.0), 30.0)]})
    assert words(alone)["gelu", "relu"] == ("undecided", "one seed: gelu")  # of which nothing says how far it scatters
    even = fill(tmp_path / "even", rows | {"none": around(1.9, 0.001)})
    assert not any("Bartlett" in note for note in claims_table.build(even).notes)


def test_what_is_claimed_of_tuned_rows_is_judged_by_these_alone(tmp_path, monkeypatch):
    """Lion is behind Adam at Adam's rate, which says nothing of it; at its own it is ahead."""
    for seed in (1, 2, 3):
        for row, nll in {"adam": 1.0, "lion": 1.5}.items():
            put(tmp_path, f"optimizers/{row}@smoke", seed, ppl=math.exp(nll + 0.001 * seed), bleu=30.0)
    found = read(tmp_path)
    assert {why for _, why in words(found).values()} == {"not tuned"}
    rows = {row.variant.name: row for row in found.rows if row.results}
    own = {"adam": rows["lion"], "lion": rows["adam"]}  # of which the first is now the worse

    def tune(field):
        asked = {name: types.SimpleNamespace(row=name, grid={field: [0.5, 1.0]}) for name in own}
        tuned = [types.SimpleNamespace(asked=asked[name], fresh=row) for name, row in own.items()]
        monkeypatch.setattr(tuned_table, "read", lambda _: tuned)

    tune("model.dropout")  # which gives no row a rate of its own
    assert {why for _, why in words(found).values()} == {"not tuned"}
    tune("optim.lr_factor")
    assert words(found)["lion", "adam"] == ("supported", "")  # the claim is that it is no worse
    assert words(found)["muon", "adam"] == ("undecided", "not tuned")
    alone = dataclasses.replace(found, rows=tuple(dataclasses.replace(row, runs=()) for row in found.rows))
    assert ("seeds", "1, 2, 3") in claims_table.build(alone).caption  # a table of rows that have no runs but tuned ones
    assert claims_table.build(alone).rows == claims_table.build(found).rows
    monkeypatch.setattr(tuned_table, "read", lambda _: [])
    assert not claims_table.build(alone).rows


LR, WARMUP = "optim.lr_factor", "optim.warmup_steps"


def tuned(folder, row, grid, chosen, nll, without):
    """A row of `optimizers` that was tuned: flat curves, the chosen point ahead, three fresh seeds of it."""
    asked = tuning.Asked(row, {}, grid, (2, 3, 4))
    losses = {point: nll + (values != chosen) for point, values in asked.points.items()}
    for point, values in asked.points.items():
        for seed in (1, 2, 3, 4) if values == chosen else (1,):
            shown = losses[point] + 0.001 * seed
            dev = {"split": "validation", "nll": shown, "ppl": math.exp(shown), "tokens": 7}
            dev |= {"nll_without_source": without}
            curve = [{"step": step, "dev_nll": shown, "dev_ppl": 9.0} for step in (300, 450, 600, 750)]
            name, values = f"optimizers/{row}@smoke", dict(values)
            put(folder, name, seed, overrides=values, folder=point, dev=dev, curve=curve)
    tuning.record(folder / "optimizers@smoke", [(asked, losses)])


def test_tuned_rows_are_unfinished_beside_those_that_were_tuned(tmp_path):
    """Lion has not learned to use the source; no row of the sweep was made without tuning."""
    rates = {LR: [0.5, 1.0, 2.0]}
    tuned(tmp_path, "adam", rates, {LR: 1.0}, nll=1.0, without=3.0)
    tuned(tmp_path, "lion", rates, {LR: 1.0}, nll=2.9, without=3.0)
    tuned(tmp_path, "muon", rates, {LR: 1.0}, nll=1.0, without=3.0)
    found = read(tmp_path)
    assert words(found)["lion", "adam"] == ("undecided", "unfinished")
    assert words(found)["muon", "adam"][1] != "unfinished"
    assert "for unfinished rows: lion." in findings.to_markdown(found)
    (row,) = [row for row in tuned_table.build(found).rows if row[0] == "lion"]
    assert "on the plateau" in row[-1]


def test_a_tuned_row_at_the_edge_is_unfinished_whatever_was_asked_of_the_plain_one(tmp_path):
    rates = {LR: [0.5, 1.0, 2.0]}
    for row, chosen in (("adam", 1.0), ("lion", 2.0)):
        tuned(tmp_path, row, rates, {LR: chosen}, nll=1.0, without=3.0)
    found = read(tmp_path)
    plain = (
        dataclasses.replace(row, asked=AskedRow(row.variant.name, row.variant.name, {}, {}, (1,))) for row in found.rows
    )
    for one in (found, dataclasses.replace(found, rows=tuple(plain))):
        assert words(one)["lion", "adam"] == ("undecided", "unfinished")


def test_a_claim_of_tuned_rows_is_of_those_tuned_in_their_rate_alone(tmp_path):
    rates = {LR: [0.5, 1.0, 2.0]}
    for row in ("adam", "lion"):
        tuned(tmp_path, row, rates, {LR: 1.0}, nll=1.0, without=3.0)
    before = verdicts.judge(read(tmp_path))
    both = rates | {WARMUP: [10, 20]}
    tuned(tmp_path, "lion", both, {LR: 1.0, WARMUP: 10}, nll=0.5, without=3.0)
    assert verdicts.judge(read(tmp_path)) == before


def test_nothing_is_judged_by_rows_that_are_unfinished(tmp_path):
    rows = {"relu": around(1.0), "gelu": around(1.002), "swiglu": around(0.9), "none": around(1.5)}
    curve = [{"step": step, "dev_nll": 3.0 - step / 750, "dev_ppl": 9.0} for step in (150, 300, 450, 600, 750)]
    found = fill(tmp_path, rows, curve=curve)
    assert all(flags.unfinished(row, found) for row in found.rows if row.results)
    assert set(words(found).values()) == {("undecided", "unfinished")}
    assert {one.stands for one in verdicts.judge(found)} == {"supported"}
    table = claims_table.build(found)
    assert table.title.endswith("3 claims: 3 undecided, all for unfinished rows.")
    assert {row[7] for row in table.rows} == {"undecided: unfinished; so far supported"}


@pytest.mark.parametrize(
    ("sign", "interval", "equivalence", "word"),
    [
        (1, Interval(2, 1, 3), 0.9, "supported"),
        (-1, Interval(2, 1, 3), None, "contradicted"),
        (1, Interval(0, -1, 1), 0.5, "undecided"),
        (1, Interval(0.01, 0.005, 0.02), 0.01, "equivalent"),  # a difference that counts for none
        (0, Interval(0, -0.1, 0.1), 0.049, "supported"),
        (0, Interval(0.3, 0.1, 0.5), 0.6, "undecided"),  # the margin, 0.2, is in it
        (0, Interval(-0.5, -0.7, -0.3), 0.99, "contradicted"),
    ],
)
def test_words(sign, interval, equivalence, word):
    claim = Claim("table3", "E", sign, ".", "s", measure="bleu")
    assert claim.margin == 0.2
    assert verdicts._word(claim, interval, equivalence, interval.sign) == word
    if equivalence is None or equivalence > 0.05:
        assert verdicts._word(claim, interval, equivalence, 0) == "undecided"  # where that they differ is not told


@pytest.mark.parametrize(
    ("interval", "equivalence", "word"),
    [
        (Interval(-2, -3, -1), 0.001, "supported"),  # lower, which "no higher" does not speak against
        (Interval(-2, -3, -1), None, "supported"),  # of one seed, to which nothing is equal
        (Interval(0, -0.3, 0.3), 0.049, "supported"),
        (Interval(0, -1, 1), 0.3, "undecided"),
        (Interval(0.3, 0.1, 0.5), 0.6, "undecided"),  # the margin, 0.2, is in it
        (Interval(0.5, 0.3, 0.7), 0.99, "contradicted"),
    ],
)
def test_words_of_what_may_be_equal(interval, equivalence, word):
    for side in (-1, 1):  # no higher, and the same turned round: no lower
        claim = Claim("table3", "E", side, ".", "s", measure="bleu", or_equal=True)
        ends = sorted((-side * interval.low, -side * interval.high))
        turned = Interval(-side * interval.difference, *ends)
        assert verdicts._word(claim, turned, equivalence, turned.sign) == word


def test_no_worse_is_judged_to_one_side(tmp_path):
    """Keys shared in groups are to cost nothing: in one folder they are ahead by 0.05 nats, in others behind."""
    for folder, nll, word in (
        ("ahead", 0.95, "supported"),
        ("near", 1.003, "supported"),
        ("behind", 1.05, "contradicted"),
    ):
        for seed, shift in enumerate((-0.001, 0.0, 0.001), 1):
            for row, value in {"h=8": 1.0, "h=8/kv=2": nll}.items():
                put(tmp_path / folder, f"heads/{row}@smoke", seed, ppl=math.exp(value + shift), bleu=30.0)
        found = read(tmp_path / folder)
        (one,) = [one for one in verdicts.judge(found) if one.claim.row == "h=8/kv=2"]
        assert (one.word, one.claim.relation) == (word, "<=")
        assert "<= h=8" in [row[1] for row in claims_table.build(found).rows]


def test_seeds_needed_to_decide():
    family = Comparison({"E": Interval(0.0, 0.0, 0.0)}, 0.05)
    equal, apart = (Claim("table3", "E", sign, ".", "s", measure="bleu") for sign in (0, 1))
    by_nothing, by_much = Interval(0.0, -0.3, 0.3), Interval(0.1, -0.3, 0.5)
    assert verdicts._seeds(equal, by_nothing, family) == verdicts._seeds(
        apart, by_nothing, family
    )  # to be equal within 0.2
    assert verdicts._seeds(apart, by_much, family) > verdicts._seeds(apart, by_nothing, family)
    assert verdicts._seeds(equal, Interval(0.2, -0.3, 0.5), family) is None  # on the margin nothing decides
    no_higher = Claim("table3", "E", -1, ".", "s", measure="bleu", or_equal=True)
    assert verdicts._seeds(no_higher, by_nothing, family) < verdicts._seeds(equal, by_nothing, family)
    assert verdicts._seeds(no_higher, Interval(0.2, -0.3, 0.5), family) is None
    wide, lower = family._replace(spread=0.15), Interval(-0.2, -0.5, 0.3)
    assert verdicts._seeds(no_higher, lower, wide) < verdicts._seeds(no_higher, by_nothing, wide)


def test_the_page_has_the_claims_of_every_committed_sweep():
    page = (RESULTS / "README.md").read_text()
    committed = reading.read([RESULTS])
    assert len(committed) > 10
    for found in committed:
        assert (f"<!-- table: {found.name}/claims -->" in page) == bool(claims_table.judged(found)), found.name


def test_no_committed_claim_is_decided_by_unfinished_rows():
    (found,) = reading.read([RESULTS / "table1@recall"])
    late = {row.variant.name for row in found.rows if flags.unfinished(row, found)}
    for one in verdicts.judge(found):
        assert (one.why == "unfinished") == bool(late & {one.claim.row, one.claim.against})
        assert one.word == "undecided" or not one.why


# Prose that states a result, and what it is checked by.
STATED = {
    "What of it reproduces, and what does not:": "the generated text after it, of the verdicts",
    "1.4 has the lowest mean": "test_recipe_choice.py::test_the_rate_of_multi30k_is_the_best_of_base_and_big",
}
RESULT = re.compile(
    r"\b(reproduces?|better|worse|best|lowest|highest|beats?|outperforms?|ahead|plateau|equals|supports?|contradicts?)\b",
    re.IGNORECASE,
)


PAGES = ("README.md", "experiments/results/README.md", "experiments/results/FINDINGS.md")


def test_what_is_checked_is_still_stated():
    text = " ".join(" ".join((ROOT / page).read_text().split()) for page in PAGES)
    assert [one for one in STATED if one not in text] == []


@pytest.mark.parametrize("page", PAGES)
def test_prose_states_no_result_that_nothing_checks(page):
    text = re.sub(r"<!-- table:.*?<!-- end table -->", "", (ROOT / page).read_text(), flags=re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    paragraphs = [" ".join(one.split()) for one in text.split("\n\n") if not one.lstrip().startswith("|")]
    sentences = [one for paragraph in paragraphs for one in re.split(r"(?<=[.:?]) ", paragraph)]
    assert RESULT.search("big is better than base, as in the paper")
    unchecked = [one for one in sentences if RESULT.search(one) and not any(key in one for key in STATED)]
    assert [one for one in unchecked if not one.endswith("?")] == []
    for check in filter(None, STATED.values()):
        file, _, test = check.partition("::")
        assert not test or f"def {test}" in (ROOT / "tests" / file).read_text()


def test_what_reproduces_is_said_by_the_verdicts():
    (found,) = reading.read([RESULTS / "table3@smoke"])
    text = reproduction.to_markdown(found)
    told = [one for one in verdicts.judge(found) if one.claim.sign]
    counts = [tuple(map(int, match)) for match in re.findall(r"(\d+) of (\d+) as in the paper", text)]
    assert sum(of for _, of in counts) == len(told)
    assert sum(held for held, _ in counts) == sum(one.stands == "supported" for one in told)
    assert text.startswith("Undecided: the rows are unfinished.") == all(one.why == "unfinished" for one in told)

"""Flags of rows, from planted learning curves."""

import math
import statistics

import pytest
from fabricated import cells, put, table_of

from experiments import registry, tuning
from experiments.report import flags, reading, summary_table

STEPS = 1000


def curve(*losses, every=100):
    """Evaluations `every` steps, between lines of training losses, the last one at STEPS."""
    first = STEPS - every * (len(losses) - 1)
    lines = [{"step": first + every * i, "dev_nll": loss, "dev_ppl": 1.0} for i, loss in enumerate(losses)]
    return [{"step": 1, "loss": 9.0, "nll": 9.0, "grad_norm": 1.0, "lr": 1.0}, *lines]


def result(losses, nll=None, without=None):
    """What is planted in a result: the curve, the dev loss that is shown (the last), and that without the source."""
    nll = losses[-1] if nll is None else nll
    dev = {"split": "validation", "nll": nll, "ppl": math.exp(nll), "tokens": 7}
    dev |= {} if without is None else {"nll_without_source": without}
    train = {"steps": STEPS, "epochs": 1.0, "target_tokens": 9, "flops": 1.0}
    return {"curve": curve(*losses), "dev": dev, "train": train}


def read(tmp_path, rows):
    """{variant: [planted result of each seed]}, written and read; returns {variant: row} and the sweep."""
    for variant, seeds in rows.items():
        for seed, planted in enumerate(seeds, 1):
            put(tmp_path, f"table3/{variant}@smoke", seed, **planted)
    (found,) = reading.read([tmp_path])
    return {row.variant.name: row for row in found.rows}, found


FLAT = [2.0, 1.0, 1.0, 1.0]  # at steps 700, 800, 900, 1000
SPREAD = [result(FLAT), result(FLAT, nll=1.1), result(FLAT, nll=0.9)]  # standard deviation 0.1


def test_a_row_still_descends_by_more_than_its_own_noise_or_not(tmp_path):
    rows, found = read(
        tmp_path,
        {
            "base": SPREAD,
            # 0.5 then 0.05 after step 800, of which the noise is 0.1: the fall before step 800 does not count
            "A/h=1": [result([1.6, 1.1, 1.06, 1.05]), result([1.4, 0.9, 0.86, 0.85])],
            "A/h=4": [result([2.0, 1.6, 1.2, 1.1]), result([2.0, 1.5, 1.0, 0.9])],
            # one seed falls far, the other rises: 0.2 on average, of a noise of 0.57
            "A/h=16": [result([2.0, 1.0, 1.0, 1.4]), result([2.0, 1.4, 1.0, 0.6])],
        },
    )
    assert [name for name, row in rows.items() if flags.still_descending(row, found)] == ["A/h=4"]
    assert flags.noise(rows["A/h=4"], found) == pytest.approx(statistics.stdev([1.1, 0.9]))
    assert flags.unfinished(rows["A/h=4"], found)
    assert not flags.unfinished(rows["A/h=1"], found)


def test_a_row_of_one_seed_is_held_against_the_pooled_noise_of_the_others(tmp_path):
    planted = {
        "base": SPREAD,
        "A/h=1": [result(FLAT, nll=1.0), result(FLAT, nll=1.4)],
        "A/h=4": [result([3.0, 1.0, 0.9, 0.81])],
        "A/h=16": [result([3.0, 1.0, 0.9, 0.80])],
    }
    pooled = math.sqrt((2 * 0.1**2 + 1 * (0.4 / math.sqrt(2)) ** 2) / 3)
    assert 0.17 < pooled < 0.19
    planted["A/h=32"] = [result([3.0, 1.0, 0.9, 1.0 - 0.99 * pooled])]
    planted["B/d_k=16"] = [result([3.0, 1.0, 0.9, 1.0 - 1.01 * pooled])]
    rows, found = read(tmp_path, planted)
    assert flags.noise(rows["A/h=4"], found) == pytest.approx(pooled)
    descending = [name for name, row in rows.items() if flags.still_descending(row, found)]
    assert descending == ["A/h=4", "A/h=16", "B/d_k=16"]


def test_without_any_noise_known_nothing_is_flagged(tmp_path):
    rows, found = read(tmp_path, {"base": [result([9.0, 8.0, 3.0, 1.0])], "E": [result([1.0, 2.0, 3.0, 4.0])]})
    assert flags.noise(rows["base"], found) is None
    assert not any(flags.still_descending(row, found) or flags.over_fitted(row, found) for row in rows.values())


@pytest.mark.parametrize(
    ("steps_of_evaluations", "gain"),
    [((400, 800, 1000), 0.5), ((400, 801, 1000), 1.5), ((810, 900, 1000), None)],
)
def test_the_gain_is_since_the_last_evaluation_before_the_last_fifth(tmp_path, steps_of_evaluations, gain):
    lines = [{"step": s, "dev_nll": loss} for s, loss in zip(steps_of_evaluations, (2.5, 1.5, 1.0), strict=True)]
    for seed, spread in enumerate((-1, 1)):
        planted = result([1.0], nll=1.0 + spread * (gain or 1.0) / 1.5)  # a deviation a little below the gain
        put(tmp_path, "table3/base@smoke", seed, **planted | {"curve": lines})
    (found,) = reading.read([tmp_path])
    assert flags.noise(found.rows[0], found) == pytest.approx((gain or 1.0) / 1.5 * math.sqrt(2))
    assert flags.still_descending(found.rows[0], found) == (
        gain is not None and gain > flags.noise(found.rows[0], found)
    )


def test_over_fitted_where_the_last_dev_loss_is_above_the_lowest_by_more_than_the_noise(tmp_path):
    rows, found = read(
        tmp_path,
        {
            "base": SPREAD,
            "A/h=1": [result([0.5, 0.6, 0.7, 0.8], nll=0.5), result([0.6, 0.5, 0.6, 0.7], nll=0.6)],
            "A/h=4": [result([0.96, 0.95, 0.97, 1.0])],
        },
    )
    assert [name for name, row in rows.items() if flags.over_fitted(row, found)] == ["A/h=1"]
    assert not flags.unfinished(rows["A/h=1"], found)
    table = table_of(tmp_path)
    assert cells(table)["A/h=1"]["runs"].startswith("2 of 3 done, 1 missing, over-fitted [")
    assert any("the dev loss was lowest at step 700 to 800 of 1,000, and at the end" in note for note in table.notes)


def test_a_model_of_the_target_alone_is_on_the_plateau_beside_one_that_uses_the_source(tmp_path):
    uses, does_not = result(FLAT, nll=1.0, without=5.0), result(FLAT, nll=3.0, without=3.06)
    rows, found = read(
        tmp_path,
        {
            "base": [does_not, does_not],
            "A/h=1": [uses, does_not],
            "A/h=4": [uses],
            "A/h=16": [does_not],
            "A/h=32": [result(FLAT, nll=3.0, without=5.1)],  # 41%, more than half of the 80% of A/h=4
            "B/d_k=16": [result(FLAT, nll=3.0, without=4.9)],  # 39%
        },
    )
    assert [name for name, row in rows.items() if flags.on_plateau(row, found)] == [
        "base",
        "A/h=1",
        "A/h=16",
        "B/d_k=16",
    ]
    assert flags.unfinished(rows["base"], found)
    runs = {name: row["runs"] for name, row in cells(table_of(tmp_path)).items()}
    mark = runs["base"].removeprefix("2 done, on the plateau")
    assert mark.strip(" []").isdigit()
    assert runs["A/h=1"] == f"2 done, 1 on the plateau{mark}"
    assert runs["A/h=16"] == f"1 of 2 done, 1 missing, on the plateau{mark}"


def test_rows_of_another_architecture_put_none_on_the_plateau(tmp_path):
    """One stack without its source is lost: that says nothing of a decoder whose encoder gives zeros."""
    for row, without in (("encoder-decoder", 1.6), ("decoder-only/FLOPs", 3.3), ("decoder-only/parameters", 1.1)):
        put(tmp_path, f"architecture/{row}@smoke", 1, **result(FLAT, nll=1.0, without=without))
    (found,) = reading.read([tmp_path])
    assert [row.variant.name for row in found.rows if flags.on_plateau(row, found)] == ["decoder-only/parameters"]


@pytest.mark.parametrize("more", [True, False])
def test_a_corpus_whose_source_says_nothing_flags_nothing(tmp_path, more):
    without = {"base": 3.01, "E": 3.02} if more else {"base": 2.99, "E": 2.0}
    rows, found = read(tmp_path, {name: [result(FLAT, nll=3.0, without=loss)] for name, loss in without.items()})
    assert not any(flags.on_plateau(row, found) for row in rows.values())
    for row, without in (("self-attention", 9.0), ("recurrent", 3.0)):  # the last word alone is asked for
        put(tmp_path / "recall", f"table1/{row}@recall", 1, **result(FLAT, nll=3.0, without=without))
    (found,) = reading.read([tmp_path / "recall"])
    assert not any(flags.on_plateau(row, found) for row in found.rows)


@pytest.mark.parametrize(
    "broken", [None, "text", [1, {}, {"step": 5}, {"step": "5", "dev_nll": "1"}], [{"dev_nll": 1}]]
)
def test_what_is_not_known_gives_no_flag(tmp_path, broken):
    for seed, nll in enumerate((1.0, 1.1)):
        planted = result([5.0, 5.0, 1.0, 3.0], nll=nll) | {"curve": broken}
        planted["dev"]["nll_without_source"] = "none"
        put(tmp_path, "table3/base@smoke", seed, **planted)
    put(tmp_path, "table3/E@smoke", 0)
    (found,) = reading.read([tmp_path])
    assert not any(flags.of(row, found) for row in found.rows)
    assert cells(table_of(tmp_path))["base"]["runs"] == "2 done"


DIVERGED = {
    "no number": result([3.0, 2.0, math.nan, math.nan]),
    "infinite": result([3.0, 2.0, 9.0, math.inf]),
    "huge": result([3.0, 2.0, 500.0, 600.0]),
}
diverged = pytest.mark.parametrize("diverged", DIVERGED.values(), ids=DIVERGED)


def test_a_run_that_diverged_has_no_flag(tmp_path):
    rows, found = read(tmp_path, {"base": [DIVERGED["no number"]] * 2, "E": SPREAD})
    assert not flags.still_descending(rows["base"], found)
    assert flags.noise(rows["A/h=1"], found) == pytest.approx(0.1)


@diverged
def test_a_seed_that_diverged_leaves_the_others_their_flags(tmp_path, diverged):
    """By the spread of those; of one alone, by that of the other rows that have not diverged."""
    rows, found = read(
        tmp_path,
        {
            "base": SPREAD,
            "A/h=1": [result([2.0, 1.6, 1.2, 1.0]), result([2.0, 1.5, 1.0, 0.9]), diverged],
            "A/h=4": [result([3.0, 1.2, 1.1, 1.0]), diverged],
            "A/h=16": [result([0.5, 0.6, 0.7, 0.8], nll=0.5), diverged],
            "E": [diverged, diverged],
        },
    )
    assert flags.noise(rows["A/h=1"], found) == pytest.approx(statistics.stdev([1.0, 0.9]))
    pooled = math.sqrt((2 * 0.1**2 + statistics.variance([1.0, 0.9])) / 3)
    assert flags.noise(rows["A/h=4"], found) == pytest.approx(pooled)
    assert [name for name, row in rows.items() if flags.still_descending(row, found)] == ["A/h=1", "A/h=4"]
    assert flags.over_fitted(rows["A/h=16"], found)
    ((_, note),) = flags.of(rows["A/h=16"], found)
    assert "lowest at step 700 of 1,000" in note


def test_rows_that_are_all_worse_than_chance_are_held_against_their_own_noise(tmp_path):
    """As they are after few steps, which is no reason to call them finished."""
    rows, found = read(tmp_path, {name: [result([9.0, 8.5, 8.2, 7.5]), result([9.0, 8.6, 8.2, 7.4])] for name in "E"})
    assert flags.noise(rows["E"], found) == pytest.approx(statistics.stdev([7.5, 7.4]))
    assert flags.still_descending(rows["E"], found)


@diverged
def test_a_seed_that_diverged_hides_no_plateau(tmp_path, diverged):
    """It tells nothing of how much the source can explain."""
    lost = {**diverged, "dev": {**diverged["dev"], "nll_without_source": 3.0}}
    rows, found = read(
        tmp_path,
        {"base": [result(FLAT, nll=1.0, without=5.0), lost], "A/h=1": [result(FLAT, nll=3.0, without=3.06)]},
    )
    assert flags.on_plateau(rows["A/h=1"], found)


@pytest.mark.parametrize(("losses", "edge"), [((0.9, 1.0, 1.1), True), ((1.0, 0.9, 1.1), False)])
def test_a_row_tuned_to_the_edge_of_its_grid_is_unfinished(tmp_path, losses, edge):
    grid = {"optim.lr_factor": [0.5, 1.0, 2.0]}
    asked = tuning.Asked("E", {}, grid, (2, 3))
    losses_of = dict(zip(asked.points, losses, strict=True))
    for (point, values), nll in zip(asked.points.items(), losses, strict=True):
        for seed in (1, 2, 3):
            put(tmp_path, "table3/E@smoke", seed, overrides=values, folder=point, **result(FLAT, nll=nll))
    tuning.record(tmp_path / "table3@smoke", [(asked, losses_of)])
    put(tmp_path, "table3/E@smoke", 1, **result(FLAT))
    (found,) = reading.read([tmp_path])
    chosen = tuning.choose(asked, losses_of).point
    (row,) = (row for row in found.points if row.variant.name == chosen)
    (untuned,) = (row for row in found.rows if row.variant.name == "E")
    assert (flags.at_edge(row, found), flags.at_edge(untuned, found)) == (edge, False)
    assert flags.unfinished(row, found) == edge


def test_a_page_says_the_flags_of_all_rows_in_a_line_each_once_every_row_is_done(tmp_path):
    planted = {variant.name: SPREAD for variant in registry.sweep("table3").variants}
    for name, losses in (("A/h=4", [3.0, 1.6, 1.2, 1.0]), ("big", [3.0, 1.5, 1.1, 0.8]), ("E", [0.5, 0.6, 0.7, 0.8])):
        planted[name] = [result(losses, nll=nll) for nll in (0.8, 0.81, 0.82)]
    late = planted.pop("C/N=2")
    _, found = read(tmp_path, planted)
    table = summary_table.build(found)
    assert table.columns[-1].title == "runs"  # one is missing
    assert {row[0]: row[-1] for row in table.rows}["C/N=2"] == "missing"
    assert [note for note in table.notes if note.startswith("[1] Still descending: over")]
    _, found = read(tmp_path, {"C/N=2": late})
    table = summary_table.build(found)
    assert "runs" not in [column.title for column in table.columns]
    assert [note.partition(":")[0] for note in table.notes[-2:]] == [
        "Still descending (A/h=4, big)",
        "Over-fitted (E)",
    ]
    assert not any("[1]" in text for row in (*table.rows, table.notes) for text in row)


def test_where_a_row_has_a_flag_of_its_own_a_page_keeps_the_column_that_says_it(tmp_path):
    planted = {variant.name: SPREAD for variant in registry.sweep("table3").variants}
    equal = result(FLAT) | {"train": {**result(FLAT)["train"], "final_loss": 1.0}}
    _, found = read(tmp_path, planted | {"E": [equal] * 3})
    states = {row[0]: row[-1] for row in summary_table.build(found).rows}
    assert states["E"].startswith("3 done, equal seeds")
    assert states["base"] == "3 done"

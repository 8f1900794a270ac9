"""Statistics of differences between rows, against scipy's and sacreBLEU's own answers and simulated seeds."""

import math
import statistics

import numpy as np
import pytest
import sacrebleu.significance
from fabricated import cells, put, table_of
from scipy.stats import chi2, dunnett, t, ttest_ind, ttest_rel

from experiments.report import (
    bootstrap,
    differences_table,
    main_table,
    noise,
    power,
    reading,
    summary_table,
    tables,
    transfer,
)
from experiments.report.metrics import BLEU, NLL
from tx.evaluation.scores import bleu_from_stats, score


def read(folder):
    (found,) = reading.read([folder])
    return found


def drawn(rng, means, seeds=3, spread=1.0):
    return {str(i): list(rng.normal(mean, spread, seeds)) for i, mean in enumerate(means)}


@pytest.mark.parametrize("sizes", [(3, 3), (3, 3, 3, 3), (5, 2, 3, 4)])
def test_intervals_are_those_of_scipys_dunnett(sizes):
    rng = np.random.default_rng(7)
    control, *others = [list(rng.normal(size=size)) for size in sizes]
    ours = noise.compare(control, dict(enumerate(others))).intervals
    ends = dunnett(*others, control=control, rng=1).confidence_interval(0.95)
    for i in ours:
        assert (ours[i].low, ours[i].high) == pytest.approx((ends.low[i], ends.high[i]), rel=0.02, abs=0.02)
    assert noise.compare(control, dict(enumerate(others))) == noise.compare(control, dict(enumerate(others)))


@pytest.mark.parametrize("seeds", [(3, 3, 3, 3, 3), (3, 3, 1, 1, 1)])
def test_coverage_and_false_alarms_of_simulated_seeds(seeds):
    """In 95% of tables all intervals hold the truth; 400 tables: 95% less or more 3.3 (three standard errors)."""
    rng, planted, held, alarms = np.random.default_rng(3), [0.0, 0.0, 0.0, 1.5, -4.0], 0, 0
    for _ in range(400):
        rows = {
            i: list(rng.normal(mean, 1.0, count)) for i, (mean, count) in enumerate(zip(planted, seeds, strict=True))
        }
        found = noise.compare(list(rng.normal(0.0, 1.0, 3)), rows).intervals.values()
        held += all(one.low < true < one.high for one, true in zip(found, planted, strict=True))
        alarms += any(one.sign for one, true in zip(found, planted, strict=True) if not true)
    assert 0.917 <= held / 400 <= 0.983
    assert alarms / 400 <= 0.083


def test_what_so_many_seeds_resolve_is_found_so_often():
    """Of differences that 4 seeds are said to resolve among 5 rows 80% are found; Dunnett's test finds some more."""
    rng, found = np.random.default_rng(5), 0
    planted = power.resolution(1.0, 4, 5)
    for _ in range(400):
        rows = drawn(rng, [planted, 0.0, 0.0, 0.0, 0.0], seeds=4)
        found += noise.compare(list(rng.normal(0.0, 1.0, 4)), rows).intervals["0"].sign > 0
    assert 0.74 <= found / 400 <= 0.90


def test_seeds_needed_are_the_least_that_resolve_it():
    for difference in (0.9, 1.7, 5.0):
        needed = power.seeds_to_tell(1.0, difference, 4)
        assert power.resolution(1.0, needed, 4) <= difference
        assert needed == 2 or power.resolution(1.0, needed - 1, 4) > difference
    assert power.seeds_to_tell(1.0, 0.1) is None
    assert power.seeds_to_tell(1.0, 0.0) is None
    # By hand, of many seeds: (1.96 + 0.84) sd sqrt(2 / n).
    assert power.resolution(1.0, 1000) == pytest.approx(2.802 * math.sqrt(2 / 1000), rel=0.005)


def test_equivalence_is_two_one_sided_tests():
    one, other, margin = [10.0, 10.2, 9.9], [10.1, 10.0, 10.15, 10.2], 0.5
    errors = [statistics.variance(sample) / len(sample) for sample in (one, other)]
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / 2 + errors[1] ** 2 / 3)  # Welch and Satterthwaite
    difference = statistics.fmean(other) - statistics.fmean(one)
    expected = t.sf((margin - abs(difference)) / math.sqrt(sum(errors)), freedom)
    assert noise.equivalence(one, other, margin) == pytest.approx(expected)
    assert noise.equivalence(other, one, margin) == pytest.approx(expected)
    assert noise.equivalence(one, [x + 3 for x in other], margin) > 0.95
    for nothing in (([1.0], other, 1.0), ([1.0, 1.0], [2.0, 2.0], 5.0), (one, other, 0.0)):
        assert noise.equivalence(*nothing) is None


def test_a_row_no_worse_is_one_of_these_tests():
    one, other, margin = [10.0, 10.2, 9.9], [10.1, 10.0, 10.15, 10.2], 0.5
    for side, alternative, shift in ((-1, "less", -margin), (1, "greater", margin)):
        expected = ttest_ind(np.add(other, shift), one, equal_var=False, alternative=alternative).pvalue
        assert noise.equivalence(one, other, margin, side) == pytest.approx(expected)
    assert noise.equivalence(one, [x - 9 for x in other], margin, -1) < 0.001 < 0.99
    assert noise.equivalence(one, [x - 9 for x in other], margin, 1) > 0.99


@pytest.mark.parametrize(("margin", "difference"), [(1.0, 0.0), (1.5, 0.0), (1.0, 0.1), (1.0, 0.3)])
@pytest.mark.parametrize("side", [0, -1])
def test_seeds_needed_to_equate_show_it_in_four_of_five_cases(margin, difference, side):
    """Simulated; 3.3 standard errors of 1,000 draws are 4%, and of few seeds the two tests pass together more often."""
    rooms = (margin - difference,) if side else (margin - difference, margin + difference)
    needed, rng = power.seeds_to_equate(1.0, *rooms), np.random.default_rng(5)
    shown = 0
    for _ in range(1000):
        one, other = rng.normal(0, 1, needed).tolist(), rng.normal(difference, 1, needed).tolist()
        shown += noise.equivalence(one, other, margin, side) < 0.05
    assert 0.76 < shown / 1000 < 0.88
    assert power.seeds_to_equate(1.0, 0.1) is None
    assert power.seeds_to_equate(0.002, 0.02) == power.seeds_to_equate(0.139, 1.5, 1.95) == 2  # far within it


def test_rows_just_beyond_the_margin_are_seldom_called_equivalent():
    rng, called = np.random.default_rng(11), 0
    for _ in range(300):
        p = noise.equivalence(list(rng.normal(0.0, 0.4, 4)), list(rng.normal(1.0, 0.4, 4)), 1.0)
        called += p < 0.05
    assert called / 300 <= 0.09  # 5% and three standard errors


# Rows of the same trainings, seed by seed


def blocks(rng, means, seeds, own=1.0, shared=5.0):
    """Numbers of rows that share what each seed adds."""
    of_seed = rng.normal(0.0, shared, seeds)
    return [list(of_seed + rng.normal(mean, own, seeds)) for mean in means]


def test_seed_by_seed_one_row_is_tested_as_scipys_paired_t_does():
    one, other = blocks(np.random.default_rng(3), [0.0, 2.0], 5)
    ends = ttest_rel(other, one).confidence_interval(0.95)
    (found,) = noise.compare(one, {"row": other}, seed_by_seed=True).intervals.values()
    for interval in (found, noise.of_pair(one, other, True)):
        assert (interval.low, interval.high) == pytest.approx((ends.low, ends.high))
    assert noise.of_pair(one, other, False) == noise.welch(one, other)
    shifted = ((other, np.add(one, 3.0), "less"), (other, np.add(one, -3.0), "greater"))
    tests = [ttest_rel(a, b, alternative=side).pvalue for a, b, side in shifted]
    assert noise.equivalence(one, other, 3.0, seed_by_seed=True) == pytest.approx(max(tests))
    for side, p in zip((-1, 1), tests, strict=True):
        assert noise.equivalence(one, other, 3.0, side, seed_by_seed=True) == pytest.approx(p)
    assert noise.equivalence(one, list(one), 0.1, seed_by_seed=True) == 0.0  # as of what decoding does not touch
    assert noise.equivalence(one, [x + 1 for x in one], 0.1, seed_by_seed=True) == 1.0


def test_seed_by_seed_the_spread_is_what_rows_and_seeds_leave():
    """The residual of a least-squares fit of a number for each row and for each seed."""
    samples = blocks(np.random.default_rng(4), [0.0, 1.0, 3.0, -2.0], 3)
    design = [
        [float(i == row) for row in range(4)] + [float(j == seed) for seed in (1, 2)]
        for i in range(4)
        for j in range(3)
    ]
    _, (squares,), rank, _ = np.linalg.lstsq(design, np.ravel(samples))
    known = noise.compare(samples[0], dict(enumerate(samples[1:])), seed_by_seed=True)
    assert known.spread == pytest.approx(math.sqrt(squares / (12 - rank)))
    assert known.spread < noise.compare(samples[0], dict(enumerate(samples[1:]))).spread
    differences = [statistics.fmean(one) - statistics.fmean(samples[0]) for one in samples[1:]]
    assert [one.difference for one in known.intervals.values()] == pytest.approx(differences)


@pytest.mark.parametrize("alike", [False, True])
def test_seed_by_seed_intervals_hold_the_truth_in_so_many_tables(alike):
    """Of 400, 95% less or more 3.3, of rows alike in threes too; taken for samples of their own, none is told apart."""
    rng, planted, held, told = np.random.default_rng(8), [0.0] * 7 + [5.0], 0, [0, 0]
    for _ in range(400):
        own = rng.normal(0.0, 1.0, (9, 3))
        own = np.repeat(own[:3], 3, axis=0) + 0.1 * own if alike else own
        control, *others = (own + rng.normal(0.0, 9.0, 3) + np.array([[0.0, *planted]]).T).tolist()
        for paired in (True, False):
            found = noise.compare(control, dict(enumerate(others)), paired).intervals.values()
            told[paired] += [one.sign for one in found][-1]
            if paired:
                held += all(one.low < true < one.high for one, true in zip(found, planted, strict=True))
    assert 0.917 <= held / 400 <= 0.983
    assert told[True] > 250 > 20 > told[False]


def test_seed_by_seed_rows_of_the_same_numbers_are_one_row():
    control, other, another = blocks(np.random.default_rng(6), [0.0, 1.0, 2.0], 3)
    alone = noise.compare(control, {"a": other, "b": another}, seed_by_seed=True)
    copies = noise.compare(control, {"a": other, "b": another, "c": other, "d": control}, seed_by_seed=True)
    assert (copies.spread, copies.sources) == (alone.spread, alone.sources)
    assert copies.intervals == alone.intervals | {"c": alone.intervals["a"], "d": (0.0, 0.0, 0.0)}
    assert noise.compare(control, {"d": control}, seed_by_seed=True).intervals == {"d": (0.0, 0.0, 0.0)}
    assert noise.compare(control[:1], {"a": other[:1]}, seed_by_seed=True).intervals == {}


def test_rows_that_take_the_parameters_of_one_training_are_compared_seed_by_seed(tmp_path):
    for seed, of_seed in enumerate((30.0, 34.0, 38.0), 1):
        put(tmp_path, "regularised/base@smoke", seed, bleu=of_seed)
        trainer = {"trained_in": f"../../base/seed{seed}"}
        put(tmp_path, "regularised/average=5@smoke", seed, bleu=of_seed + 1 + 0.1 * (seed == 2), **trainer)
    found = read(tmp_path)
    base, average = found.rows[:2]
    assert noise.paired(BLEU, base, average)
    interval = noise.intervals(found, BLEU)["average=5"]
    assert interval.sign == 1
    ends = ttest_rel([31.0, 35.1, 39.0], [30.0, 34.0, 38.0]).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((ends.low, ends.high))
    known = differences_table.intervals(found)
    assert differences_table.BLOCKS in differences_table.notes(found, known)
    put(tmp_path, "regularised/published@smoke", 1, bleu=50.0)  # of no block
    found = read(tmp_path)
    assert noise.intervals(found, BLEU)["average=5"].sign == 0
    assert f"average=5: {differences_table.NO_SAMPLE}" in differences_table.notes(found, known)


def test_what_is_not_finite_is_left_out_and_nothing_is_tested_without_spread():
    known = noise.compare([1.0, 1.1, 1.2], {"a": [2.0, 2.1], "b": [3.0]})
    # By hand, but for how far an interval reaches: of one number it is sqrt(1 + 1/3) standard deviations a unit.
    (a, b), spread = known.intervals.values(), math.sqrt((0.02 + 0.005) / 3)
    assert known.spread == pytest.approx(spread)
    assert (b.high - b.difference) / (a.high - a.difference) == pytest.approx(math.sqrt((1 + 1 / 3) / (1 / 2 + 1 / 3)))
    assert noise.compare([1.0, 1.1, 1.2], {"a": []}).intervals == {}
    assert noise.compare([1.0], {"a": [2.0, 2.1]}).intervals == {}
    (alone,) = noise.compare([1.0, 1.1, 1.2], {"b": [3.0]}).intervals.values()  # a prediction interval of one more
    assert alone.high - alone.difference == pytest.approx(t.ppf(0.975, 2) * 0.1 * math.sqrt(1 + 1 / 3))
    assert noise.compare([1.0, 1.0], {"a": [2.0, 2.0]}).intervals == {}
    assert noise.compare([1e300, 2e300], {"a": [2e300, -1e308]}).intervals == {}
    assert noise.welch([1.0, 1.0], [2.0, 2.0]) is None


SENTENCES = [f"the cat number {i} sat on the mat of house {i % 7} today" for i in range(60)]


def spoilt(rng, share):
    """Translations of which some words are others."""
    return [" ".join(w if rng.random() > share else "x" for w in line.split()) for line in SENTENCES]


@pytest.fixture(scope="module")
def systems():
    rng = np.random.default_rng(2)
    return {"base": spoilt(rng, 0.3), "E": spoilt(rng, 0.3), "big": spoilt(rng, 0.1)}


@pytest.fixture(scope="module")
def stats(systems):
    return {name: score(lines, SENTENCES, "en")["stats"] for name, lines in systems.items()}


def test_bleu_of_many_sums_is_sacrebleus_one_at_a_time(stats):
    rng = np.random.default_rng(0)
    some = [np.array(stats["base"])[rng.integers(60, size=size)] for size in (1, 1, 2, 5, 60) for _ in range(20)]
    some.append(np.array([[5, 5, 2, 1, 0, 0, 5, 4, 3, 2]]))  # no match of the longer n-grams
    some.append(np.array([[2, 4, 2, 1, 0, 0, 2, 1, 0, 0]]))  # nor any of them at all
    some.append(np.zeros((1, 10), int))
    ours = bootstrap.corpus_bleu(np.array([one.sum(axis=0) for one in some], float))
    assert list(ours) == pytest.approx([bleu_from_stats(one.tolist()) for one in some])


def put_scores(folder, row, seed, stats, bleu=None, **more):
    scores = {"sentences": 60, "bleu": bleu or bleu_from_stats(stats), "signature": "s", "chrf": 1.0, "stats": stats}
    scores |= {"bleu_tokenized": 1.0, "bleu_compound": 1.0, "bleu_lower": 1.0, "exact_match": 0.0}
    put(folder, f"table3/{row}@smoke", seed, tests={"test": scores}, **more)


def test_of_one_seed_it_is_sacrebleus_paired_bootstrap(tmp_path, systems, stats):
    for row, own in stats.items():
        put_scores(tmp_path, row, 1, own)
    ours = bootstrap.bleu_intervals(read(tmp_path))
    named = [(row, systems[row]) for row in systems]
    metric = sacrebleu.BLEU()
    theirs = sacrebleu.significance.PairedTest(named, {"BLEU": metric}, [SENTENCES], "bs", n_samples=1000)()[1]["BLEU"]
    for row, result in zip(systems, theirs, strict=True):
        if row != "base":
            assert not ours[row].over_seeds
            assert ours[row].interval.difference == pytest.approx(result.score - theirs[0].score)
    assert ours["big"].interval.sign == 1
    assert theirs[2].p_value < 0.05
    assert (ours["E"].interval.sign == 0) == (theirs[1].p_value > 0.05)


def test_seeds_that_differ_widen_the_bootstrap(tmp_path, stats):
    rng = np.random.default_rng(4)
    for folder, shares in (("alike", (0.3, 0.3, 0.3)), ("apart", (0.1, 0.3, 0.6))):
        for seed, share in enumerate(shares):
            for row in ("base", "E"):
                own = score(spoilt(rng, share if row == "E" else 0.3), SENTENCES, "en")["stats"]
                put_scores(tmp_path / folder, row, seed, own)
    widths = {}
    for folder in ("alike", "apart"):
        one = bootstrap.bleu_intervals(read(tmp_path / folder))["E"]
        assert one.over_seeds
        widths[folder] = one.interval.high - one.interval.low
    assert widths["apart"] > 2 * widths["alike"]


def test_other_sentences_are_not_paired(tmp_path, stats):
    put_scores(tmp_path, "base", 1, stats["base"])
    put_scores(tmp_path, "E", 1, stats["E"][:-1])
    put_scores(tmp_path, "big", 1, [[s, r + 1, *more] for s, r, *more in stats["big"]])
    assert bootstrap.bleu_intervals(read(tmp_path)) == {}


def fill(folder):
    """Two rows by hand: E differs by 0.1 where seeds do by 1, big by 10."""
    for row, bleus in {"base": (30.0, 31.0, 32.0), "E": (30.1, 31.1, 32.1), "big": (40.0, 41.0, 42.0)}.items():
        for seed, bleu in enumerate(bleus, 1):
            put(folder, f"table3/{row}@smoke", seed, ppl=5.0 + (row == "big") + seed / 100, bleu=bleu)


def test_what_is_inside_the_noise_looks_so_in_every_form(tmp_path, capsys):
    fill(tmp_path)
    table = table_of(tmp_path)
    shown = cells(table)
    assert (shown["E"]["ΔBLEU ours"], shown["big"]["ΔBLEU ours"]) == ("(+0.1)", "+10.0")
    assert (shown["E"]["ΔPPL ours"], shown["big"]["ΔPPL ours"]) == ("(+0.00)", "+1.00")
    assert any(note.startswith("(Δ): inside the noise") for note in table.notes)
    records = {record["row"]: record for record in table.records}
    assert (records["E"]["bleu_inside_noise"], records["big"]["bleu_inside_noise"]) == (True, False)
    assert records["A/h=1"]["bleu_inside_noise"] is None
    assert "| (+0.1) |" in tables.to_markdown(table).replace("     ", " ").replace("  ", " ").replace("  ", " ")
    assert "& (+0.1) &" in tables.to_latex(table)
    assert ",True" in tables.to_csv(table)
    console = tables.console()
    tables.print_table(table, console)
    assert "(+0.1)" in capsys.readouterr().out


def test_the_table_of_differences_by_hand(tmp_path):
    fill(tmp_path)
    found = read(tmp_path)
    table = differences_table.build(found)
    record = {record["row"]: record for record in table.records}["big"]
    # Pooled sd 1, 6 degrees of freedom, two comparisons: scipy's own Dunnett test.
    ends = dunnett([30.1, 31.1, 32.1], [40.0, 41.0, 42.0], control=[30.0, 31.0, 32.0], rng=1).confidence_interval()
    assert record["bleu_difference"] == pytest.approx(10.0)
    assert (record["bleu_low"], record["bleu_high"]) == pytest.approx((ends.low[1], ends.high[1]), abs=0.02)
    assert [row[0] for row in table.rows] == ["E", "big"]
    assert cells(table)["E"]["ΔBLEU"] == "(+0.1)"
    assert noise.intervals(found, NLL)["big"].sign == 1
    assert noise.intervals(found, BLEU)["big"].sign == 1


def test_a_row_of_one_seed_is_judged_by_the_spread_of_the_others(tmp_path):
    fill(tmp_path)
    put(tmp_path, "table3/A/h=1@smoke", 1, ppl=90.0, bleu=1.0)
    found = read(tmp_path)
    assert noise.intervals(found, BLEU)["A/h=1"].sign == -1
    assert differences_table.SINGLE in differences_table.build(found).notes
    assert differences_table.UNKNOWN not in differences_table.build(found).notes


def test_what_is_rounded_alone_is_no_spread():
    """The mean of three times 0.1 is not 0.1."""
    assert noise.pooled([[0.1] * 3, [0.7] * 3]) == 0.0
    assert noise.compare([0.1] * 3, {"row": [0.7] * 3}).intervals == {}
    assert noise.pooled([[0.1] * 3, [1.0, 2.0, 3.0]]) == pytest.approx(math.sqrt(2 / 4))


def test_spreads_that_differ_are_told_by_bartletts_test():
    """Against its formula (Snedecor and Cochran 1989, section 13.10), on both sides of the level."""

    def p_bartlett(samples):
        freedom = np.array([len(one) - 1 for one in samples])
        variances = np.array([np.var(one, ddof=1) for one in samples])
        shared = freedom @ variances / freedom.sum()
        size = freedom.sum() * np.log(shared) - freedom @ np.log(variances)
        correction = 1 + ((1 / freedom).sum() - 1 / freedom.sum()) / (3 * (len(samples) - 1))
        return chi2.sf(size / correction, len(samples) - 1)

    rng = np.random.default_rng(0)
    told = []
    for apart in np.geomspace(1, 30, 40):
        samples = [rng.normal(0, sd, size).tolist() for sd, size in ((1, 3), (1, 4), (apart, 3), (1, 2))]
        told.append(noise.uneven(samples))
        assert (told[-1] is not None) == (p_bartlett(samples) < 0.05)
        if told[-1]:
            spreads = [np.std(one, ddof=1) for one in samples]
            assert told[-1] == pytest.approx((min(spreads), max(spreads)))
    assert 5 < sum(one is not None for one in told) < 35
    wide, narrow = [1.0, 5.0, 9.0], [2.0, 2.01, 2.02]
    assert noise.uneven([wide, narrow, [3.0], [7.0, 7.0, 7.0]]) == noise.uneven([wide, narrow])  # nor what is constant
    assert noise.uneven([wide]) is noise.uneven([]) is noise.uneven([wide, wide]) is None
    assert noise.compare(wide, {"row": narrow}).uneven == pytest.approx((0.01, 4.0))


def test_a_table_says_where_rows_scatter_unevenly(tmp_path):
    fill(tmp_path)
    assert not differences_table.uneven(read(tmp_path))
    for seed, bleu in enumerate((10.0, 30.0, 50.0), 1):
        put(tmp_path, "table3/A/h=1@smoke", seed, ppl=5.0 + seed / 1000, bleu=bleu)
    said = "Rows scatter unevenly between seeds (Bartlett's test) in BLEU, by 1 to 20. The intervals take one spread"
    for build in (main_table.build, differences_table.build):
        assert [note for note in build(read(tmp_path)).notes if note.startswith(said)]
    of_ppl = [summary_table.build, lambda found: transfer.build([found])]  # whose differences are of perplexity alone
    assert not [note for build in of_ppl for note in build(read(tmp_path)).notes if "scatter unevenly" in note]
    for seed, ppl in enumerate((2.0, 5.0, 9.0), 1):
        put(tmp_path, "table3/A/h=4@smoke", seed, ppl=ppl, bleu=30.0 + seed)
    said = "Rows scatter unevenly between seeds (Bartlett's test) in log PPL, by 0.0002 to 0.76. The intervals take"
    told = [[note for note in build(read(tmp_path)).notes if "scatter unevenly" in note] for build in of_ppl]
    assert [len(notes) for notes in told] == [1, 1]
    assert told[0][0].startswith(said)
    assert told[1][0].startswith(f"smoke: {said}")


def test_one_seed_is_said_to_be_of_unknown_noise(tmp_path, stats):
    put_scores(tmp_path, "base", 1, stats["base"])
    put_scores(tmp_path, "E", 1, stats["E"])
    table = table_of(tmp_path)
    assert cells(table)["E"]["ΔBLEU ours"].startswith("(")
    assert differences_table.ONE_SEED in table.notes
    assert "leaves out how much seeds differ" in differences_table.ONE_SEED
    assert differences_table.UNKNOWN in table.notes
    assert not any(note.startswith("(Δ)") for note in table.notes)


def test_a_report_says_what_its_seeds_resolve(tmp_path):
    fill(tmp_path)
    found = read(tmp_path)
    rows = 2  # that have results, of the 19 that the sweep has beside base
    said = power.sentence(found)
    assert said.startswith(
        f"Power: 3 seeds resolve {100 * math.expm1(power.resolution(_nll(found), 3, rows)):.2g}% perpl"
    )
    assert f"or {power.resolution(1.0, 3, rows):.2g} BLEU in 80% of all cases" in said
    assert "in BLEU over 30" in said
    assert said in table_of(tmp_path).notes
    assert power.sentence(found, 10).startswith("Power: 10 seeds resolve")


def test_rows_that_no_sweep_registers_are_compared_too(tmp_path):
    fill(tmp_path)
    for seed, bleu in enumerate((35.0, 36.0, 37.0), 1):
        put(tmp_path, "table3/base@smoke", seed, ppl=5.5 + seed / 100, bleu=bleu, folder="mine")
    assert f"or {power.resolution(1.0, 3, 3):.2g} BLEU in 80% of all cases" in power.sentence(read(tmp_path))


@pytest.mark.parametrize("losses", [(600.0, 3000.0), (9.0, 20.0, 1.5)])
def test_a_run_that_diverged_is_no_part_of_the_noise(tmp_path, losses):
    """Else no row would differ from any; nor is its row compared by the seeds that did not."""
    fill(tmp_path)
    before = read(tmp_path)
    for seed, nll in enumerate(losses, 1):
        ppl = math.exp(nll) if nll < 700 else math.inf
        put(tmp_path, "table3/C/N=2@smoke", seed, dev={"split": "validation", "ppl": ppl, "nll": nll, "tokens": 7})
    after = read(tmp_path)
    assert cells(table_of(tmp_path))["C/N=2"]["PPL ours"]
    known = [noise.intervals(found, NLL) for found in (before, after)]
    assert known[0] == known[1]
    assert power.sentence(after) == power.sentence(before)
    notes = [differences_table.build(found).notes for found in (before, after)]
    assert [differences_table.APART in one for one in notes] == [False, True]
    assert not any(differences_table.UNKNOWN in one for one in notes)


def test_a_run_that_diverged_is_compared_by_no_sentences_either(tmp_path, stats):
    put_scores(tmp_path, "base", 1, stats["base"])
    put_scores(tmp_path, "E", 1, stats["E"], ppl=1e9)
    assert differences_table.intervals(read(tmp_path)) == {"PPL": {}, "BLEU": {}}
    notes = table_of(tmp_path).notes
    assert differences_table.APART in notes
    assert not {differences_table.ONE_SEED, differences_table.NOTE} & set(notes)
    put_scores(tmp_path, "A/h=1", 1, stats["E"])
    assert set(differences_table.intervals(read(tmp_path))["BLEU"]) == {"A/h=1"}


def test_what_seeds_resolve_may_be_beyond_a_float():
    assert power._size("PPL", 1000.0) == "inf% perplexity"


def _nll(found):
    return noise.pooled([NLL.values(row) for row in found.rows if len(NLL.values(row)) > 1])

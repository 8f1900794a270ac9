"""Sweeps of thousands of runs: what a plan, a status, a look of the launcher and a report do grows as the runs do."""

import collections
import cProfile
import functools
import itertools
import pathlib
import pstats
import types

import numpy as np
import pytest
from fabricated import put
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_t

from experiments import launches, points, registry
from experiments.launches import AskedRow
from experiments.report import bootstrap, dunnett, noise, own_metrics, reading
from experiments.report.write import TABLES
from launch import command_line, plan, status
from launch.queue import Queue
from tx import files
from tx.runs.int_rows import IntRows
from tx.runs.lease import Holder


@pytest.fixture
def resolved(monkeypatch):
    """The names of the configurations that were resolved."""
    names, assemble = [], registry.assemble

    def counted(sweep, variant, *rest):
        names.append(variant.name)
        return assemble(sweep, variant, *rest)

    monkeypatch.setattr(registry, "assemble", counted)
    return names


@pytest.fixture
def opened(monkeypatch):
    """How often files of each name were opened to be read."""
    counts, before = collections.Counter(), files._opened

    def counted(path):
        counts[path.name] += 1
        return before(path)

    monkeypatch.setattr(files, "_opened", counted)
    return counts


def planned(workdir, *more):
    return plan.make(command_line.parser_of().parse_args(["table3@smoke", f"--workdir={workdir}", *more]))


def test_a_plan_resolves_each_variant_once_whatever_the_seeds(resolved, tmp_path):
    few, once = planned(tmp_path, "--only=base,big", "--seeds=2"), list(resolved)
    resolved.clear()
    many = planned(tmp_path, "--only=base,big", "--seeds=200")
    assert (len(few), len(many)) == (4, 400)
    assert sorted(resolved) == sorted(once) == ["base", "big"]
    assert {run.config.train.seed for run in many} == set(range(1, 201))


def test_a_status_resolves_each_row_once_and_reads_each_result_once(resolved, opened, tmp_path):
    asked = [AskedRow(name, name, {}, {}, tuple(range(1, 9))) for name in ("base", "big")]
    for name, seed in itertools.product(("base", "big"), range(1, 9)):
        put(tmp_path, f"table3/{name}@smoke", seed)
    launches.record(tmp_path / "table3@smoke", asked, {"imports": []})
    resolved.clear()
    opened.clear()
    found = list(status.find(tmp_path))
    assert collections.Counter(run.state.name for run in found) == {"done": 16}
    assert opened["result.json"] == 16
    assert max(collections.Counter(resolved).values()) <= 2  # the base is also what the others are held against
    assert not any(
        run.result.scores.stats for one in reading.read([tmp_path], abridged=True) for run in one.rows[0].runs
    )


def test_a_look_reads_of_the_runs_that_wait_only_the_next(monkeypatch, tmp_path):
    runs = planned(tmp_path, "--only=base", "--seeds=500")
    queue, looked, held = Queue([[run] for run in runs], retries=0), [], set()

    def holder(run):
        looked.append(run.seed)
        return Holder("elsewhere", 7, "training", 1e9, 0.0) if run.seed in held else None

    monkeypatch.setattr("launch.queue._holder", holder)
    assert queue.next() == [runs[0]]
    assert looked == [1]
    held |= {2, 3}
    assert queue.next() == [runs[3]]
    assert looked == [1, 2, 3, 4]
    assert sorted(queue.held()) == sorted(run.label for run in runs[1:3])
    assert not queue.held()  # each look says what it has found, and no more
    held |= set(range(1, 501))
    assert queue.next() is None
    looked.clear()
    assert queue.next() is None  # it has just looked
    assert not looked


def grid(workdir, size):
    """A sweep with size x size points of two seeds, one of them with one."""
    rows = []
    for dropout, factor in itertools.product(range(size), range(size)):
        point = {"model.dropout": dropout / 100, "optim.lr_factor": 1 + factor / 10}
        name = points.name("base", point)
        seeds = (1,) if dropout == factor == 0 else (1, 2)
        rows.append(AskedRow(name, "base", point, {}, seeds))
        for seed in seeds:
            ppl = 5 + dropout / 10 + factor / 20 + seed / 7
            put(workdir, "table3/base@smoke", seed, ppl, 30 + factor / 9 + seed / 3, overrides=point, folder=name)
    for seed in (1, 2):
        put(workdir, "table3/base@smoke", seed, 5 + seed / 5, 30 + seed)
    base = AskedRow("base", "base", {}, {}, (1, 2))
    launches.record(workdir / "table3@smoke", [base, *rows], {"imports": []})


def calls(workdir):
    """How many functions are called to read a sweep and to make its tables."""
    profile = cProfile.Profile()
    with profile:
        (found,) = reading.read([workdir])
        tables = [build(found) for build in TABLES.values()]
    assert len(tables[0].rows) > 1
    return pstats.Stats(profile).total_calls


@pytest.mark.slow
def test_the_tables_of_four_times_as_many_rows_take_four_times_the_calls(tmp_path):
    grid(tmp_path / "few", 3)
    grid(tmp_path / "many", 6)
    calls(tmp_path / "few")  # imports, caches
    few, many = calls(tmp_path / "few"), calls(tmp_path / "many")
    assert many < 4.4 * few


def test_metrics_are_looked_for_as_often_in_a_table_of_many_rows(tmp_path, monkeypatch):
    looked, known = [], own_metrics.known
    monkeypatch.setattr(own_metrics, "known", lambda results: looked.append(1) or known(results))
    counts = []
    for name, size in {"few": 3, "many": 6}.items():
        grid(tmp_path / name, size)
        looked.clear()
        calls(tmp_path / name)
        counts.append(len(looked))
    assert counts[0] == counts[1] > 0


def test_of_many_rows_the_critical_value_is_that_of_the_distribution(monkeypatch):
    sizes = (2, 3, 3, 5, 8)
    root = np.sqrt([size / (size + 4) for size in sizes])
    correlation = np.outer(root, root) + np.diag(1 - root**2)
    monkeypatch.setattr(dunnett, "SAMPLED", 1)
    dunnett.critical_value.cache_clear()
    freedom = 4 + sum(sizes) - 6
    reach = dunnett.critical_value(4, sizes, freedom, noise.LEVEL)
    rng, ends = np.random.default_rng(0), np.full(5, reach)
    within = multivariate_t.cdf(ends, lower_limit=-ends, shape=correlation, df=freedom, maxpts=10**5, random_state=rng)
    assert within == pytest.approx(noise.LEVEL, abs=3e-4)
    dunnett.critical_value.cache_clear()


def test_of_two_thousand_rows_so_many_samples_lie_within(monkeypatch):
    rows, seeds, draws = 2000, 3, 2000
    reach = dunnett.critical_value(seeds, (seeds,) * rows, (rows + 1) * (seeds - 1), noise.LEVEL)
    rng, freedom = np.random.default_rng(0), (rows + 1) * (seeds - 1)
    furthest = np.empty(draws)
    for i in range(draws):
        means = rng.normal(size=rows) - rng.normal()
        furthest[i] = np.abs(means).max() / np.sqrt(2 * rng.chisquare(freedom) / freedom)
    assert np.mean(furthest <= reach) == pytest.approx(noise.LEVEL, abs=0.02)  # four standard errors


def sampled_row(name, stats, trainer=None):
    """A row of runs that have (seeds, sentences, 10) statistics, which took the parameters of the trainer's."""
    data = types.SimpleNamespace(fingerprint="f", vocabulary_fingerprint="v")
    scores = [types.SimpleNamespace(stats=one.tolist()) for one in stats]
    taken = [trainer and f"../../{trainer}/seed{i}" for i in range(len(stats))]
    made = [
        types.SimpleNamespace(translated=True, scores=one, data=data, trained_in=other)
        for one, other in zip(scores, taken, strict=True)
    ]
    runs = [types.SimpleNamespace(path=pathlib.Path(name, f"seed{i}"), result=one) for i, one in enumerate(made)]
    return types.SimpleNamespace(variant=types.SimpleNamespace(name=name), results=made, runs=runs, measured={})


def random_stats(rng, seeds):
    stats = rng.integers(1, 9, size=(seeds, 20, 10))
    stats[..., 1] = 7  # lengths of references are the same for all
    return stats


def test_resampled_rows_are_those_of_each_pair():
    rng = np.random.default_rng(0)
    base, *others = [sampled_row(name, random_stats(rng, n)) for name, n in (("base", 3), ("a", 2), ("b", 1), ("c", 4))]
    each = bootstrap.bleu_intervals_of_each(base, others)
    assert each == {one.variant.name: bootstrap.bleu_interval(base, one) for one in others}


def test_resampled_seeds_are_the_same_for_rows_of_one_training():
    stats = random_stats(np.random.default_rng(1), 3)
    base, same, copy = (sampled_row(name, stats, trainer) for name, trainer in (("a", None), ("b", "a"), ("c", None)))
    assert bootstrap.bleu_interval(base, same).interval == (0.0, 0.0, 0.0)
    assert bootstrap.bleu_interval(base, copy).interval.high > 0.5


@given(st.lists(st.lists(st.integers(-(2**40), 2**40), min_size=3, max_size=3), min_size=1))
def test_rows_of_numbers_are_read_as_they_were(value):
    rows = IntRows.of(value)
    fits = all(-(2**31) <= number < 2**31 for row in value for number in row)
    assert (rows is not None) == fits
    if fits:
        assert rows.tolist() == value
        assert rows == tuple(map(tuple, value)) == tuple(rows)
        assert rows == IntRows.of(value)
        assert rows[0] == tuple(value[0])
        assert rows[-1:] == (tuple(value[-1]),)
        np.testing.assert_array_equal(np.array([rows, rows], float), np.array([value, value], float))


@pytest.mark.parametrize("value", [[], [[]], [[1], [1, 2]], [[True]], [[1.0]], [1], ((1,),), None, "ab"])
def test_what_is_no_such_rows_is_left_to_others(value):
    assert IntRows.of(value) is None


def test_launches_add_rows_behind_those_that_they_followed(tmp_path):
    made = functools.partial(AskedRow, variant="base", point={}, settings={}, seeds=(1,))
    for names in ("ad", "abcde", "xac"):
        launches.record(tmp_path, [made(name) for name in names], {"imports": [], "names": names})
    assert "".join(launches.read([tmp_path]).rows) == "abcdex"

"""Metrics of translations: built in and added, computed, kept in results, shown where nobody knows them any more."""

import csv
import importlib.util
import io

import fabricated
import pytest
import sacrebleu
from fabricated import cells, put

from experiments import frames, registry
from experiments.report import compare, reading, regression, tables
from launch import command_line, plan
from tx import components
from tx import config as config_lib
from tx.errors import UserError
from tx.evaluation import metrics
from tx.evaluation.translation import TranslatedSplit
from tx.fields import Field
from tx.files import digest
from tx.runs.result import RunResult
from tx.training.checks import check_config

SOURCES, REFERENCES = ["one", "two"], ["ein Haus am See", "zwei"]
TRANSLATIONS = ["ein Haus am Meer", "zwei oder drei"]


@pytest.fixture
def longest():
    """A metric of the test's own: the longest word, where it has so many letters."""

    @metrics.metrics.register("longest", "letters of the longest word", "lower", 0, least=Field(3, "letters"))
    def longest(given, *, least):
        assert given.result.metrics is None
        assert given.scores == given.result.tests["test"]
        found = max(len(word) for text in given.translations for word in text.split())
        return found if found >= least else None

    yield longest
    del metrics.metrics._registry._components["longest"], metrics.metrics._about["longest"]
    components.withdraw("probe.metrics", "longest")


def measured(translations=TRANSLATIONS, references=REFERENCES, **diff):
    """The metrics of sentences, by name, under these changes of a configuration."""
    config = registry.get_config("table3/base@smoke", {name.replace("__", "."): v for name, v in diff.items()})
    check_config(config)
    result = RunResult.from_dict(fabricated.result_of(config.to_dict()))
    split = TranslatedSplit({}, SOURCES, translations, references)
    return metrics.add(result, config, {result.split: split}).metrics


def test_built_in_ones_by_hand():
    found = measured(probe__metrics="length_ratio, ter")
    assert found["length_ratio"].values == {"test": pytest.approx(7 / 5)}
    assert found["ter"].values == {"test": pytest.approx(100 * (1 + 2) / 5)}  # a word replaced, two too many
    assert (found["ter"].better, found["length_ratio"].better) == ("lower", "neither")
    assert measured() is None


# References, translations, in how many characters these differ, and how many the references have.
WITHOUT_SPACES = {
    "zh": (["我今天 在北京买书。", "好"], ["我昨天在北京买笔。", "好"], 2, 10),
    "th": (["ฉันรักแมว", "ดี"], ["ฉันรักหมา", "ดี"], 2, 11),
}


@pytest.mark.parametrize("language", WITHOUT_SPACES)
@pytest.mark.parametrize("normalized", [False, True])
def test_edits_are_of_characters_where_there_are_no_spaces(language, normalized):
    references, translations, edits, characters = WITHOUT_SPACES[language]
    settings = {"probe__metrics": "ter", "probe__ter__normalized": normalized, "data__target": language}
    found = measured(translations, references, **settings)["ter"].values["test"]
    spaced = [[" ".join(text.replace(" ", "")) for text in side] for side in (translations, references)]
    assert sum(len(text.split()) for text in spaced[1]) == characters
    assert found == pytest.approx(100 * edits / characters)
    assert found == sacrebleu.TER(normalized=normalized).corpus_score(spaced[0], [spaced[1]]).score


def test_a_decorated_metric_is_known_by_its_own_file(tmp_path):
    modules = {}
    for name, code in {
        "wrapper": "import functools\ndef logged(f):\n    return functools.wraps(f)(lambda given: f(given))\n",
        "mine": "def mine(given):\n    return 1.0\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(code)
        spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
        modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    decorated = modules["wrapper"].logged(modules["mine"].mine)
    assert metrics._digest(decorated) == digest(tmp_path / "mine.py")[:12] != digest(tmp_path / "wrapper.py")[:12]


def test_one_of_ones_own_with_a_field(longest):
    found = measured(probe__metrics="longest")["longest"]
    assert (found.values, found.meaning, found.digits) == ({"test": 4.0}, "letters of the longest word", 0)
    assert len(found.code) == 12
    assert measured(probe__metrics="longest", probe__longest__least=5)["longest"].values == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "much"])
def test_what_is_no_number_is_refused(longest, monkeypatch, value):
    monkeypatch.setitem(metrics.metrics._registry._components, "longest", lambda given, *, least: value)
    with pytest.raises(UserError, match=r"probe\.metrics=longest gave .* for split test: a metric gives a finite"):
        measured(probe__metrics="longest")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("two words", "m"), "letters, digits and _"),
        (("BLEU", "m"), "no other score's"),
        (("attention", "m"), "no other score's or field's"),
        (("mine", "m", "best"), "one of higher, lower, neither; got 'best'"),
        (("mine", "two\nlines"), "is one line"),
        (("ter", "m"), "registered twice"),
    ],
)
def test_a_metric_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.metrics.register(*arguments)(lambda given: 1.0)


def test_any_number_is_chosen_and_brings_its_fields(longest):
    def names(**diff):
        return {name for name in config_lib.fields(updated(**diff)) if name.startswith("probe.")}

    def updated(**diff):
        return registry.get_config("table3/base@smoke", {name.replace("__", "."): v for name, v in diff.items()})

    both = {"probe.longest.least", "probe.ter.normalized"}
    assert names() == {"probe.attention", "probe.metrics"}
    assert names(probe__metrics="ter,longest") - names() == both
    assert names(probe__metrics="longest") - names() == {"probe.longest.least"}
    with pytest.raises(UserError, match=r"no probe\.metrics 'longst'; the nearest is 'longest'"):
        updated(probe__metrics="ter,longst")
    with pytest.raises(UserError, match=r"probe\.ter\.normalized belongs to probe\.metrics=ter; this run has none"):
        updated(probe__ter__normalized=True)


def theirs(value, better="lower", code="a" * 12):
    """What a result says of a metric that nobody here knows."""
    one = {"meaning": "of theirs", "better": better, "digits": 2, "values": {"test": value}, "code": code}
    return {"metrics": {"theirs": one}}


def test_a_metric_that_is_not_here_stays_a_column(tmp_path):
    for seed, value in ((1, 1.0), (2, 3.0)):
        folder = put(tmp_path, "table3/base@smoke", seed, **theirs(value))
    put(tmp_path, "table3/E@smoke", 1, **theirs(5.0, code="b" * 12))
    table = fabricated.table_of(tmp_path)
    assert [cells(table)[row]["theirs"] for row in ("base", "E", "big")] == ["2.00 ± 1.41", "5.00", ""]
    assert "theirs: of theirs; lower is better." in table.notes
    assert any("different code" in note and "a in base; b" in note for note in table.notes)
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(table))))
    assert (rows[0]["probe.theirs"], float(rows[0]["probe.theirs_sd"])) == ("2.0", pytest.approx(2**0.5))
    frame = frames.load(tmp_path)
    assert sorted(frame["probe.theirs"].dropna()) == [1.0, 3.0, 5.0]
    again = RunResult.from_json((folder / "result.json").read_text())
    assert RunResult.from_json(again.to_json()) == again
    assert again.metrics["theirs"].values == {"test": 3.0}


@pytest.mark.parametrize(("better", "worse"), [("lower", True), ("higher", False), ("neither", False)])
def test_what_is_worse_by_a_metric_is_a_regression(tmp_path, better, worse):
    for side, start in (("a", 1.0), ("b", 9.0)):
        for seed in (1, 2, 3):
            put(tmp_path / side, "table3/base@smoke", seed, **theirs(start + seed / 10, better))
    pair = [reading.read([tmp_path / side])[0] for side in "ab"]
    assert cells(compare.build(*pair))["base"]["Δtheirs"] == "+8.00 ± 0.08"
    found = regression.regressions({"base": tuple(one.rows[0] for one in pair)})
    assert [line.startswith("base: theirs +8.00 [") for line in found.lines] == [True] * worse


def test_metrics_alone_train_nothing(tmp_path):
    arguments = ["table3/base@smoke", "--grid=probe.metrics=ter", f"--workdir={tmp_path}"]
    base, point = plan.make(command_line.parser_of().parse_intermixed_args(arguments))
    assert (base.trained_in, point.trained_in.path) == (None, base.folder.path)
    assert (base.point, point.point) == ({}, {"probe.metrics": "ter"})

"""result.json as types: what is read is written again to the letter, and what is wrong with it is named."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest
from fabricated import put
from hypothesis import given
from hypothesis import strategies as st

from tx.errors import UserError
from tx.files import to_json
from tx.renamed_fields import with_new_names
from tx.runs import state
from tx.runs.result import Evaluation, RunResult
from tx.runs.run_dir import RunDir

COMMITTED = sorted(pathlib.Path(__file__).parent.parent.glob("experiments/results/**/result.json"))


@pytest.fixture(scope="module")
def fabricated(tmp_path_factory):
    path = put(tmp_path_factory.mktemp("runs"), "table3/base@smoke", 1)
    return json.loads((path / "result.json").read_text())


@pytest.mark.parametrize(
    "paths",
    [
        [path for path in COMMITTED if path.parent.name == "seed1"],  # what a result has is the same for its seeds
        pytest.param([path for path in COMMITTED if path.parent.name != "seed1"], marks=pytest.mark.slow),
    ],
    ids=("first seeds", "the others"),
)
def test_every_committed_result_is_read_whole_and_written_to_the_letter(paths):
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        plain = with_new_names(json.loads(text))
        plain["config"] = with_new_names(plain["config"])
        result = RunResult.from_json(text)
        assert result.to_json() == to_json(plain), path
        assert to_json(json.loads(text)) == text
        assert records_with_others(result) == [], path
        assert result.dev.nll == plain["dev"]["nll"]
        assert result.scores.bleu == plain["tests"][plain["decode"]["splits"].partition(",")[0]]["bleu"]
        assert len(result.curve) == len(plain["curve"])


def records_with_others(record):
    values = [getattr(record, field.name) for field in dataclasses.fields(record)]
    parts = [part for value in values for part in (value if isinstance(value, tuple) else [value])]
    parts += [part for value in values if isinstance(value, dict) for part in value.values()]
    found = [type(record).__name__] if record.others else []
    return found + [name for part in parts if hasattr(part, "others") for name in records_with_others(part)]


def edited(value, field, new):
    """A copy of a nested dict in which a dotted field has a new value, or is gone for None."""
    copy = node = json.loads(json.dumps(value))
    *keys, last = field.split(".")
    for key in keys:
        node = node[key]
    node.pop(last, None) if new is None else node.update({last: new})
    return copy


@pytest.mark.parametrize(
    ("field", "new", "reason"),
    [
        ("dev.ppl", None, "dev.ppl is missing"),
        ("dev.ppl", "5.0", "dev.ppl should be a number, and is text"),
        ("dev.ppl", True, "dev.ppl should be a number, and is true or false"),
        ("dev", [], "dev should be an object, and is a list"),
        ("params", 1.5, "params should be a whole number, and is a number"),
        ("params", 10**400, "params is too long a number"),
        ("tests.a_split.chrf", {}, "tests.a_split.chrf should be a number, and is an object"),
        ("tests.test", None, "tests.test is missing"),
        ("code", 7, "code should be text, and is a whole number"),
        ("config.data.corpus", 3, "config.data.corpus is no text"),
        ("config.decode.splits", None, "config.decode.splits is missing"),
        ("format", 2, "format is 2, and this version reads 1"),
    ],
)
def test_what_a_table_needs_is_there_or_named(fabricated, tmp_path, field, new, reason):
    damaged = edited(fabricated, field, new)
    with pytest.raises(UserError) as raised:
        RunResult.from_dict(damaged)
    assert str(raised.value) == reason
    run = RunDir(tmp_path)
    run.result.write_text(json.dumps(damaged))
    with pytest.raises(UserError) as raised:
        run.read_result()
    assert str(run.result) in str(raised.value)
    assert reason in str(raised.value)
    found, result = state.read(run)
    assert (found.name, found.finished, result) == ("failed", True, None)
    assert f"result.json is damaged (no result of this version: {reason})" in found.reason


@pytest.mark.parametrize("text", ["", "{", "[" * 50_000])
def test_what_is_not_json_is_called_so(text):
    with pytest.raises(UserError, match="it is not JSON"):
        RunResult.from_json(text)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
# Fields of other versions, and known ones that a result need not have, which another version may have given a type.
FREE = ("added", "others", "dev.added", "dev.tokens", "train.longest", "tests.test.lengths", "tests.test.added")
FREE += ("dev_best", "curve", "attention", "numerics", "versions", "device.threads", "timing.stacked", "decode.task")


@given(field=st.sampled_from(FREE), new=ANY_JSON)
def test_what_other_versions_say_is_kept_as_it_is(fabricated, field, new):
    *keys, last = field.split(".")
    told = node = json.loads(json.dumps(fabricated))
    for key in keys:
        node = node[key]
    node[last] = new
    assert RunResult.from_dict(told).to_json() == to_json(told)


def test_what_is_not_of_its_type_is_not_known_where_it_need_not_be_there(fabricated):
    for new in (None, "twelve", {}, True):
        result = RunResult.from_dict(fabricated | {"dev_best": new, "curve": [{"step": new}]})
        assert (result.dev_best, result.curve) == (None, None)
        assert result.to_dict()["dev_best"] == new
    best = {"step": 3, "nll": 0.5, "ppl": 1.6}
    result = RunResult.from_dict(fabricated | {"dev_best": best, "curve": [{"step": 3, "loss": 1}]})
    assert result.dev_best == Evaluation(step=3, nll=0.5, ppl=1.6)
    assert result.curve == ({"step": 3, "loss": 1},)
    replaced = dataclasses.replace(RunResult.from_dict(fabricated | {"dev_best": None}), dev_best=result.dev_best)
    assert replaced.to_dict()["dev_best"] == best


def test_device_hours_are_of_the_devices_of_each_stretch_where_its_seconds_are_known(fabricated):
    few = {"step": 5, "device": {"kind": "Some CPU", "count": 1}, "versions": {}, "program": {}, "seconds": 1200.0}
    many = few | {"step": 1, "device": few["device"] | {"count": 4}, "seconds": 1800.0}
    assert RunResult.from_dict(fabricated).device_hours == 1  # 50 minutes of training and 10 of translating
    assert RunResult.from_dict(fabricated | {"origins": [many, few]}).device_hours == (2 * 60 + 20 + 10) / 60
    del few["seconds"]
    assert RunResult.from_dict(fabricated | {"origins": [many, few]}).device_hours == 1


def test_a_field_of_the_configuration_is_read_under_its_old_name(fabricated):
    told = json.loads(json.dumps(fabricated))
    for decode in (told["decode"], told["config"]["decode"]):
        del decode["task"]
        decode["asks"] = "last"
    before = json.dumps(told)
    result = RunResult.from_json(before)
    assert not result.translated
    assert (result.decode.others, result.config["decode"]["task"]) == ({}, "last")
    assert RunResult.from_dict(told) == result
    assert json.dumps(told) == before


def test_reading_results_needs_no_jax():
    code = "import sys, tx.runs.result; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

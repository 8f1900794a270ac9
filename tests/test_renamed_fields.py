"""Fields that were renamed: what is stored under the old names reads as before, and who writes one is told the new."""

import copy
import json
import pathlib

import pytest
from fabricated import cells, put, table_of

from experiments import registry
from experiments.report import compare, reading
from launch import local
from tx import config as config_lib
from tx import train
from tx.errors import UserError
from tx.renamed_fields import NEW_NAMES, names_of, with_new_names
from tx.runs.run_dir import RunDir

NAMES = list(NEW_NAMES.items())


def exits(capsys, main, *arguments):
    """Standard error of a command that the user has to mend."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    return capsys.readouterr().err


def leaf(field):
    return field.rpartition(".")[2]


def aged(config):
    """A configuration as it was written before any field was renamed."""
    config = copy.deepcopy(config)
    for old, new in NAMES:
        section = old.partition(".")[0]
        config[section][leaf(old)] = config[section].pop(leaf(new))
    return config


def age(path):
    """Rewrites the result.json of a run's folder as it was then."""
    result = json.loads((path / "result.json").read_text())
    result["config"] = aged(result["config"])
    result["decode"]["asks"] = result["decode"].pop("task")
    (path / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize(("old", "new"), NAMES)
def test_a_new_name_is_a_field_of_the_same_section_and_an_old_one_is_none(old, new):
    known = config_lib.fields(config_lib.get_config())
    assert new in known
    assert old not in known
    assert old.partition(".")[0] == new.partition(".")[0]
    assert names_of(new) == [new, old]
    assert names_of("model.d_k") == ["model.d_k"]


def test_an_old_configuration_is_read_under_new_names():
    config = registry.get_config("add_norm/post/no-warmup@recall").to_dict()
    old = aged(config)
    assert "ramp" in old["optim"]
    assert "linear_warmup" not in old["optim"]
    before = copy.deepcopy(old)
    assert with_new_names(old) == config == with_new_names(config)
    assert old == before


@pytest.mark.parametrize("config", [{}, {"data": 3, "model": None}, {"data": ["shortest"]}, {"optim": {"ramp": {}}}])
def test_whatever_is_stored_is_read(config):
    assert with_new_names(config).keys() == config.keys()


def test_a_field_under_both_names_keeps_both():
    both = {"data": {"shortest": 0.5, "max_length_quantile": 0.7}}
    assert with_new_names(both) == both


def test_the_files_of_a_run_are_read_so(tmp_path):
    path = put(tmp_path, "positions/rotary@smoke", 1)
    wanted = RunDir(path).read("result")
    age(path)
    (path / "config.json").write_text(json.dumps({"config": aged(wanted["config"])}))
    assert json.loads((path / "result.json").read_text())["config"]["data"]["shortest"] == 0.7
    assert RunDir(path).read("result") == wanted
    assert RunDir(path).read("config") == {"config": wanted["config"]}


@pytest.mark.parametrize("name", ["positions/rotary@smoke", "add_norm/post/no-warmup@smoke", "table3/base@recall"])
def test_an_old_result_is_not_stale(tmp_path, name):
    _, old = (put(tmp_path / side, name, 1) for side in ("new", "old"))
    age(old)
    tables = [table_of(tmp_path / side) for side in ("new", "old")]
    assert cells(tables[0]) == cells(tables[1])
    assert cells(tables[1])[registry.parse(name).variant.name]["runs"] == "done"
    assert reading.read_run(old, 1).result.translated == ("recall" not in name)
    sides = [reading.read([tmp_path / side])[0] for side in ("old", "new")]
    assert not [note for note in compare.build(*sides).notes if " in A, " in note]


def test_an_old_result_of_another_value_is_stale_by_the_new_name(tmp_path):
    age(put(tmp_path, "positions/rotary@smoke", 1, overrides={"data.max_length_quantile": 0.6}))
    assert "[1] Stale: data.max_length_quantile was 0.6, is now 0.7." in table_of(tmp_path).notes


def test_a_point_of_a_grid_over_an_old_name_is_one_still(tmp_path):
    override = {"optim.linear_warmup": False}
    age(put(tmp_path, "table3/base@smoke", 1, overrides=override, folder="base+ramp=false"))
    assert cells(table_of(tmp_path))["base+ramp=false"]["runs"] == "done"


def test_a_launch_goes_on_from_an_old_configuration(tmp_path, capsys):
    for variant, share in (("rotary", 0.7), ("alibi", 0.6)):
        name = f"positions/{variant}@smoke"
        config = registry.get_config(name, {"train.seed": 1, "data.max_length_quantile": share})
        folder = tmp_path / "positions@smoke" / variant / "seed1"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"config": aged(config.to_dict())}))
    command = ["positions@smoke", f"--workdir={tmp_path}", "--dry_run"]
    assert local.main([*command, "--only=rotary"]) == 0
    assert "interrupted" in capsys.readouterr().out
    changed = "holds another configuration: data.max_length_quantile 0.6 -> 0.7;"
    assert changed in exits(capsys, local.main, *command, "--only=alibi")


@pytest.mark.parametrize(("old", "new"), NAMES)
def test_who_writes_an_old_name_is_told_the_new_one(tmp_path, capsys, old, new):
    with pytest.raises(UserError) as caught:
        config_lib.update(config_lib.get_config(), {old: 1}, "variant x")
    assert str(caught.value) == f"variant x: {old} is now called {new}; write that"
    said = f"{old} is now called {new}; write that\n"
    command = ["table3@smoke", f"--workdir={tmp_path}", "--dry_run"]
    for flag in ("--set", "--grid", "--tune"):
        assert exits(capsys, local.main, *command, flag, f"{old}=1") == f"error: {flag}: {said}"
    file = pathlib.Path(registry.__file__).with_name("config.py")
    command = [f"--config={file}:table3/base@smoke", f"--workdir={tmp_path}"]
    assert exits(capsys, train.main, *command, f"--config.{old}=1") == f"error: command line: {said}"

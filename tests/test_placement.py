"""Results that were copied to where another run belongs: they count nowhere, and everything that reads them says so."""

import json
import shutil
import statistics
import tarfile

import pytest
from fabricated import cells, put, table_of
from rich.console import Console

from experiments import registry, tuning
from experiments.report import reading, results
from launch import status
from launch.gpu import archives
from launch.gpu.take import take
from tx.errors import UserError
from tx.runs import fingerprint, state
from tx.runs.run_dir import RunDir

PPLS = (5.0, 5.5, 6.5)


@pytest.fixture
def sweep(tmp_path):
    """Three seeds of base, and the folder of the sweep."""
    for seed, ppl in enumerate(PPLS, 1):
        put(tmp_path, "table3/base@smoke", seed, ppl=ppl)
    return tmp_path / "table3@smoke"


def reason(why, name="seed"):
    return f"result.json is of {why}; delete it, run again"


def base(workdir):
    (found,) = reading.read([workdir])
    return next(row for row in found.rows if row.variant.name == "base")


def test_a_copied_seed_is_no_seed(sweep, tmp_path):
    before = cells(table_of(tmp_path))["base"]["PPL ours"]
    shutil.copytree(sweep / "base" / "seed3", sweep / "base" / "seed4")
    table = table_of(tmp_path)
    assert cells(table)["base"]["PPL ours"] == before == f"{statistics.fmean(PPLS):.2f} ± {statistics.stdev(PPLS):.2f}"
    assert cells(table)["base"]["runs"] == "3 of 4 done, 1 failed [1]"
    assert f"[1] {reason('seed 3, not of seed 4')}" in table.notes
    assert dict(table.caption)["seeds"] == "1, 2, 3"
    (copy,) = [run for run in base(tmp_path).runs if run.seed == 4]
    assert (copy.state.name, copy.state.finished, copy.result) == ("failed", True, None)
    console = Console(record=True, width=200)
    status.show(tmp_path, console)
    assert reason("seed 3, not of seed 4") in console.export_text()


@pytest.mark.parametrize("change", [{"seed": 3}, {"seed": 1, "config": 3}, {"seed": 3, "config": 3}])
def test_the_result_and_its_configuration_have_the_folders_seed(tmp_path, change):
    run = RunDir(put(tmp_path, "table3/base@smoke", 1))
    found = json.loads(run.result.read_text())
    found["seed"], found["config"]["train"]["seed"] = change["seed"], change.get("config", 1)
    run.result.write_text(json.dumps(found))
    assert state.read(run)[0].reason == reason("seed 3, not of seed 1")
    elsewhere = RunDir(run.path.rename(tmp_path / "anywhere"))  # a folder of any name has any seed
    assert (state.read(elsewhere)[1] is None) == (found["seed"] != found["config"]["train"]["seed"])


def test_a_copied_row_or_scale_is_none(sweep, tmp_path):
    shutil.copytree(sweep / "base" / "seed1", sweep / "E" / "seed1")
    shutil.copytree(sweep / "base" / "seed1", tmp_path / "table3@multi30k" / "base" / "seed1")
    for found, row, name in zip(
        reading.read([tmp_path]), ("base", "E"), ("table3/base@multi30k", "table3/E@smoke"), strict=True
    ):
        (run,) = next(one for one in found.rows if one.variant.name == row).runs
        assert (run.state.name, run.result, run.stale) == ("failed", None, ())
        assert run.state.reason == reason(f"table3/base@smoke, not of {name}")


@pytest.mark.parametrize(
    ("folder", "misplaced"),
    [("base+num_heads=8", False), ("base+num_heads=2", True), ("base+dropout=.1", False), ("base+dropout=0.2", True)],
)
def test_a_point_has_the_values_that_its_folder_says(sweep, tmp_path, folder, misplaced):
    assert registry.get_config("table3/base@smoke").model.num_heads == 8
    shutil.copytree(sweep / "base" / "seed1", sweep / folder / "seed1")
    (found,) = reading.read([tmp_path])
    (run,) = next(row for row in found.rows if row.variant.name == folder).runs
    assert (run.state.name, run.result is None) == (("failed", True) if misplaced else ("done", False))
    assert results.loss_of(run) == (None if misplaced else run.result.dev.nll)  # no training that failed


def test_seeds_with_equal_losses_are_named(tmp_path):
    training = {"steps": 9, "epochs": 1.0, "target_tokens": 9, "flops": 1.0}
    for seed, loss in enumerate((2.0, 3.0, 2.0, 2.0), 1):
        put(tmp_path, "table3/base@smoke", seed, train=training | {"final_loss": loss})
    for seed, loss in enumerate((2.0, 2.5), 1):  # equal on dev alone
        put(tmp_path, "table3/E@smoke", seed, train=training | {"final_loss": loss})
    table = table_of(tmp_path)
    runs = {name: row["runs"] for name, row in cells(table).items()}
    assert runs["base"] == "4 done, equal seeds [1]"
    assert "equal" not in runs["E"]
    assert [note for note in table.notes if note.startswith("[1] Equal seeds: seeds 1, 3 and 4 have the same ")]


def test_a_copied_result_is_not_taken(sweep, tmp_path):
    shutil.copytree(sweep / "base" / "seed3", sweep / "base" / "seed4")
    for path in sweep.glob("base/seed*/result.json"):
        found = json.loads(path.read_text())
        path.write_text(json.dumps(found | {"numerics": fingerprint.numerics(found["config"])}))
    back = tmp_path / "back"
    back.mkdir()
    archives.Packer(tmp_path, back).pack()
    with tarfile.open(back / "results-1.tar.gz") as archive:
        assert len(archive.getnames()) == 4
    new, refused = take(back, tmp_path / "into")
    assert (new, refused) == (3, [f"table3/base@smoke seed 4: {reason('seed 3, not of seed 4')}"])
    assert not (tmp_path / "into" / "table3@smoke" / "base" / "seed4").exists()


def test_what_is_done_is_done_under_this_configuration(sweep):
    copy = RunDir(sweep / "base" / "seed4")
    copy.path.mkdir()
    shutil.copy(sweep / "base" / "seed3" / "result.json", copy.result)
    with pytest.raises(UserError, match=r"train\.seed: 3 there, 4 asked for"):
        state.is_done(registry.get_config("table3/base@smoke", {"train.seed": 4}), copy)
    assert state.is_done(registry.get_config("table3/base@smoke", {"train.seed": 3}), RunDir(sweep / "base" / "seed3"))


def test_a_copied_point_chooses_nothing(tmp_path):
    asked = tuning.Asked("base", {}, {"optim.lr_factor": [0.5, 1.0]}, (2,))
    put(tmp_path, "table3/base@smoke", 1, overrides={"optim.lr_factor": 0.5}, folder="base+lr_factor=0.5")
    sweep = tmp_path / "table3@smoke"
    tuning.record(sweep, [(asked, dict.fromkeys(asked.points))])
    shutil.copytree(sweep / "base+lr_factor=0.5", sweep / "base+lr_factor=1")
    (found,) = reading.read([tmp_path])
    assert found.losses(asked)["base+lr_factor=1"] is None
    assert tuning.choose(asked, found.losses(asked)).point is None

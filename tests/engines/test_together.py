"""This machine, Slurm and Ray at once on one folder, as three users who know nothing of each other."""

import time

import engine_sweep as sweep
import pytest

pytest.importorskip("ray", reason="ray missing; pip install -e '.[ray]'")

ROWS = ("base", "A/h=1", "A/h=4", "C/N=2", "D/P_drop=0.0", "E")


def test_twelve_runs_are_made_once_each_by_three_engines(slurm, tmp_path):
    arguments = sweep.arguments(tmp_path, ROWS, seeds=2)
    begun = [
        sweep.launched("launch.slurm", *arguments, "--workers=2", "--time=60"),
        sweep.launched("launch.ray", *arguments, "--address=local", "--jobs=1"),
        sweep.launched("launch.local", *arguments, "--jobs=1"),
    ]
    said = [sweep.finished(process, 600) for process in begun]
    deadline = time.monotonic() + 300
    while slurm.jobs():
        assert time.monotonic() < deadline
        time.sleep(0.5)
    folders = sweep.run_folders(tmp_path)
    assert len(folders) == 12
    assert all((folder / "result.json").exists() for folder in folders), said
    claims = [sweep.claims(folder) for folder in folders]
    assert [len(those) for those in claims] == [1] * 12
    engines = {claim["engine"].split(" ")[0] for [claim] in claims}
    assert engines == {"slurm", "ray", ""}
    assert (tmp_path / "table3@smoke" / "table.md").exists()
    assert "12 done" in sweep.finished(sweep.launched("launch.local", "--status", tmp_path))

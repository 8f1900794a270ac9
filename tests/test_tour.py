"""The notebook experiments/tour.ipynb: it runs, and is committed without outputs."""

import os
import pathlib

import nbformat
import pytest

NOTEBOOK = pathlib.Path(__file__).resolve().parent.parent / "experiments" / "tour.ipynb"


def test_the_notebook_has_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Jupyter's own packages
def test_the_notebook_runs(tmp_path, monkeypatch):
    import nbclient

    monkeypatch.setenv("TX_TOUR_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOK.parent.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    results = sorted(path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("result.json"))
    assert results == [
        "grid/table3@smoke/base+num_heads=1/seed1",
        "grid/table3@smoke/base+num_heads=2/seed1",
        "table3@smoke/C/N=2/seed1",
        "table3@smoke/C/N=2/seed2",
        "table3@smoke/base/seed1",
        "table3@smoke/base/seed2",
        "warmth@smoke/2x/seed1",
        "warmth@smoke/base/seed1",
    ]
    shown = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    given = [one for outputs in shown for one in outputs if one.output_type == "execute_result"]
    assert sum("text/html" in one.data for one in given) == 4  # frames
    assert sum("image/png" in one.get("data", {}) for outputs in shown for one in outputs) == 1
    assert (tmp_path / "grid" / "table3@smoke" / "grid.svg").exists()

"""Launches from Python, and the page that shows them."""

import os
import pathlib
import re
import subprocess
import sys
import textwrap
import threading

import fabricated
import pytest

import launch
from experiments.report import tables
from launch import command_line, local, scripted
from tx import plugins
from tx.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent


def parsed(monkeypatch, *selectors, **arguments):
    """What the launcher would parse, were it called so."""
    called = []
    monkeypatch.setattr(local.main, "__wrapped__", lambda argv, report: called.append(argv) or 0)
    launch.sweep(*selectors, **arguments)
    return command_line.parser_of().parse_args(called[0])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({}, "--workdir=runs --seeds=1"),
        ({"only": "A/*", "seeds": 3, "workdir": pathlib.Path("w")}, "--only=A/* --seeds=3 --workdir=w"),
        ({"only": ["A/*", "big"], "seeds": [7]}, "--only=A/*,big --seeds=7,"),
        ({"seeds": [3, 4], "jobs": 2, "stack": True, "dry_run": False}, "--seeds=3,4, --jobs=2 --stack"),
        ({"stack": 4, "stalled": None, "no_rehearsal": True}, "--stack=4 --no_rehearsal"),
        (
            {"set": {"model.scale_embedding": False, "train.steps": 5, "model.norm": "pre"}},
            "--set=model.scale_embedding=false --set=train.steps=5 --set=model.norm=pre",
        ),
        ({"grid": {"model.num_heads": [1, 2]}}, "--grid=model.num_heads=1,2"),
        (
            {"grid": {("model.num_heads", "model.d_k"): [(1, 64), (2, 32)]}, "match": "params"},
            "--grid=model.num_heads,model.d_k=1:64,2:32 --match=params",
        ),
        ({"tune": {"optim.lr_factor": [0.5, 1.0]}}, "--tune=optim.lr_factor=0.5,1.0"),
        ({"imports": ["a.py", pathlib.Path("b.py")]}, "--import=a.py --import=b.py"),
    ],
)
def test_a_call_is_a_command_line(monkeypatch, arguments, line):
    assert parsed(monkeypatch, "table3@smoke", **arguments) == command_line.parser_of().parse_args(
        ["table3@smoke", *line.split()]
    )


def test_what_is_done_is_shown(tmp_path, capsys):
    """Nothing is left to run, so that nothing is started."""
    fabricated.put(tmp_path, "table3/base@smoke", 1, ppl=5.5)
    fabricated.put(tmp_path, "table3/E@smoke", 1, ppl=6.5)
    made = launch.sweep("table3@smoke", only=["base", "E"], workdir=tmp_path)
    assert (made.folders, made.failed) == ((tmp_path / "table3@smoke",), False)
    assert [result.dev.ppl for result in made.results()] == [5.5, 6.5]
    assert made._repr_markdown_() == tables.to_markdown(made.tables()[0])
    report, shown = (tmp_path / "table3@smoke" / "table.md").read_text(), made._repr_markdown_()
    assert report.splitlines()[0] == shown.splitlines()[0]  # its file has the first nine of the columns
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["table3@smok"], {}), "unknown scale 'smok'"),
        ((["table3@smoke"], {"set": {"optim.warmup": 3}}), "nearest is 'optim.warmup_steps'"),
        ((["table3@smoke"], {"seeds": []}), "--seeds"),
        ((["table3@smoke"], {"jbs": 3}), "unrecognized arguments: --jbs=3"),
        (([], {}), "required: selector"),
    ],
)
def test_what_the_caller_has_to_mend_is_raised(tmp_path, arguments, message):
    selectors, others = arguments
    with pytest.raises(UserError, match=message):
        launch.sweep(*selectors, workdir=tmp_path / "runs", **others)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": {"decode.splits": ["validation,test", "test"]}}, "grid: 'validation,test' of decode.splits has ','"),
        ({"tune": {"decode.splits": ["test", "validation,test"]}}, "tune: 'validation,test' of decode.splits has ','"),
        (
            {"grid": {("data.corpus", "data.dir"): [("text", "a:b")]}},
            "grid: 'a:b' of data.corpus, data.dir has ':', which separates values",
        ),
    ],
)
def test_a_value_that_a_command_line_would_take_apart_is_refused(monkeypatch, arguments, message):
    with pytest.raises(UserError, match=message):
        parsed(monkeypatch, "table3@smoke", **arguments)
    alone = parsed(monkeypatch, "table3@smoke", grid={"data.dir": ["a:b"]})  # where it separates nothing
    assert alone.grid == ["data.dir=a:b"]


@pytest.mark.parametrize(("status", "failed"), [(0, False), (1, True), (130, None)])
def test_what_became_of_it(monkeypatch, status, failed):
    monkeypatch.setattr(local.main, "__wrapped__", lambda argv, report: status)
    if failed is None:
        with pytest.raises(KeyboardInterrupt):
            launch.sweep("table3@smoke")
    else:
        assert launch.sweep("table3@smoke") == scripted.Launched((), failed)


def test_another_thread_is_refused():
    found = []

    def call():
        with pytest.raises(UserError, match="main thread"):
            launch.sweep("table3@smoke")
        found.append(True)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert found == [True]


def test_importing_and_planning_load_nothing_slow(tmp_path):
    code = (
        "import sys, tx, launch\n"
        "print(*sys.modules)\n"
        f"launch.sweep('table3@smoke', only='base', dry_run=True, workdir={str(tmp_path)!r})\n"
        "print(*sys.modules)\n"
    )
    first, *_, last = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert not {"jax", "pandas", "numpy", "rich", "ml_collections", "launch.local"} & set(first.split())
    assert "launch.local" in last.split()
    assert not {"jax", "pandas", "tx.trained"} & set(last.split())


@pytest.mark.parametrize("named", ["mine.py", "real.py"])
def test_a_script_that_adds_a_component_imports_itself_once(tmp_path, named):
    """As with `imports=[__file__]`: a component is registered twice by nobody, whatever link leads to it."""
    lines = """
        import sys
        from experiments.registry import Sweep, Variant, register
        from tx import plugins
        register(Sweep("mine", {}, (Variant("base"),), ""))
        if __name__ == "__main__":
            plugins.take(["--import", __file__])
            print(len(plugins.files()), plugins.files()[0].name)
        """
    (tmp_path / named).write_text(textwrap.dedent(lines))
    if named != "mine.py":
        (tmp_path / "mine.py").symlink_to(named)
    code = [sys.executable, "mine.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(code, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"1 {named}\n", "")


@pytest.mark.slow
def test_the_page_as_written(tmp_path):
    """From an empty folder, in one process."""
    text = (ROOT / "tx" / "README.md").read_text(encoding="utf-8")
    page = text[text.index("## In Python") :].partition("\n## ")[0]
    (tmp_path / "page.py").write_text("\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop(plugins.VARIABLE, None)
    command = [sys.executable, "page.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made, scores, logits, attention, loss = done.stdout.splitlines()[-5:]
    assert "table3@smoke" in made
    assert max(map(float, scores.strip("[]").split())) < 0
    assert logits.endswith(", 500)")
    assert attention.startswith("(8, ")
    assert float(loss.removeprefix("loss ")) < 5  # of 500 subwords chosen evenly it would be 6.2
    assert (tmp_path / "short/table3@smoke/table.md").exists()

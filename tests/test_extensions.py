"""Components and sweeps from files outside the project; the walk-through of experiments/README.md, as written."""

import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

from experiments import __main__ as command
from experiments import registry
from tx import plugins
from tx.errors import UserError
from tx.runs import fingerprint

ROOT = pathlib.Path(__file__).resolve().parent.parent
SWEEP = """
from experiments.registry import Sweep, Variant, register

register(Sweep(name="{name}", base={{}}, doc="Mine", variants=(Variant("base"), Variant("x", {{"model.norm": "pre"}}))))
"""


@pytest.fixture(autouse=True)
def _nothing_imported(monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(registry, "_SWEEPS", dict(registry._SWEEPS))


def test_a_file_adds_a_sweep(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(SWEEP.format(name="mine"))
    assert command.main(["list", "mine@paper", "--import", str(tmp_path / "mine.py")]) == 0
    assert "norm=pre" in capsys.readouterr().out
    assert os.environ[plugins.VARIABLE] == str(tmp_path / "mine.py")  # for the processes that it starts
    assert command.main(["list", "mine@paper"]) == 0  # once is enough


def test_several_files_and_an_equals_sign(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(SWEEP.format(name=f"their_{name}"))
    rest = plugins.take(["a", f"--import={tmp_path}/one.py", "b", "--import", f"{tmp_path}/two.py"])
    assert rest == ["a", "b"]
    assert plugins.files() == [tmp_path / "one.py", tmp_path / "two.py"]
    assert registry.sweep("their_one").doc == registry.sweep("their_two").doc == "Mine"


def test_only_what_names_a_component_of_a_file_depends_on_it(tmp_path, monkeypatch):
    component = """
        from tx.model.positions import PositionEncoding, positions


        @positions.register("mine")
        class Mine(PositionEncoding):
            def rotate(self, x, position):
                return x * {}
        """
    configs = [{"model": {"positions": name}} for name in ("sinusoidal", "mine")]
    found = [[fingerprint.numerics(config) for config in configs]]
    for factor in (2, 3):
        path = tmp_path / f"mine_{factor}.py"
        path.write_text(SWEEP.format(name=f"mine_{factor}") + textwrap.dedent(component.format(factor)))
        monkeypatch.setenv(plugins.VARIABLE, str(path))
        found.append([fingerprint.numerics(config) for config in configs])
    without, mine = zip(*found, strict=True)
    assert len(set(without)) == 1
    assert len(set(mine)) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--import: no Python file .*mine.py"),
        ("import nothing_of_this_name\n", "mine.py cannot be imported: ModuleNotFoundError: No module named 'nothing"),
        ("x =\n", "mine.py cannot be imported: SyntaxError: invalid syntax"),
        (SWEEP.format(name="table3"), "mine.py cannot be imported: ValueError: sweep 'table3' is registered already"),
    ],
)
def test_files_that_cannot_be_imported(tmp_path, text, message):
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=message):
        plugins.take(["--import", str(tmp_path / "mine.py")])


@pytest.mark.parametrize(("old", "new"), [("turn", "rotate"), ("logits", "logit_bias"), ("heads", "value_bias")])
def test_a_position_encoding_with_a_method_of_before_is_refused(tmp_path, old, new):
    encoding = "from tx.model.positions import PositionEncoding\n\n\nclass Mine(PositionEncoding, kw_only=True):\n"
    encoding += "    slope: float = 1.0\n\n    def {}(self, *inputs):\n        return inputs[0]\n"
    file, right = tmp_path / "mine.py", tmp_path / "right.py"
    file.write_text(encoding.format(old))
    message = f"position encoding Mine: nothing calls a method {old} any more; name it {new}"
    with pytest.raises(UserError, match=re.escape(message)) as found:
        plugins.take(["--import", str(file)])
    assert "\n" not in str(found.value)
    os.environ[plugins.VARIABLE] = ""
    right.write_text(encoding.format(new) + f"\n    {old} = {new}\n")  # for this version and for earlier ones
    assert plugins.take(["--import", str(right)]) == []


def test_an_option_without_a_file():
    with pytest.raises(UserError, match="--import needs a file"):
        plugins.take(["list", "--import"])


@pytest.mark.slow
def test_the_walk_through_as_written(tmp_path):
    text = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    walk = text[text.index("## A variant, a sweep") :]
    files = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", walk, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in files] == ["warmup.py", "near.py"]
    for name, content in files:
        (tmp_path / name).write_text(content)
    # A blank line comes before a fence that opens, never before one that closes.
    commands = re.search(r"(?<=\n\n)```\n(.*?)^```$", walk, re.DOTALL | re.MULTILINE)[1].splitlines()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"}
    printed = []
    for line in commands:
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    assert "warmup_steps=8000" in printed[0]
    assert re.search(r"near +near .* done", printed[2])
    assert '"beam": 1' in printed[3]


@pytest.mark.slow
def test_an_ablation_as_the_first_page_has_it(tmp_path):
    """As written, but for fewer steps and seeds."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    content = re.search(r"^```python\n# near\.py\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]
    (tmp_path / "near.py").write_text(content)
    command = re.search(r"`python -m (launch\.local near@smoke .*?)`", text)[1].split()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    fewer = ["--seeds=1", "--set=train.steps=2"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *fewer], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert re.search(r"near +near .* done", done.stdout)
    assert sum(bool(line.strip()) for line in content.splitlines()) <= 15

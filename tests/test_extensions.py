"""Components and sweeps from files outside the project; the walk-through of experiments/README.md, as written."""

import csv
import itertools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap
from collections import Counter
from fractions import Fraction

import pytest

from experiments import __main__ as command
from experiments import listing, registry, scales
from launch import command_line, plan, preparation
from tx import plugins
from tx.data import tokenized
from tx.errors import UserError
from tx.model import flops
from tx.runs import fingerprint, run_config
from tx.runs.run_dir import RunDir

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


def test_a_file_in_the_environment_and_on_the_command_line_counts_once(tmp_path, monkeypatch):
    text = "from tx.model.positions import positions\n\n\n@positions.register('once')\ndef once(x): return x\n"
    (tmp_path / "x.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    found = []
    for variable in ("", "x.py", "./x.py:x.py"):
        monkeypatch.setenv(plugins.VARIABLE, variable)
        monkeypatch.setattr(plugins, "load", lambda: None)
        plugins.take(["--import", "x.py"])
        found.append(fingerprint.numerics({"model": {"positions": "once"}}))
    assert len(set(found)) == 1


def test_a_file_that_cannot_be_imported_is_none_of_those_that_are(tmp_path):
    (tmp_path / "good.py").write_text("")
    (tmp_path / "bad.py").write_text("x =")
    plugins.take(["--import", str(tmp_path / "good.py")])
    with pytest.raises(UserError, match=r"bad\.py cannot be imported"):
        plugins.take(["--import", str(tmp_path / "bad.py")])
    assert plugins.files() == [tmp_path / "good.py"]


SCALE = """
from experiments.scales import Scale, register

register(Scale("{name}", "Mine", "files:text", fields={{"train.steps": 40}}, pair=("zh-Hans", "en")))
"""


def test_a_file_adds_a_scale(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scales, "SCALES", dict(scales.SCALES))
    monkeypatch.setattr(registry, "SCALES", scales.SCALES)
    monkeypatch.setattr(listing, "SCALES", scales.SCALES)
    (tmp_path / "mine.py").write_text(SCALE.format(name="my-own"))
    without = fingerprint.numerics({})
    assert command.main(["list", "table3@my-own", "--import", str(tmp_path / "mine.py")]) == 0
    assert "table3@my-own: " in capsys.readouterr().out
    config = registry.get_config("table3/big@my-own")
    assert (config.name, config.data.source, config.data.target) == ("table3/big@my-own", "zh-Hans", "en")
    assert config.train.steps == 120  # three times, as in the paper
    assert registry.get_config("table3/base@my-own").data.corpus == f"files:{pathlib.Path('text').absolute()}"
    assert registry.select("table3/A/h=1@my-own.cs-en") == ["table3/A/h=1@my-own.cs-en"]
    assert fingerprint.numerics({}) == without  # a scale makes no run another
    assert command.main(["list"]) == 0
    assert "my-own" in capsys.readouterr().out


@pytest.mark.parametrize("half", [0.5, Fraction(1, 2)])
def test_the_factors_of_a_scale_are_numbers_of_any_kind(half):
    own = scales.Scale("own", "Mine", "numbers", width=half, heads=half, depth=0.1)
    sizes = {"model.d_model": 512, "model.d_ff": 2048, "model.d_k": 64, "model.d_v": 64}
    scaled = own.scale_sizes(sizes | {"model.num_layers": 10, "model.decoder_layers": 0}, "own")
    assert scaled == {field: size // 2 for field, size in sizes.items()} | {
        "model.num_layers": 1,
        "model.decoder_layers": 0,
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [("smoke", "scale 'smoke' is registered already"), ("a/b", "scale 'a/b': a name has letters"), ("a@b", "'a@b'")],
)
def test_a_scale_that_cannot_be(tmp_path, name, message):
    (tmp_path / "mine.py").write_text(SCALE.format(name=name))
    with pytest.raises(UserError, match=f"mine.py cannot be imported: ValueError: .*{message}"):
        plugins.take(["--import", str(tmp_path / "mine.py")])


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


def chapter(title, names):
    """A section of the page on experiments, and {name: content} of the Python files in it."""
    text = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    walk = text[text.index(f"## {title}") :].partition("\n## ")[0]
    files = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", walk, re.DOTALL | re.MULTILINE))
    assert list(files) == names
    return walk, files


@pytest.fixture
def own_text(tmp_path, monkeypatch):
    """An empty folder to be in, with the files of text that the page shows, of generated sentences."""
    walk, _ = chapter("Your own text", ["mine.py"])
    block = re.search(r"(?<=\n\n)```\n(text/.*?)^```$", walk, re.DOTALL | re.MULTILINE)[1]
    assert [line.split()[0] for line in block.splitlines()] == ["text/train.fr", "text/train.en", "text/test.tsv"]
    ones, twos = ("un:one", "deux:two", "trois:three", "dix:ten"), ("chats:cats", "chiens:dogs", "arbres:trees")
    words = [[word.split(":") for word in some] for some in (ones, twos, ("ici:here", "dehors:out"), ones, twos)]
    pairs = [tuple(map(" ".join, zip(*chosen, strict=True))) for chosen in itertools.product(*words)][-280:]
    (tmp_path / "text").mkdir()
    (tmp_path / "text/train.fr").write_text("".join(f"{fr}\n" for fr, _ in pairs[:-20]))
    (tmp_path / "text/train.en").write_text("".join(f"{en}\n" for _, en in pairs[:-20]))
    (tmp_path / "text/test.tsv").write_text("".join(f"{fr}\t{en}\n" for fr, en in pairs[-20:]))
    (tmp_path / "new.fr").write_text("dix chats ici\n\nun arbre\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands_of(walk):
    """The blocks of commands of a section, a list of lines; a blank line comes before a fence that opens."""
    blocks = re.findall(r"(?<=\n\n)```\n(python .*?)^```$", walk, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_the_walk_through_of_own_text_as_written(own_text):
    walk, files = chapter("Your own text", ["mine.py"])
    (own_text / "mine.py").write_text(files["mine.py"])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"}
    printed = []
    for line in commands_of(walk):
        done = subprocess.run(line, shell=True, cwd=own_text, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    assert len(printed) == 4
    assert len(printed[1].split("\n")) == 4
    assert printed[1].split("\n")[1] == ""
    assert "base" in printed[2]
    for folder in ("table3@smoke/base", "table3@mine/base", "table3@mine/C/N=2"):
        run = RunDir(own_text / "own" / folder / "seed1")
        result = run.read_result()
        assert result.vocab_size < result.config["model"]["vocab_size"] == 500  # there are not as many
        sized = run_config.read_config(run)
        assert result.config == sized.to_dict()
        sized.model.vocab_size = result.vocab_size
        assert result.params == flops.parameter_count(sized.model)
        assert result.train.flops == flops.training_flops(sized)
        assert (result.tests["test"].sentences, result.dev.split) == (20, "validation")


def test_own_text_and_a_scale_as_written_are_what_they_are_called(own_text, monkeypatch, capsys):
    """The same, short of training."""
    walk, files = chapter("Your own text", ["mine.py"])
    (own_text / "mine.py").write_text(files["mine.py"])
    assert sum(bool(line.strip()) for line in files["mine.py"].splitlines()) <= 16
    monkeypatch.setattr(scales, "SCALES", dict(scales.SCALES))
    monkeypatch.setattr(registry, "SCALES", scales.SCALES)
    launch, _, listed, own = (shlex.split(line)[3:] for line in commands_of(walk))
    assert command.main(listed) == 0
    assert "Scale mine: my own sentences" in capsys.readouterr().out
    for arguments in (launch, own):
        args = command_line.parser_of().parse_intermixed_args(plugins.take(arguments))
        preparation.prepare(runs := plan.make(args))
        for run in runs:
            c = run.config
            assert c.data.corpus == f"files:{own_text / 'text'}"
            data = tokenized.prepare(c.data, c.model.vocab_size)
            assert (data.corpus.source, data.corpus.target, c.train.steps) == ("fr", "en", 10)
            assert {split: len(data.splits[split]) > 0 for split in data.splits} == dict.fromkeys(
                ("train", "validation", "test"), True
            )
            assert len(data.splits["train"]) + len(data.splits["validation"]) == 260
            assert tokenized.sized(c, data).model.vocab_size == data.vocabulary.size < 500


def walked(text, folder):
    """Writes the files of a part of a page to an empty folder, and returns what each of its commands there prints."""
    for name, content in re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        (folder / name).write_text(content)
    # A blank line comes before a fence that opens, never before one that closes.
    commands = (
        re.search(r"(?<=\n\n)```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1].replace("\\\n", " ").splitlines()
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"}
    printed = []
    for line in commands:
        done = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return printed


def section(title):
    """The part of experiments/README.md under a heading of the third level."""
    text = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    return text.partition(f"### {title}\n")[2].partition("\n### ")[0]


@pytest.mark.slow
def test_an_optimizer_with_a_field_swept_as_written(tmp_path):
    listed, launched, reported = walked(section("An optimizer with a field, swept"), tmp_path)
    assert re.search(r"optim\.signum\.momentum +0\.9 .*decay of the mean", listed)
    for text in (launched, reported):
        assert "signum.momentum" in text
        assert re.search(r"^ *base .*\b0\.99 .* done", text, re.MULTILINE)
    results = [json.loads(path.read_text()) for path in sorted((tmp_path / "swept").rglob("result.json"))]
    assert [one["config"]["optim"]["signum"] for one in results] == [  # the base first
        {"momentum": momentum} for momentum in (0.9, 0.9, 0.99)
    ]
    assert not any("beta1" in one["config"]["optim"] for one in results)
    losses = [one["train"]["final_loss"] for one in results]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.slow
def test_a_loss_as_written(tmp_path):
    (launched,) = walked(section("A loss"), tmp_path)
    note = "note: --grid loss.poly.epsilon is left out of base+loss.name=label_smoothed: it belongs to loss.name=poly"
    assert note in launched
    results = [json.loads(path.read_text()) for path in sorted((tmp_path / "losses").rglob("result.json"))]
    assert [one["config"]["loss"].get("poly") for one in results] == [None, None, {"epsilon": 0.5}, {"epsilon": 2.0}]
    assert len({one["train"]["final_loss"] for one in results}) == 3


@pytest.mark.slow
def test_a_metric_as_written(tmp_path):
    launched, compared = walked(section("A metric: a column of the tables"), tmp_path)
    run = RunDir(tmp_path / "measured/table3@smoke/base/seed1")
    translations = run.translations("test").read_text().splitlines()
    unigrams = [Counter(line.split()) for line in translations]
    repeated = sum(sum(one.values()) - len(one) for one in unigrams)
    expected = 100 * repeated / max(1, sum(map(Counter.total, unigrams)))
    metric = run.read_result().metrics["repeats"]
    assert metric.values == {"test": pytest.approx(expected)}
    for text in (launched, compared):
        assert re.search(r"\brepeats\b.* length_ratio\b", text)
        assert "repeats: per cent of n-grams that their translation has had before; lower is better." in text
    with (run.path.parents[1] / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["probe.repeats"]) == metric.values["test"]


@pytest.mark.slow
def test_the_walk_through_as_written(tmp_path):
    walk, _ = chapter("A variant, a sweep", ["warmup.py", "near.py", "signum.py", "poly.py", "repeats.py"])
    printed = walked(walk[: walk.index("### An optimizer")], tmp_path)
    assert "warmup_steps=8000" in printed[0]
    assert re.search(r"near +near .* done", printed[2])
    assert re.search(r"near/reach=2 +near +2 .* done", printed[2])
    assert '"beam": 1' in printed[3]


@pytest.mark.slow
def test_an_ablation_as_the_first_page_has_it(tmp_path):
    """As written, but for fewer steps and seeds."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    content = re.search(r"^```python\n# near\.py\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]
    (tmp_path / "near.py").write_text(content)
    command = re.search(r"`tx launch (near@smoke .*?)`", text)[1].split()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    fewer = ["--seeds=1", "--set=train.steps=2"]
    done = subprocess.run(
        [sys.executable, "-m", "launch.local", *command, *fewer],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert re.search(r"near +near .* done", done.stdout)
    assert sum(bool(line.strip()) for line in content.splitlines()) <= 15

"""The smallest real sweep, from nothing to the printed table, then its runs in use; and what is refused."""

import gzip
import json
import pathlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import fabricated
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import scipy.special
from flax import traverse_util

import tx
from experiments import __main__ as experiments_command
from launch import local
from tx import config as config_lib
from tx import decode, evaluate, export, train
from tx.data import tokenized
from tx.data.synthetic import numbers
from tx.data.vocabulary import EOS, Vocabulary
from tx.decoding.trained_model import OpenedModel
from tx.errors import UserError
from tx.model import Transformer
from tx.runs.run_dir import RunDir
from tx.runs.selection import Selected

FILE = pathlib.Path(__file__).parent.parent / "experiments" / "config.py"
CONFIG = f"{FILE}:table3/base@smoke"
SHRUNK = {
    "model.d_model": 16,
    "model.d_ff": 32,
    "model.d_k": 4,
    "model.d_v": 4,
    "data.batch_rows": 4,
    "train.steps": 4,
    "train.checkpoint_every": 2,
    "decode.beam": 1,
    "decode.extra_length": 1,  # an untrained model hardly ever ends a sentence
}


def launched(workdir, *arguments, **diff):
    """Runs the real launcher in this process; its runs are processes of their own."""
    settings = [f"--set={field}={value}" for field, value in (SHRUNK | diff).items()]
    return local.main(["table3@smoke", f"--workdir={workdir}", *settings, *arguments])


def fails(call, capsys, *wanted):
    """Runs something that must end with status 2 and one line on standard error that holds all of `wanted`."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        call()
    message = capsys.readouterr().err
    assert ended.value.code == 2, message
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert message.endswith("\n")
    for text in wanted:
        assert text in message


ROWS = {"base": "--only=base", "C/N=2": "--only=C/N=2"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a sweep of two rows, trained for four steps each."""
    workdir = tmp_path_factory.mktemp("sweep")
    status = launched(workdir, *ROWS.values())
    logs = [path.read_text() for path in workdir.rglob("log.txt")]
    assert status == 0, "\n".join(logs)
    return workdir


def run_of(sweep, row="base"):
    return RunDir(sweep / "table3@smoke" / row / "seed1")


def contents(folder):
    """{file: (size, time of last change)} of everything in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_a_sweep_leaves_results_and_a_table(sweep):
    layers = {}
    for row in ROWS:
        run = run_of(sweep, row)
        result = run.read("result")
        layers[row] = result["config"]["model"]["num_layers"]
        assert result["name"] == f"table3/{row}@smoke"
        assert result["train"]["steps"] == 4
        assert result["tests"]["test"]["sentences"] == numbers.SENTENCES["test"]
        lines = run.translations("test").read_text(encoding="utf-8").split("\n")
        assert len(lines) == numbers.SENTENCES["test"] + 1
        assert not run.error.exists()
        assert list((run.path / "tensorboard").iterdir())
        assert (run.checkpoints / "4").is_dir()
    assert layers["C/N=2"] < layers["base"]
    table = (sweep / "table3@smoke" / "table.md").read_text(encoding="utf-8")
    for row in ROWS:
        result = run_of(sweep, row).read("result")
        assert f"{result['dev']['ppl']:.2f}" in table
    for form in ("csv", "tex"):
        assert (sweep / "table3@smoke" / f"table.{form}").stat().st_size


def test_what_is_done_is_skipped(sweep, capsys):
    before = contents(run_of(sweep).path)
    assert launched(sweep, *ROWS.values()) == 0
    assert contents(run_of(sweep).path) == before
    assert "base" in capsys.readouterr().out


def test_another_configuration_is_refused(sweep, capsys):
    before = contents(sweep)
    fails(lambda: launched(sweep, *ROWS.values(), **{"train.steps": 5}), capsys, "train.steps 4 -> 5")
    assert contents(sweep) == before
    run = run_of(sweep)
    arguments = [f"--config.{field}={value}" for field, value in SHRUNK.items()]
    arguments += [f"--config={CONFIG}", f"--workdir={run.path}", "--config.train.seed=9"]
    fails(lambda: train.main(arguments), capsys, "another configuration", "train.seed: 1 there, 9 asked for")
    assert contents(sweep) == before


def test_a_trained_run_scores_again(sweep, capsys):
    run = run_of(sweep, "C/N=2")
    before = contents(run.path)
    capsys.readouterr()
    evaluate.main([str(run.path)])
    again, result = json.loads(capsys.readouterr().out), run.read("result")
    assert again["dev"]["ppl"] == pytest.approx(result["dev"]["ppl"], rel=1e-4)
    assert again["tests"]["test"]["bleu"] == result["tests"]["test"]["bleu"]
    assert again["tests"]["test"]["exact_match"] == result["tests"]["test"]["exact_match"]
    evaluate.main([str(run.path), "--splits=validation", "--average_last=2", "--beam=2", "--alpha=1"])
    other = json.loads(capsys.readouterr().out)
    assert set(other["tests"]) == {"validation"}
    assert (other["decode"]["beam"], other["decode"]["alpha"], other["decode"]["average_last"]) == (2, 1.0, 2)
    assert other["dev"]["ppl"] != again["dev"]["ppl"]  # the average of two checkpoints is another model
    assert contents(run.path) == before


def test_another_decoding_takes_the_parameters_of_a_trained_run(sweep, capsys, tmp_path):
    run, again = run_of(sweep, "C/N=2"), RunDir(tmp_path / "again")
    before = contents(run.path)

    def redecode(*more, trained_in=run.path):
        settings = [f"--config.{field}={value}" for field, value in SHRUNK.items()]
        config = CONFIG.replace("base", "C/N=2")
        train.main([f"--config={config}", f"--workdir={again.path}", f"--trained_in={trained_in}", *settings, *more])

    fails(lambda: redecode("--config.train.seed=2"), capsys, "was trained otherwise, in train.seed")
    fails(lambda: redecode(trained_in=tmp_path / "none"), capsys, "none holds no trained run; train it first")
    assert list(tmp_path.iterdir()) == []
    other = ("--config.decode.beam=2", "--config.decode.average_last=2", "--config.probe.attention=true")
    redecode(*other)
    result, trained = again.read("result"), run.read("result")
    capsys.readouterr()
    evaluate.main([str(run.path), "--average_last=2", "--beam=2"])
    wanted = json.loads(capsys.readouterr().out)
    assert result["dev"] == wanted["dev"] != trained["dev"]
    assert {kind: result["tests"]["test"][kind] for kind in wanted["tests"]["test"]} == wanted["tests"]["test"]
    assert result["decode"]["beam"] == 2
    assert (result["train"], result["curve"]) == (trained["train"], trained["curve"])
    assert result["timing"]["train_s"] == 0
    assert len(result["attention"]) == 3 * result["config"]["model"]["num_heads"]
    assert (again.path / again.read("config")["trained_in"]).resolve() == run.path
    assert not again.checkpoints.exists()
    assert contents(run.path) == before
    redecode(*other)
    assert "nothing to do" in capsys.readouterr().out


def test_parameters_that_other_code_has_trained_are_not_taken(tmp_path, capsys):
    trained = fabricated.put(tmp_path, "table3/C/N=2@smoke", 1, numerics="0123456789ab")
    again = tmp_path / "again"
    arguments = [f"--config={CONFIG.replace('base', 'C/N=2')}", f"--workdir={again}", f"--trained_in={trained}"]
    wanted = (f"other code trained {trained}: the fingerprint was 0123456789ab, is now ", "--rerun_stale")
    fails(lambda: train.main([*arguments, "--config.decode.beam=2"]), capsys, *wanted)
    assert not again.exists()


def test_a_trained_run_translates(sweep):
    """As a person calls it: text in, as many lines out, and nothing else on standard output."""
    run = run_of(sweep, "C/N=2")
    command = [sys.executable, "-m", "tx.decode", str(run.path), "--extra_length=2"]
    done = subprocess.run(command, input=b"twenty-one\n\n  two thousand \n", capture_output=True, check=True)
    lines = done.stdout.decode("utf-8").split("\n")
    assert lines[1] == lines[3] == ""
    marked = b"\xef\xbb\xbftwenty-one\n \t\ntwo thousand"  # as some editors save it
    assert subprocess.run(command, input=marked, capture_output=True, check=True).stdout == done.stdout
    assert len(lines) == 4
    assert subprocess.run(command, input=b"", capture_output=True, check=True).stdout == b""


@pytest.mark.slow
def test_pictures_of_a_trained_run(sweep, no_text, tmp_path, capsys):
    run, out = str(run_of(sweep, "C/N=2").path), tmp_path / "figures"
    sentence = "--sentence=It costs twenty-one euros."
    assert experiments_command.main(["figures", run, sentence, "--kind=cross", "--heads=0,2", f"--out={out}"]) == 0
    names = ["attention-cross-layer0", "attention-cross-layer0-heads", "learning-rate", "sinusoids"]
    assert {path.name for path in out.iterdir()} == {f"{name}.{form}" for name in names for form in ("png", "svg")}
    assert all(path.stat().st_size > 5000 for path in out.iterdir())
    printed = capsys.readouterr().out
    assert all(str(path) in printed for path in out.iterdir())
    call = experiments_command.main
    fails(lambda: call(["figures", run, sentence, "--layer=1"]), capsys, "--layer=1", "has layers 0 to 0")
    fails(lambda: call(["figures", run, sentence, "--heads=8"]), capsys, "has no head 8, but 0 to 7")
    fails(lambda: call(["figures", run, "--sentence="]), capsys, "--sentence is empty")


# The model in Python, and in a file


@pytest.fixture
def no_text(monkeypatch):
    """Nothing may read a corpus."""

    def refuse(*_):
        raise AssertionError("a corpus was opened")

    monkeypatch.setattr(tokenized, "prepare", refuse)


SOURCES = ["It costs twenty-one euros.", "two thousand"]
TARGETS = ["Es kostet einundzwanzig Euro.", "zweitausend"]


@pytest.mark.slow
def test_a_trained_run_in_python(sweep, no_text, capsys, tmp_path):
    run = run_of(sweep, "C/N=2")
    trained = tx.load(run.path, extra_length=2)
    (tmp_path / "text").write_text("\n".join([*SOURCES, "", " two thousand "]))
    assert decode.main([str(run.path), str(tmp_path / "text"), "--extra_length=2"]) == 0
    (tmp_path / "text.gz").write_bytes(gzip.compress((tmp_path / "text").read_bytes()))
    wanted = "".join(f"{line}\n" for line in trained.translate([*SOURCES, "", " two thousand "]))
    assert capsys.readouterr().out == wanted
    assert decode.main([str(run.path), str(tmp_path / "text.gz"), "--extra_length=2"]) == 0
    assert capsys.readouterr().out == wanted
    logits, scores = trained.logits(SOURCES, TARGETS), trained.score(SOURCES, TARGETS)
    sides = [trained.encode(side) for side in (SOURCES, TARGETS)]
    assert logits.shape == (2, max(map(len, sides[1])), trained.config.model.vocab_size)
    for i, (src, tgt) in enumerate(zip(*sides, strict=True)):
        assert src[-1] == tgt[-1] == EOS
        inputs = (jnp.asarray(tokens)[None] for tokens in (src, tgt))
        alone = jax.jit(Transformer(**trained.config.model).apply)({"params": trained.params}, *inputs)[0]
        np.testing.assert_allclose(logits[i, : len(tgt)], alone, rtol=1e-4, atol=1e-5)
        summed = np.take_along_axis(scipy.special.log_softmax(np.float64(alone), axis=1), tgt[:, None], 1).sum()
        np.testing.assert_allclose(scores[i], summed, rtol=1e-5)
    found = trained.attention(SOURCES[1], TARGETS[1])
    before, after = len(sides[0][1]), len(sides[1][1])
    assert (len(found.source), len(found.target), found.target[0]) == (before, after, "<start>")
    assert {key: weights.shape[1:] for key, weights in found.weights.items()} == {
        ("encoder", 0, "self"): (before, before),
        ("decoder", 0, "self"): (after, after),
        ("decoder", 0, "cross"): (after, before),
    }
    assert all(np.allclose(weights.sum(-1), 1) for weights in found.weights.values())
    np.testing.assert_array_equal(
        trained.score([f" {SOURCES[1]} "], [f"{TARGETS[1]}\n"]), trained.score(SOURCES[1:], TARGETS[1:])
    )
    assert trained.attention(f" {SOURCES[1]}").source == found.source
    assert trained.logits([], []).shape[0] == trained.score([], []).size == len(trained.translate([])) == 0


def test_scores_of_the_dev_text_are_what_its_perplexity_is_of(sweep):
    run = run_of(sweep, "C/N=2")
    trained, dev = tx.load(run.path), run.read("result")["dev"]
    pairs = tokenized.prepare(trained.config.data, trained.config.model.vocab_size).pairs("validation")
    scores = trained.score(*map(list, zip(*pairs, strict=True)))
    assert -scores.sum() / dev["tokens"] == pytest.approx(dev["nll"], rel=1e-5)
    assert trained.step == dev["step"]


def test_what_a_model_in_python_refuses(sweep, tmp_path):
    trained = tx.load(run_of(sweep, "C/N=2").path)
    for call, message in (
        (lambda: trained.translate("five"), "a list of sentences is wanted"),
        (lambda: trained.score(SOURCES, TARGETS[:1]), "2 sources and 1 targets"),
        (lambda: trained.translate(["five", "one " * 20_000]), "sentence 2 of 2, has 79,999 characters"),
        (
            lambda: trained.score(["five", "one " * 9_000], ["a", "b"]),
            r"sentence 2 of 2, source or target of \d+ tokens",
        ),
        (lambda: trained.logits(["five"], ["one " * 9_000]), r"sentence 1 of 1, source or target of \d+ tokens"),
        (lambda: trained.attention("one " * 9_000, "b"), r"sentence 1 of 1, source or target of \d+ tokens"),
        (lambda: tx.load(tmp_path), "is .* the folder of a run"),
        (
            lambda: tx.load(run_of(sweep).path, bem=1),
            "no configuration field 'decode.bem'; the nearest is 'decode.beam'",
        ),
    ):
        with pytest.raises(UserError, match=message) as found:
            call()
        assert "\n" not in str(found.value)


@pytest.mark.parametrize("there", [None, b"", b"no model", "another's"])
def test_subwords_that_a_run_does_not_keep_come_from_its_text(sweep, tmp_path, there):
    shutil.copytree(run_of(sweep, "C/N=2").path, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    model, kept = tx.load(run.path), run.vocabulary.read_bytes()
    run.vocabulary.unlink()
    if there == "another's":
        Vocabulary.learn(["einundzwanzig", "zwei"], 280).save(run.vocabulary)
    elif there is not None:
        run.vocabulary.write_bytes(there)
    assert tx.load(run.path).vocabulary.fingerprint == model.vocabulary.fingerprint == Vocabulary(kept).fingerprint


@pytest.mark.slow
def test_a_model_of_lower_case_takes_sentences_in_any_case(tmp_path):
    assert launched(tmp_path, ROWS["C/N=2"], "--set=data.lowercase=true") == 0
    run = run_of(tmp_path, "C/N=2")
    made = run.translations("test").read_text()
    assert made == made.lower()
    trained = tx.load(run.path)
    upper, lower = trained.encode([source.upper() for source in SOURCES]), trained.encode(list(map(str.lower, SOURCES)))
    for one, other in zip(upper, lower, strict=True):
        np.testing.assert_array_equal(one, other)
    assert trained.translate([SOURCES[0].upper()]) == trained.translate([SOURCES[0].lower()])


def test_an_exported_parameter_has_its_shape_and_its_values():
    params = {"a": {"number": jnp.float32(3.5), "turned": np.arange(6.0, dtype=np.float32).reshape(2, 3).T}}
    vocabulary = Vocabulary.learn(["a b c"], 300, "char", True)
    file = export.to_safetensors(OpenedModel(config_lib.get_config(), Selected(params, 1, "last"), vocabulary))
    read = safetensors.numpy.load(file)
    for name, value in params["a"].items():
        assert read[f"a.{name}"].shape == value.shape
        assert read[f"a.{name}"].tobytes() == np.asarray(value).tobytes()


def test_exported_parameters_are_read_back_equal(sweep, no_text, tmp_path, capsys):
    run, file = run_of(sweep, "C/N=2"), tmp_path / "model.safetensors"
    capsys.readouterr()
    export.main([str(run.path), f"--out={file}"])
    assert capsys.readouterr().out == f"Written: {file}\n"
    model, read = tx.load(run.path), safetensors.numpy.load_file(file)
    back = traverse_util.unflatten_dict(read, sep=".")
    assert jax.tree.structure(back) == jax.tree.structure(model.params)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), back, model.params))
    with safetensors.safe_open(file, "numpy") as opened:
        said = opened.metadata()
    assert json.loads(said["config"])["model"] == model.config.model.to_dict()
    assert (said["name"], said["step"]) == ("table3/C/N=2@smoke", str(model.step))
    export.main([str(run.path)])
    beside = run.path / export.NAME
    assert capsys.readouterr().out == f"Written: {beside}\n"
    again = safetensors.numpy.load_file(beside)
    assert again.keys() == read.keys()
    assert all(np.array_equal(again[name], read[name]) for name in read)
    beside.unlink()
    fails(lambda: export.main([str(run.path), f"--out={tmp_path}/none/x"]), capsys, "--out: there is no folder")
    fails(lambda: export.main([str(run.path), f"--out={tmp_path}"]), capsys, "cannot write")


def test_what_a_trained_run_refuses(sweep, capsys, tmp_path):
    run = str(run_of(sweep, "C/N=2").path)
    (tmp_path / "latin").write_bytes("eins\nfür".encode("latin-1"))
    fails(lambda: decode.main([run, str(tmp_path / "latin")]), capsys, "latin, line 2: not UTF-8")
    fails(lambda: decode.main([run, str(tmp_path / "none")]), capsys, "none", "No such file")
    fails(lambda: decode.main([run, str(tmp_path / "none.gz")]), capsys, "none.gz", "No such file")
    (tmp_path / "text").write_text("one\n")
    text = str(tmp_path / "text")
    fails(lambda: decode.main([str(tmp_path), text]), capsys, "config.json", "the folder of a run?")
    fails(lambda: decode.main([run, text, "--beam=0"]), capsys, "decode.beam must be positive")
    fails(lambda: decode.main([run, text, "--beam=wide"]), capsys, "decode.beam takes a whole number")
    fails(lambda: decode.main([run, text, "--average_last=3"]), capsys, "averaging 3 checkpoints", "holds 2")
    fails(lambda: evaluate.main([run, "--splits=tset"]), capsys, "no split 'tset'", "train, validation, test")
    (tmp_path / "config.json").write_text((pathlib.Path(run) / "config.json").read_text())
    fails(lambda: decode.main([str(tmp_path), text]), capsys, "no checkpoints")


def test_nothing_in_gives_nothing_out(sweep, capsys, tmp_path):
    (tmp_path / "empty").touch()
    capsys.readouterr()
    decode.main([str(run_of(sweep, "C/N=2").path), str(tmp_path / "empty")])
    assert capsys.readouterr().out == ""


# What is refused before anything is written


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([f"--config={FILE}:table3/bas@smoke"], ["unknown variant", "'base'"]),
        ([f"--config={FILE}:table3/base@smok"], ["unknown scale", "'smoke'"]),
        ([f"--config={FILE}:table3"], ["SWEEP[/VARIANT]@SCALE"]),
        ([f"--config={FILE}"], ["takes a name"]),
        (["--config=experiments/confg.py:table3/base@smoke"], ["no Python file"]),
        ([], ["--config is missing"]),
        ([f"--config={CONFIG}", "--config.model.similarity=scalled"], ["'scalled'", "'scaled'"]),
        ([f"--config={CONFIG}", "--config.model.num_haeds=2"], ["'model.num_haeds'", "'model.num_heads'"]),
        ([f"--config={CONFIG}", "--config.train.steps=many"], ["train.steps takes a whole number"]),
        ([f"--config={CONFIG}", "--config.model.dropout=nan"], ["model.dropout takes a finite number"]),
        ([f"--config={CONFIG}", "--config.model.d_k=0"], ["model.d_k must be positive"]),
        ([f"--config={CONFIG}", "--config.model.positions=learnd"], ["'learnd'", "'learned'"]),
        (
            [f"--config={CONFIG}", "--config.model.positions=learned", "--config.model.max_positions=9"],
            ["data.row_length=48", "model.max_positions=9 learns fewer"],
        ),
        ([f"--config={CONFIG}", "--config.data.corpus=numbrs"], ["no corpus 'numbrs'", "'numbers'"]),
        ([f"--config={CONFIG}", "--config.data.target=fr"], ["numbers", "en-fr"]),
        ([f"--config={CONFIG}", "--config.model.vocab_size=100"], ["vocab_size=100"]),
        ([f"--config={CONFIG}", "--config.decode.splits=tset"], ["decode.splits", "'tset'"]),
    ],
    ids=lambda value: " ".join(value).replace(CONFIG, "")[:60],
)
def test_bad_input_is_one_line_and_leaves_nothing(capsys, tmp_path, monkeypatch, arguments, wanted):
    monkeypatch.chdir(pathlib.Path(__file__).parent.parent)
    workdir = tmp_path / "deep" / "run"
    fails(lambda: train.main([*arguments, f"--workdir={workdir}"]), capsys, *wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_that_cannot_be_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(pathlib.Path(__file__).parent.parent)
    (tmp_path / "file").write_text("mine")
    arguments = [f"--config={CONFIG}", f"--workdir={tmp_path}/file/run"]
    fails(lambda: train.main(arguments), capsys, "cannot write to", "--workdir")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_missing_text_says_where_it_looked(capsys, tmp_path, monkeypatch):
    """No files in the folder, none in the cache, no network."""

    def no_network(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.chdir(pathlib.Path(__file__).parent.parent)
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    (tmp_path / "text").mkdir()
    monkeypatch.setenv("TX_DATA_DIR", str(tmp_path / "text"))
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    config = f"--config={FILE}:table3/base@multi30k"
    workdir = tmp_path / "run"
    fails(lambda: train.main([config, f"--workdir={workdir}"]), capsys, "train.en", str(tmp_path / "text"))
    assert not workdir.exists()
    assert list((tmp_path / "text").iterdir()) == []
    config = f"--config={FILE}:table3/base@tatoeba"
    fails(lambda: train.main([config, f"--workdir={workdir}"]), capsys, "tatoeba", str(tmp_path / "text"))
    assert not workdir.exists()


def test_help_says_how(capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["--help"])
    assert ended.value.code == 0
    assert "--config=FILE.py:NAME" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("row", ["A/h=1", "B/d_k=16", "D/P_drop=0.0", "E", "big"])
def test_other_rows_run_too(tmp_path, row):
    assert launched(tmp_path, f"--only={row}") == 0
    assert run_of(tmp_path, row).result.exists()

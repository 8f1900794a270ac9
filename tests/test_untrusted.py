"""Results, checkpoints, caches, archives and texts are data, whoever made them: shown or refused, never obeyed."""

import argparse
import csv
import io
import json
import os
import re
import tarfile
import types
import zipfile

import numpy as np
import pytest
from fabricated import cells, fail, put, table_of
from tensorflow_datasets.core.download import extractor, resource

from experiments import __main__ as command
from experiments.bench import table as bench_table
from experiments.bench.contestants import weights
from experiments.bench.harness import sentences
from launch import plan
from launch.plan import selection
from tx import config as config_lib
from tx import decode, files
from tx.data import builders, corpora, downloads, text_files
from tx.data.vocabulary import Vocabulary
from tx.decoding import text as decoding_text
from tx.decoding import trained_model
from tx.decoding.trained_model import OpenedModel
from tx.errors import UserError, one_line_errors, printable
from tx.files import from_json
from tx.runs.checkpoints import Checkpoints
from tx.runs.run_dir import RunDir
from tx.runs.selection import Selected

# A terminal's sequences (8-bit ones too), text turned around, half of a pair, rich's markup, HTML, Markdown.
HOSTILE = "\x1b]0;t\x07\x9b2J\u202e\ud800 [red]a[/] <img src=x>|`b`\r\n<!-- end table -->\n# c ![d](http://e) $\\f"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800]")


def test_control_characters_are_shown_not_obeyed(capsys):
    assert printable("\x1b[2J\x9b\x00\u202e\udcff") == r"\x1b[2J\x9b\x00\u202e\udcff"
    assert printable("für नमस्‍ते\tU+2028 👩‍🔬") == "für नमस्‍ते\tU+2028 👩‍🔬"

    @one_line_errors
    def main():
        raise UserError(f"no {HOSTILE}")

    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert not OBEYED.search(error)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_translation_obeys_no_terminal(monkeypatch, capsys, tmp_path, terminal):
    (tmp_path / "text").write_text("one\n")

    class Hostile(Vocabulary):
        def __init__(self):
            pass

        def encode(self, sentences):
            return [[3]] * len(sentences)

        def decode(self, ids):
            return "a\x1b[2J\nb"

    opened = OpenedModel(config_lib.get_config(), Selected({}, 1, "last"), Hostile())
    monkeypatch.setattr(decode, "keep_freed_memory", lambda arenas: None)
    monkeypatch.setattr(decode, "open_model", lambda *_: opened)
    monkeypatch.setattr(decoding_text, "Translator", lambda *_: lambda sources: sources)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    decode.main([str(tmp_path), str(tmp_path / "text")])
    assert capsys.readouterr().out == ("a\\x1b[2J b\n" if terminal else "a\x1b[2J b\n")


def test_a_run_without_its_vocabulary_is_refused(monkeypatch, tmp_path):
    run = RunDir(tmp_path)
    run.checkpoints.mkdir()
    corpus = types.SimpleNamespace(name="numbers")
    data = types.SimpleNamespace(vocabulary=types.SimpleNamespace(fingerprint="f"), corpus=corpus)
    monkeypatch.setattr(trained_model, "select_parameters", lambda *_: Selected({}, 1, "last"))
    monkeypatch.setattr(trained_model.tokenized, "prepare", lambda *_: data)
    for given in ({}, {"data": 3}, {"data": []}, {"data": {"vocabulary_fingerprint": ["f"]}}):
        run.config.write_text(json.dumps({"config": {}, **given}))
        with pytest.raises(UserError, match="was trained with other subwords"):
            trained_model.open_run(run, {})


# Reports of results.


def test_hostile_text_in_results_is_shown_in_every_form(tmp_path, capsys):
    device = {"kind": HOSTILE, "count": 1, "threads": [HOSTILE]}
    path = put(tmp_path, "table3/base@smoke", 1, device=device, code=HOSTILE)
    result = json.loads((path / "result.json").read_text())
    result["config"]["data"]["corpus"] = result["config"]["model"][HOSTILE] = HOSTILE
    result["tests"]["test"]["signature"] = result["dev"]["split"] = HOSTILE
    (path / "result.json").write_text(json.dumps(result))
    fail(tmp_path, "E", 1, HOSTILE)
    fail(tmp_path, "A/h=1", 1, [HOSTILE, {}])
    put(tmp_path, "table3/base@smoke", 1, folder="my \x1b[2J|`row`\u202e", overrides={"model.d_k": 3})
    assert command.main(["report", str(tmp_path)]) == 0
    texts = {form: (tmp_path / "table3@smoke" / f"table.{form}").read_text() for form in ("md", "tex", "csv")}
    others = [path.read_text() for name in ("scores", "costs") for path in tmp_path.rglob(f"{name}.*")]
    assert len(others) == 8
    printed = capsys.readouterr().out
    assert not any(OBEYED.search(text) for text in (*texts.values(), *others, printed))
    for text in (*texts.values(), printed):
        assert "\\x1b" in text.replace(r"\textbackslash{}", "\\")
    lines = [line for line in texts["md"].splitlines() if line.startswith("|")]
    assert len(lines) == 23
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert not re.search(r"(?<!\\)[<>`]|(?m:^<|^#)", texts["md"])
    assert len(list(csv.DictReader(io.StringIO(texts["csv"])))) == 21


NO_NUMBERS = (None, True, "12", [], {}, 10**400, [[1]])
NUMBERS = (
    *("params", "vocab_size", "dev.ppl", "decode.beam", "decode.alpha", "decode.average_last", "train.steps"),
    *("train.epochs", "train.target_tokens", "train.flops", "device.count", "train", "decode", "dev", "tests"),
    *("tests.test", "tests.a_split", "tests.a_split.chrf", "timing", "timing.train_s", "timing.decode_s"),
    *("timing.total_s", "timing.target_tokens_per_s"),
    *(
        f"tests.test.{name}"
        for name in ("bleu", "chrf", "bleu_tokenized", "bleu_compound", "bleu_lower", "exact_match")
    ),
)
NO_TEXTS = (None, 3, [], {})
TEXTS = (
    *("code", "dev.split", "device.kind", "data.fingerprint", "data.vocabulary_fingerprint", "data", "device"),
    *("tests.test.signature", "config.data.corpus", "config.data.source", "config.data.target", "config.data"),
    *("config.decode.splits", "config.decode", "config"),
)


def test_a_result_of_wrong_types_is_damaged(tmp_path):
    text = (put(tmp_path, "table3/base@smoke", 1) / "result.json").read_text()
    cases = [(name, value) for name in NUMBERS for value in NO_NUMBERS]
    cases += [(name, value) for name in TEXTS for value in NO_TEXTS]
    for i, (name, value) in enumerate(cases):
        result = node = json.loads(text)
        *keys, last = name.split(".")
        for key in keys:
            node = node[key]
        node[last] = value
        folder = tmp_path / "table3@smoke" / f"case{i}" / "seed1"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result))
    command.main(["report", str(tmp_path)])
    rows = cells(table_of(tmp_path))
    assert rows["base"]["runs"] == "done"
    for i, case in enumerate(cases):
        assert rows[f"case{i}"]["runs"].startswith("failed ["), case


@pytest.mark.parametrize("depth", [101, 900, 50_000])
def test_nesting_without_end_is_damage(tmp_path, depth):
    deep = '{"a":' * depth + "1" + "}" * depth
    with pytest.raises(ValueError, match="nested too deeply"):
        from_json(deep)
    path = put(tmp_path, "table3/base@smoke", 1)
    text = (path / "result.json").read_text()
    (path / "result.json").write_text(text.replace('"model": {', f'"model": {{"deep": {deep}, ', 1))
    fail(tmp_path, "E", 1, "")
    (tmp_path / "table3@smoke" / "E" / "seed1" / "error.json").write_text(deep)
    rows = cells(table_of(tmp_path))
    assert (rows["base"]["runs"], rows["E"]["runs"]) == ("failed [1]", "failed [2]")
    (path / "config.json").write_text(f'{{"config": {deep}}}')
    with pytest.raises(UserError, match=r"config\.json is not JSON \(nested too deeply\)"):
        RunDir(path).read("config")
    (path / "digests.json").write_text(deep)
    assert files.find_corruption(path) == "digests.json cannot be read"


@pytest.mark.parametrize(
    ("ppl", "base", "mirrored"),
    [
        (float("nan"), "2 done, 1 diverged [1]", "2 done, diverged [1]"),
        (float("inf"), "2 done, 1 diverged [1]", "2 done, 1 diverged [1]"),
        (-float("inf"), "2 done", "2 done, 1 diverged [1]"),
        (1.7e308, "2 done, diverged [1]", "2 done, 1 diverged [1]"),
    ],
)
def test_what_has_diverged_stands_beside_what_has_not(tmp_path, ppl, base, mirrored):
    put(tmp_path, "table3/base@smoke", 1, ppl=ppl)
    put(tmp_path, "table3/base@smoke", 2, ppl=5.0 if abs(ppl) != 1.7e308 else 1.7e308)
    put(tmp_path, "table3/E@smoke", 1, ppl=ppl)
    put(tmp_path, "table3/E@smoke", 2, ppl=-ppl)
    rows = cells(table_of(tmp_path))
    assert (rows["base"]["runs"], rows["E"]["runs"]) == (base, mirrored)
    assert " ± " in rows["E"]["PPL ours"]


def test_fields_that_no_configuration_has_make_no_columns(tmp_path):
    path = put(tmp_path, "table3/base@smoke", 1, folder="mine", overrides={"model.d_k": 3})
    result = json.loads((path / "result.json").read_text())
    result["config"] |= {"row": "x", "runs": "done", "\x1b[2J": 1}
    (path / "result.json").write_text(json.dumps(result))
    table = table_of(tmp_path)
    assert cells(table)["mine"]["d_k"] == "3"
    assert [column.title for column in table.columns].count("row") == 1
    assert not any("\x1b" in column.title for column in table.columns)
    assert [record["row"] for record in table.records][-1] == "mine"


def test_links_that_lead_back_up_are_not_followed(tmp_path):
    put(tmp_path, "table3/base@smoke", 1)
    elsewhere = put(tmp_path / "elsewhere", "table3/base@smoke", 1).parent
    sweep = tmp_path / "table3@smoke"
    for name in ("round", "about"):
        (sweep / name).mkdir()
    (sweep / "round" / "on").symlink_to(sweep / "about")
    (sweep / "about" / "on").symlink_to(sweep / "round")
    (sweep / "kept elsewhere").symlink_to(elsewhere)
    assert [row[0] for row in table_of(sweep).rows[20:]] == ["kept elsewhere"]


def test_damaged_measurements_are_named(tmp_path):
    good = {
        "format": bench_table.FORMAT,
        "kind": "memory",
        "what": "base",
        "parameters": 10,
        "machine": {"threads": 2, "processor": "p", "cores": 2},
        "contestants": {"tx": {"median": {"peak_mib": 1.0}}, "peer": {"median": {"peak_mib": 2.0}}},
        "ratios": {"peer": {"peak_mib": {"median": 0.5, "min": 0.5, "max": 0.5}}},
    }
    good |= {"versions": {"jax": "1"}, "revision": "abc"}
    cases = [{key: value} for key in good for value in (None, [], {}, "x", 10**400)]
    cases += [{"versions": {"jax": [1]}}, {"ratios": {"peer": {"peak_mib": {"median": 0, "min": 0, "max": 0}}}}]
    harmless = ({"what": "x"}, {"ratios": {}}, {"versions": {}}, {"versions": []}, {"versions": "x"})
    harmless += tuple({"revision": value} for value in (None, [], {}, "x"))
    file = tmp_path / "one.json"
    for case in cases:
        file.write_text(json.dumps(good | case))
        if case in harmless:
            assert bench_table.read([file])
            continue
        with pytest.raises(UserError, match=r"one\.json is (damaged|no result)"):
            bench_table.read([file])
    file.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"one\.json is not JSON: nested too deeply"):
        bench_table.read([file])


# Names that become paths.


@pytest.mark.parametrize("value", ["..", "../../x", "/etc/passwd", ".", "a/../..", "~", "a\nb", "\x1b[2J", "$HOME;x"])
def test_a_grids_values_stay_in_the_workdir(tmp_path, value):
    parser = argparse.ArgumentParser()
    selection.add_arguments(parser)
    only = "--only=base+*"  # not the base, which no grid changes
    (run,) = plan.make(
        parser.parse_args(["table3/base@smoke", f"--workdir={tmp_path}/runs", f"--grid=data.corpus={value}", only])
    )
    folder = run.folder.path
    assert (folder.name, folder.parents[1].name, folder.parents[2]) == ("seed1", "table3@smoke", tmp_path / "runs")
    assert re.fullmatch(r"base\+corpus=[A-Za-z0-9_.+-]+", folder.parent.name)
    assert os.path.normpath(folder) == str(folder)


@pytest.mark.parametrize(
    "name", ["../x", "/etc", "a/../../x", "a//b", "a/", "a/.hidden", "./a", "~/x", "a/b\0c", "a/b c"]
)
def test_a_name_of_tfds_is_no_path(tmp_path, name):
    with pytest.raises(UserError, match="is no name of a TFDS set; write SET or SET/CONFIG"):
        builders.tfds_set(name, str(tmp_path))


@pytest.mark.parametrize("split", ["../../x", "/x", "a/b", "", "."])
def test_a_split_of_tfds_is_no_path(monkeypatch, tmp_path, split):
    info = types.SimpleNamespace(features=types.SimpleNamespace(languages=("en", "de")), splits={"train": 0, split: 0})
    builder = types.SimpleNamespace(info=info, data_dir=tmp_path)
    monkeypatch.setattr(builders, "tfds_set", lambda *_: builder)
    with pytest.raises(UserError, match="no name for a file"):
        corpora.load(types.SimpleNamespace(corpus="a/b", source="en", target="de", dir=""))


@pytest.mark.parametrize("text", ["", "[]", '"x"', "[" * 100_000, '{"fileFormat": "array_record"'])
def test_a_damaged_description_of_a_set_is_named(tmp_path, text):
    (tmp_path / "a" / "b" / "1.0.0").mkdir(parents=True)
    (tmp_path / "a" / "b" / "1.0.0" / "dataset_info.json").write_text(text)
    with pytest.raises(UserError, match=r"dataset_info\.json is damaged; delete .*1\.0\.0 and prepare the set again"):
        builders.tfds_set("a/b", str(tmp_path))


# Archives, downloads, folders with checksums.


def test_an_archive_of_tfds_stays_in_its_folder():
    """TFDS alone unpacks archives: files at relative paths, their contents from inside the archive."""
    file = io.BytesIO()
    with tarfile.open(mode="w:gz", fileobj=file) as archive:
        for name in ("good/file", "../up", "/absolute", "good/../../up", "linked/file", ".hidden"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"text"))
        for name, kind, target in (
            ("link", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard", tarfile.LNKTYPE, "/etc/passwd"),
            ("linked", tarfile.SYMTYPE, ".."),
            ("inside", tarfile.SYMTYPE, "good/file"),
            ("device", tarfile.CHRTYPE, ""),
            ("pipe", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    file.seek(0)
    found = {path: data.read() for path, data in extractor.iter_archive(file, resource.ExtractMethod.TAR_GZ)}
    assert found == dict.fromkeys(("good/file", "linked/file", "inside"), b"text")


@pytest.mark.parametrize(("field", "value"), [("flag_bits", 1), ("compress_type", 99)])
def test_an_archive_that_cannot_be_unpacked_is_named(tmp_path, field, value):
    path = tmp_path / "tatoeba" / "deu-eng.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("deu.txt", "Go.\tGeh.\n")
        setattr(archive.infolist()[0], field, value)  # in the directory, which is written last
    with pytest.raises(UserError, match=r"deu-eng\.zip is not an archive with deu\.txt"):
        text_files.read("tatoeba", "en", "de", str(tmp_path))


def test_a_download_without_end_is_cut_off(monkeypatch, tmp_path):
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            assert 0 <= size <= 11
            return b"x" * size

    monkeypatch.setattr(downloads.urllib.request, "urlopen", lambda *_, **__: Endless())
    with pytest.raises(downloads.Failed, match="does not have the checksum"):
        downloads.fetch({"file": ("https://nowhere", 10, "0" * 64)}, tmp_path / "text")
    assert not (tmp_path / "text").exists()


def test_a_folder_with_checksums_is_of_files(tmp_path, capsys):
    """Reading a pipe or a device would never end."""
    folder = tmp_path / "checkpoints" / "2"
    folder.mkdir(parents=True)
    (folder / "file").write_text("text")
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        files.write_checksums(folder)
        checksums = json.loads((folder / files.NAME).read_text())
        make(folder / "other")
        (folder / files.NAME).write_text(json.dumps(checksums | {"other": "0"}))
        assert files.find_corruption(folder) == "other is no file"
        (folder / "other").unlink()
    (folder / files.NAME).write_text(json.dumps(checksums | {"/etc/passwd": "0", "../../x": "0"}))
    assert files.find_corruption(folder) == "../../x is missing"
    files.write_checksums(folder)
    (folder / "\x1b[2J").touch()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert not checkpoints.verify(2)
    checkpoints.close()
    assert "damaged (\\x1b[2J does not belong to it)" in capsys.readouterr().err


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "obeyed"),))

    for name in ("src_ids", "src_offsets", "tgt_ids", "tgt_offsets"):
        np.save(tmp_path / f"{name}.npy", np.array([Evil()]), allow_pickle=True)
    np.savez(tmp_path / "weights.npz", a=np.array([Evil()]))
    with pytest.raises(ValueError, match="Python objects"):
        sentences.load(str(tmp_path))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        weights.load({}, str(tmp_path / "weights.npz"))
    assert not (tmp_path / "obeyed").exists()

"""The files of a run, the one-line errors, and the small pieces around them."""

import json
import os
import pathlib
import re

import pytest

from tx import provenance
from tx.components import Registry
from tx.errors import UserError, one_line_errors
from tx.logs import Log, read_metrics
from tx.run import RunDir, to_json, write_atomically


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "result.json"
    write_atomically(path, "one\n")
    write_atomically(path, "zwölf\n")
    assert path.read_bytes() == "zwölf\n".encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("existing", ["old\n", None])
@pytest.mark.parametrize("failing", ["rename", "write"])
def test_a_failed_write_changes_nothing(tmp_path, monkeypatch, existing, failing):
    path = tmp_path / "result.json"
    if existing is not None:
        path.write_text(existing)

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    def torn(file, text, **_):
        file.write_bytes(text[:2].encode())
        full_disk()

    if failing == "rename":
        monkeypatch.setattr(os, "replace", full_disk)
    else:
        monkeypatch.setattr(pathlib.Path, "write_text", torn)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new\n")
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ([path.name] if existing else [])
    assert not existing or path.read_text() == existing


def test_json_has_one_form():
    assert to_json({"b": 1, "a": "ü"}) == '{\n "a": "ü",\n "b": 1\n}\n'


def test_a_runs_folder_is_made_and_left_clean(tmp_path):
    run = RunDir(tmp_path / "table3@smoke" / "A" / "h=1" / "seed1")
    run.create()
    run.create()
    assert list(run.path.iterdir()) == []
    assert run.translations("test").name == "translations.test.txt"


@pytest.mark.parametrize("below", ["", "run", "deep/run"])
def test_a_folder_that_cannot_be_is_one_line(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    folder = tmp_path / "file" / below if below else tmp_path / "file"
    with pytest.raises(UserError, match=r"^cannot write to .*file.*; choose another --workdir$"):
        RunDir(folder).create()
    assert (tmp_path / "file").read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_reading_a_file_of_a_run(tmp_path):
    run = RunDir(tmp_path)
    run.config.write_text('{"name": "ü"}', encoding="utf-8")
    assert run.read("config") == {"name": "ü"}
    with pytest.raises(UserError, match=r"^.*result\.json does not exist; is .* the folder of a run\?$"):
        run.read("result")
    for damaged in (b'{"name": ', b"\xff\xfe", b""):
        run.config.write_bytes(damaged)
        with pytest.raises(UserError, match=r"^.*config\.json is not JSON \(.*\); delete it and run again$"):
            run.read("config")
    run.error.mkdir()
    with pytest.raises(UserError, match=r"^cannot read .*error\.json: "):
        run.read("error")
    with pytest.raises(UserError, match=r"^cannot read .*: Not a directory$"):
        RunDir(run.config / "below").read("config")


@pytest.mark.parametrize("message", ["no such thing", "two\nlines\r\nand three"])
def test_a_users_error_is_one_line_and_status_2(capsys, message):
    @one_line_errors
    def main(argv):
        raise UserError(message)

    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {' '.join(message.split())}\n"


def test_other_errors_and_results_pass_through():
    @one_line_errors
    def main(argv):
        return 3 / argv

    assert main(2) == 1.5
    with pytest.raises(ZeroDivisionError):
        main(0)


def test_registry():
    shapes = Registry("model.shape")

    @shapes.register("square")
    class Square:
        pass

    shapes.register("circle")(len)
    assert shapes["square"] is Square
    assert shapes["circle"] is len
    assert list(shapes) == ["circle", "square"]
    message = "no model.shape 'sqare'; the nearest is 'square' (there are: circle, square)"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        shapes["sqare"]
    with pytest.raises(ValueError, match="'circle' is registered twice"):
        shapes.register("circle")(list)
    assert shapes["circle"] is len


def test_the_log_goes_on_where_training_does(tmp_path):
    run = RunDir(tmp_path)

    def write(first, steps):
        with Log(run, 6, first) as log:
            for step in steps:
                log.write(step, {"loss": float(step)}, {"target_tokens_per_s": 1.0})

    write(0, [1, 2, 3, 4, 5])
    with run.metrics.open("a") as file:
        file.write('{"step": 6, "lo')  # killed here, with the last checkpoint at step 3
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3, 4, 5]
    write(3, [4, 5, 6])
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3, 4, 5, 6]
    assert all(json.loads(line) for line in run.metrics.read_text().splitlines())
    write(0, [1])
    assert [line["step"] for line in read_metrics(run)] == [1]


def test_provenance(monkeypatch):
    record = provenance.describe()
    assert set(record) == {"code", "numerics", "versions", "device"}
    assert re.fullmatch(r"([0-9a-f]{12}\+?)?", record["code"])
    assert {"python", *provenance.LIBRARIES} == set(record["versions"])
    device = record["device"]
    assert (device["platform"], device["count"]) == ("cpu", 2)
    assert device["kind"]
    monkeypatch.delenv("PJRT_NPROC", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS has none
    assert provenance.describe()["device"]["threads"] == os.cpu_count()
    monkeypatch.setenv("PJRT_NPROC", "7")
    assert provenance.describe()["device"]["threads"] == 7


def test_provenance_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "tx" / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert provenance.revision() == ""

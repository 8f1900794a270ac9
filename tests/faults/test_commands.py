"""Commands and what surrounds them: paths, streams, signals, locale, environment; what is wrong is said in one line."""

import io
import json
import os
import pathlib
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types

import pytest
from fabricated import put
from test_checkpoint import comes_back, saved  # noqa: F401 - a fixture

from experiments import __main__ as experiments_command
from experiments.bench import __main__ as bench
from experiments.report import markers, reading
from launch import local
from launch.gpu import bundle, take
from launch.gpu import session as gpu
from tx import cli, decode, evaluate, export, plugins, streams, train
from tx.data import builders, cache
from tx.errors import UserError, one_line_errors, writing
from tx.files import LARGEST, expanded, read_bytes, replace_text
from tx.runs import checkpoints as checkpoints_module
from tx.runs import fingerprint, metrics_log
from tx.runs.checkpoint_files import METADATA
from tx.runs.checkpoints import Checkpoints
from tx.runs.fingerprint.code import Code
from tx.runs.metrics_log import read_metrics
from tx.runs.run_dir import RunDir
from tx.runtime import backend

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = f"--config={ROOT / 'experiments' / 'config.py'}:table3/base@smoke"
COMMANDS = {  # by module: its main, and arguments that give it a path
    "launch.local": (local.main, ["table3@smoke", "--only=base", "--dry_run", "--workdir={}"]),
    "launch.local --status": (local.main, ["--status={}"]),
    "tx.train": (train.main, [CONFIG, "--workdir={}"]),
    "tx.train RUN": (train.main, ["{}"]),
    "tx.decode": (decode.main, ["{}"]),
    "tx.decode FILE": (decode.main, ["run", "{}"]),
    "tx.evaluate": (evaluate.main, ["{}"]),
    "tx.export": (export.main, ["{}", "--out=file"]),
    "tx.export --out": (export.main, ["run", "--out={}"]),
    "experiments report": (experiments_command.main, ["report", "{}"]),
    "experiments report --out": (experiments_command.main, ["report", ".", "--out={}"]),
    "experiments report --readme": (experiments_command.main, ["report", ".", "--readme={}"]),
    "experiments compare": (experiments_command.main, ["compare", "{}", "{}"]),
    "experiments figures": (experiments_command.main, ["figures", "{}", "--sentence=one"]),
    "experiments table1": (experiments_command.main, ["table1", "--lengths=4,9", "--out={}"]),
    "experiments.bench table": (bench.main, ["table", "{}"]),
    "launch.gpu": (gpu.main, ["--bundle={}"]),
    "launch.gpu.bundle": (bundle.main, ["--folder={}"]),
    "launch.gpu.take": (take.main, ["{}"]),
}


def refused(call, capsys):
    """The one line with which a command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        call()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err


def one_line(done):
    """The one line with which a process has ended: no traceback, and no success."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode > 0, (done.returncode, done.stderr)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.stderr.splitlines()[-1] == line
    return line


def started(*command, **more):
    """A process of one of this project's commands, which has ended."""
    variables = {"PYTHONPATH": str(ROOT)} | more.pop("env", {})
    environment = {name: value for name, value in (os.environ | variables).items() if value is not None}
    given = {
        "text": True,
        "errors": "replace",
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    } | more
    return subprocess.run([sys.executable, "-m", *command], env=environment, timeout=300, **given)


# Paths.


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "path", ["", "a\0b", "~nobody-has-this-name/x", "x" * 300, "{}/file/x"], ids=lambda path: path[:20]
)
def test_a_path_that_cannot_be_is_refused_by_every_command(command, path, tmp_path, capsys, monkeypatch):
    if command == "launch.gpu.bundle":
        monkeypatch.setattr(bundle, "put_wheels", lambda *_: pytest.fail("it fetches"))
        monkeypatch.setattr(bundle, "put_text", lambda *_: None)
    if command == "experiments table1":
        monkeypatch.setattr("experiments.analysis.layer_costs.measure", lambda *_: pytest.fail("it measures"))
    if "report --" in command:
        put(tmp_path, "table3/base@smoke", 1)
        monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    main, arguments = COMMANDS[command]
    path = path.format(tmp_path)
    if command == "tx.train" and (len(path) == 300 or path.endswith("file/x")):
        pytest.skip("it looks at its text first; test_end_to_end.py::test_a_workdir_that_cannot_be_written")
    if command == "launch.local" and path.endswith("file/x"):
        assert main([argument.format(path) for argument in arguments]) == 0  # --dry_run writes nothing
        return
    refused(lambda: main([argument.format(path) for argument in arguments]), capsys)


def test_paths_are_of_one_type_everywhere():
    for package in ("tx", "experiments", "launch"):
        for file in (ROOT / package).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            assert "type=pathlib.Path" not in text, file
            assert ".expanduser(" not in text or file.name == "files.py", file
            assert "ArgumentParser(" not in text or file.name in ("cli.py", "completion.py", "session.py"), file


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text("")
    assert cli.path("~/x") == tmp_path / "x"
    monkeypatch.setenv(plugins.VARIABLE, "")
    assert plugins.take(["--import", "~/mine.py"]) == []
    assert plugins.files() == [tmp_path / "mine.py"]
    (tmp_path / "config.py").write_text("from experiments.config import get_config\n")
    assert cli.load_config("~/config.py:table3/base@smoke").name == "table3/base@smoke"
    assert local.main(["table3/base@smoke", "--dry_run", "--workdir=~/runs"]) == 0
    assert "/runs/table3@smoke/base/seed1" in capsys.readouterr().out


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("TX_DATA_DIR", raising=False)
    monkeypatch.delenv("TX_CACHE_DIR")

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(UserError, match="~/x: no such home folder is known; set HOME"):
        expanded("~/x")
    with pytest.raises(UserError, match=r"no place for the cache: .*; or set TX_CACHE_DIR to a folder"):
        cache.root()
    monkeypatch.setenv("TX_CACHE_DIR", "/somewhere")
    assert cache.root() == pathlib.Path("/somewhere")
    with pytest.raises(UserError, match="is not prepared as array_record in /somewhere/tfds, and"):
        builders.tfds_set("a/b", "")


def test_a_path_may_have_a_colon(tmp_path, monkeypatch):
    folder = tmp_path / "a:b.py:c"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(f"loaded = {name!r}\n")
    monkeypatch.setenv(plugins.VARIABLE, "")
    plugins.take([f"--import={folder}/one.py", f"--import={folder}/two.py"])
    assert plugins.files() == [folder / "one.py", folder / "two.py"]  # as a process sees it that is started
    code = "import ml_collections as ml\n\n\ndef get_config(name='none'):\n    return ml.ConfigDict({'name': name})\n"
    (folder / "config.py").write_text(code)
    assert cli.load_config(f"{folder}/config.py:x:y").name == "x:y"
    assert cli.load_config(f"{folder}/config.py").name == "none"


def test_a_file_of_configurations_is_found_from_any_folder(capsys):
    assert cli.load_config("experiments/config.py:table3/base@smoke").name == "table3/base@smoke"
    with pytest.raises(UserError) as caught:
        cli.load_config("experiments/none.py:table3/base@smoke")
    advised = str(caught.value).rpartition("e.g. ")[2]
    assert cli.load_config(advised).name == "table3/base@smoke"


def test_options_stand_anywhere(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for sweep in ("one/table3@smoke", "two/table3@smoke"):
        put(tmp_path / sweep[:3], "table3/base@smoke", 1 if sweep.startswith("one") else 2)
    assert experiments_command.main(["report", "one", "--out=made", "two", "--show=scores"]) == 0
    monkeypatch.setattr(decode, "open_model", lambda run, options: pytest.fail(f"{run.path} {options['beam']}"))
    (tmp_path / "text").write_text("one\n")
    with pytest.raises(pytest.fail.Exception, match="run 1"):
        decode.main(["run", "--beam=1", "text"])
    assert "unrecognized arguments: --beem=1" in refused(lambda: decode.main(["run", "--beem=1", "text"]), capsys)


def test_a_work_folder_may_have_an_at_sign(tmp_path):
    put(tmp_path / "runs@home", "table3/base@smoke", 1)
    for folder in (tmp_path / "runs@home", tmp_path / "runs@home" / "table3@smoke"):
        [found] = reading.read([folder])
        assert [len(row.runs) for row in found.rows if row.runs] == [1]


# Files that are none, or are not as they should be.


def test_what_is_no_file_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", LARGEST + 1)
    for name, why in (("pipe", "no file"), ("zero", "no file"), (".", "no file"), ("large", "more than 64 MiB")):
        with pytest.raises(OSError, match=why):
            read_bytes(tmp_path / name)


def test_a_run_with_pipes_and_folders_in_place_of_files(tmp_path, capsys):
    for seed, make in enumerate((os.mkfifo, os.mkdir), 1):
        path = put(tmp_path, "table3/base@smoke", seed) / "result.json"
        path.unlink()
        make(path)
        make(path.with_name("metrics.jsonl"))
        with pytest.raises(UserError, match=r"cannot read .*metrics\.jsonl: it is no file"):
            read_metrics(RunDir(path.parent))
        assert metrics_log.newest(RunDir(path.parent)) == {}
    assert experiments_command.main(["report", str(tmp_path)]) == 0
    assert "result.json is damaged" in capsys.readouterr().out


def test_a_result_with_very_many_keys_makes_no_table_of_them(tmp_path, capsys):
    path = put(tmp_path, "table3/base@smoke", 1) / "result.json"
    result = json.loads(path.read_text())
    result["config"] |= {f"k{i}": i for i in range(20_000)}
    path.write_text(json.dumps(result))
    assert experiments_command.main(["report", str(tmp_path)]) == 0
    assert "and 19,900 more" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "table3@smoke" / "table.md").stat().st_size < 50_000


def test_the_fingerprint_reads_what_python_imports(tmp_path):
    """Added files in another coding; and of the package no editor's lock file, no link that leads nowhere."""
    (tmp_path / "mark.py").write_bytes(b"\xef\xbb\xbfx = 1\n")
    (tmp_path / "latin.py").write_bytes("# -*- coding: latin-1 -*-\nname = 'für'\n".encode("latin-1"))
    shutil.copytree(ROOT / "tx", tmp_path / "tx", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tx" / ".#train.py").symlink_to("somebody@somewhere.1234")
    (tmp_path / "tx" / "gone.py").symlink_to("nowhere")
    (tmp_path / "tx" / "a-copy.py").write_text("not Python")
    added = (tmp_path / "mark.py", tmp_path / "latin.py")
    assert Code(tmp_path / "tx", added).numerics({}) == fingerprint.numerics({})


def test_a_readme_keeps_its_link_its_ends_of_lines_and_its_mode(tmp_path):
    real, link = tmp_path / "real.md", tmp_path / "README.md"
    before = b"one\r\n<!-- table: x -->\r\nold\r\n<!-- end table -->\r\ntwo\r\n"
    real.write_bytes(before)
    real.chmod(0o600)
    link.symlink_to("real.md")
    assert markers.renew(link, lambda name: True, lambda names: dict.fromkeys(names, "new\n"), check=False) == 0
    assert real.read_bytes() == before.replace(b"old", b"new")
    assert (link.is_symlink(), real.stat().st_mode & 0o777) == (True, 0o600)
    assert markers.renew(link, lambda name: True, lambda names: dict.fromkeys(names, "new\n"), check=True) == 0
    (tmp_path / "plain").write_text("x")
    (tmp_path / "plain").chmod(0o664)
    replace_text(tmp_path / "plain", "y\n")
    assert ((tmp_path / "plain").read_bytes(), (tmp_path / "plain").stat().st_mode & 0o777) == (b"y\n", 0o664)


DEEP = "[" * 100_000
HANDLERS = '{"item_handlers": 3}', '{"item_handlers": {"params": 3}}', '{"performance_metrics": {"x": 1}}'


@pytest.mark.parametrize("content", [os.mkfifo, os.mkdir, "[]", "3", "", DEEP, *HANDLERS], ids=lambda c: str(c)[:30])
def test_damaged_metadata_of_orbax_is_set_aside(saved, content, tmp_path, capsys):  # noqa: F811
    folder, state = tmp_path / "checkpoints", saved[1]
    shutil.copytree(saved[0], folder)
    path = folder / "2" / METADATA
    path.unlink()
    content(path) if callable(content) else path.write_text(content)
    checkpoints = Checkpoints(folder)
    assert f"warning: {path} is damaged; set aside as {tmp_path}/damaged/2.{METADATA}." in capsys.readouterr().err
    assert checkpoints.verify(2)
    comes_back(checkpoints, state)
    checkpoints.close()
    Checkpoints(folder).close()
    assert capsys.readouterr().err == ""


def test_a_limit_of_the_size_of_files_is_said_before_orbax_meets_it(saved, monkeypatch, tmp_path):  # noqa: F811
    state = saved[1]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    with pytest.raises(UserError, match=r"a checkpoint needs a file of [\d,]+ bytes, and `ulimit -f` allows 1,000"):
        checkpoints_module._refuse_file_limit(state.params, state.opt_state)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    checkpoints_module._refuse_file_limit(state.params, state.opt_state)
    with (
        pytest.raises(UserError, match="`ulimit -f` is too low for here; raise it and start"),
        writing(pathlib.Path("here")),
    ):
        raise OSError(27, "File too large")


def test_a_new_set_leaves_nothing_in_the_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    pairs = {"train": [("a", "b"), ("c", "d")]}
    found = builders.data_sources("mine", "en", "de", "0" * 64, lambda: pairs)
    assert [record["en"] for record in found["train"]] == [b"a", b"c"]
    assert list((tmp_path / "temporary").iterdir()) == []
    assert tempfile.tempdir == str(tmp_path / "temporary")


# Devices.


def test_devices_that_are_not_there_are_said_in_one_line(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(backend, "_cuda_plugin", lambda: False)
    with pytest.raises(UserError, match="JAX_PLATFORMS=cuda, but JAX has no plugin for CUDA here"):
        backend.start()

    def none():
        raise RuntimeError("Unable to initialize backend 'x'\nmore")

    monkeypatch.setenv("JAX_PLATFORMS", "x")
    monkeypatch.setattr("jax.devices", none)
    with pytest.raises(UserError, match=r"\(JAX_PLATFORMS=x\): Unable to initialize backend 'x'; set JAX_PLATFORMS"):
        backend.start()


# Streams and signals.


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("two\nlines"), 2, "error: two lines\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device\n"),
        (OSError(36, "File name too long", "xx"), 2, "error: xx: File name too long\n"),
    ],
    ids=repr,
)
def test_what_ends_a_command_from_outside_is_one_line(error, status, said, capsys):
    @one_line_errors
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (status, said)


def test_errors_of_the_program_keep_their_traceback(capsys):
    for error in (ZeroDivisionError(), BrokenPipeError(), FileNotFoundError(2, "No such file", "x")):

        @one_line_errors
        def main(error=error):
            raise error

        with pytest.raises(type(error)):
            main()


def test_signs_that_the_locale_lacks_are_replaced_and_text_is_utf8(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    streams.prepare()
    print("5 ± 1")
    streams.write_utf8()
    print("für")
    sys.stdout.flush()
    assert raw.getvalue() == "5 ? 1\nfür\n".encode()


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
STREAMS = {  # of a process: the environment, what its output is, and how it ends
    "ascii": (ASCII, subprocess.PIPE, 0),
    "full": ({}, "/dev/full", 2),
    "nobody reads": ({}, None, streams.CLOSED_STATUS),
}


@pytest.mark.parametrize(
    ("command", "kind"),
    [*(("experiments list table3", kind) for kind in STREAMS), ("experiments list --format=json", "nobody reads")],
)
def test_a_listing_on_streams_of_every_kind(kind, command):
    variables, output, status = STREAMS[kind]
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "w", encoding="utf-8") as full, os.fdopen(writer, "w", encoding="utf-8") as pipe:
        output = {"/dev/full": full, None: pipe}.get(output, output)
        done = started(*command.split(), env=variables, stdout=output)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (1 if status == 2 else 0)


def test_closed_streams_are_nowhere(tmp_path):
    script = f'"{sys.executable}" -m experiments report "{tmp_path}" <&- >&- 2>&-; echo $? > "{tmp_path}/status"'
    put(tmp_path, "table3/base@smoke", 1)
    subprocess.run(["sh", "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    assert (tmp_path / "status").read_text() == "0\n"
    assert "done" in (tmp_path / "table3@smoke" / "table.md").read_text()


def test_ctrl_c_while_importing_leaves_no_traceback():
    """Whatever the process is importing, or its main is doing."""
    command = [sys.executable, "-X", "importtime", "-m", "tx.decode", "run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert any("jax._src" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == -signal.SIGINT


def test_a_folder_that_hides_the_package_is_named(tmp_path):
    """As Python finds it beside an editable install: without this package's __init__, but with its modules."""
    (tmp_path / "here" / "experiments").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "tx").symlink_to(ROOT / "tx")
    shutil.copytree(
        ROOT / "experiments",
        tmp_path / "there" / "experiments",
        ignore=lambda folder, names: ["results", "__init__.py"],
    )
    there = os.pathsep.join(map(str, (tmp_path / "here", tmp_path / "there")))
    done = started("experiments", "list", env={"PYTHONPATH": there, "PYTHONSAFEPATH": "1"}, cwd=tmp_path)
    assert one_line(done).startswith(f"error: the folder {tmp_path}/here/experiments hides this project's package")


# Everything with everything.

ENVIRONMENTS = {
    "JAX_ENABLE_X64=1": {"JAX_ENABLE_X64": "1"},
    "JAX_DEFAULT_PRNG_IMPL=rbg": {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
    "JAX_PLATFORMS=cuda": {"JAX_PLATFORMS": "cuda"},
    "JAX_PLATFORMS=nonsense": {"JAX_PLATFORMS": "nonsense"},
    "ascii": ASCII,
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "no home": {"HOME": None},
    "TX_IMPORT=/nowhere": {"TX_IMPORT": "/nowhere.py"},
}
STARTED = {  # arguments that are refused, or a run that is not there
    "launch.local": ["table3@smoke", "--only=none"],
    "launch.local --status": ["--status=nowhere"],
    "tx.train": [CONFIG, "--workdir=file/run"],
    "tx.decode": ["nowhere", "text"],
    "tx.evaluate": ["nowhere"],
    "tx.check": [CONFIG, "--ways=sideways2"],
    "experiments list": ["list", "table9"],
    "experiments report": ["report", "nowhere"],
    "experiments compare": ["compare", "nowhere", "elsewhere"],
    "experiments figures": ["figures", "nowhere", "--sentence=für"],
    "experiments.bench table": ["table", "nowhere/ü.json"],
    "launch.gpu": ["--bundle=nowhere"],
    "launch.gpu.bundle": ["--sweep=table9@smoke:1"],
    "launch.gpu.take": ["nowhere"],
    "tx.data.builders": ["../x"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENVIRONMENTS)
@pytest.mark.parametrize("command", STARTED)
def test_every_command_in_every_environment(command, kind, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "text").write_text("one\n")
    one_line(started(command.split()[0], *STARTED[command], env=ENVIRONMENTS[kind], cwd=tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("command", STARTED)
@pytest.mark.parametrize("kind", ["closed", "full", "nobody reads"])
def test_every_command_on_every_stream(command, kind, tmp_path):
    """Its errors have their own stream: what becomes of the output makes no difference to them."""
    (tmp_path / "file").touch()
    (tmp_path / "text").write_text("one\n")
    redirected = {"closed": ">&-", "full": ">/dev/full", "nobody reads": "| true"}[kind]
    script = f'sleep 0; {{ "$@"; echo $? >status; }} {redirected}'
    argv = ["sh", "-c", script, "sh", sys.executable, "-m", command.split()[0], *STARTED[command]]
    done = subprocess.run(
        argv, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=300
    )
    status = int((tmp_path / "status").read_text())
    one_line(types.SimpleNamespace(returncode=status, stderr=done.stderr))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("command", ["tx.decode", "tx.evaluate", "experiments figures"])
def test_ctrl_c_at_any_time(command, seconds, tmp_path):
    """Before a command has come to what it refuses, or after it."""
    argv = [sys.executable, "-m", command.split()[0], *STARTED[command]]
    with subprocess.Popen(
        argv, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=120)[1]
    if seconds > 0.2 or not command.startswith("experiments"):  # Python itself is starting
        assert "Traceback" not in err
    assert process.returncode in (-signal.SIGINT, 130, 2, 1)


def test_ctrl_c_within_a_callback_of_the_garbage_collector_ends_the_command():
    """Python says that it ignores what such a callback raises."""
    script = """
import gc, signal, sys, time
from tx.errors import one_line_errors

def interrupted(phase, info):
    gc.callbacks.remove(interrupted)
    signal.raise_signal(signal.SIGINT)

@one_line_errors
def main():
    gc.callbacks.append(interrupted)
    gc.collect()
    time.sleep(60)

sys.exit(main())
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")

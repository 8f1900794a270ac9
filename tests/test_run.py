"""The files of a run, the one-line errors, and the small pieces around them."""

import concurrent.futures
import errno
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import uuid

import jax
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tx.errors import UserError, nearest, one_line_errors, writing
from tx.files import to_json, write_atomically
from tx.registry import Registry
from tx.runs import provenance
from tx.runs.metrics_log import Log, read_metrics
from tx.runs.run_dir import RunDir


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "result.json"
    write_atomically(path, "one\n")
    write_atomically(path, "zwölf\n")
    assert path.read_bytes() == "zwölf\n".encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("existing", ["old\n", None])
@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failed_write_changes_nothing(tmp_path, monkeypatch, existing, failing):
    path = tmp_path / "result.json"
    if existing is not None:
        path.write_text(existing)

    def full_disk(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new\n")
    monkeypatch.undo()
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half of a pair: \ud800")
    assert [file.name for file in tmp_path.iterdir()] == ([path.name] if existing else [])
    assert not existing or path.read_text() == existing


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, real=real: (done.append(name), real(*given)))
    write_atomically(tmp_path / "result.json", "new\n")
    assert done == ["fsync", "replace"]


def test_what_lies_at_the_temporary_name_is_not_written_through(tmp_path, monkeypatch):
    """In a folder open to others it may be a link of theirs."""
    other, path = tmp_path / "other", tmp_path / "result.json"
    other.write_text("theirs")
    name = uuid.uuid4()
    monkeypatch.setattr(uuid, "uuid4", lambda: name)
    (tmp_path / f".result.json.{name.hex[:12]}.tmp").symlink_to(other)
    with pytest.raises(FileExistsError):
        write_atomically(path, "new\n")
    assert other.read_text() == "theirs"
    assert not path.exists()


def test_two_that_write_one_file_do_not_meet_though_their_processes_have_one_number(tmp_path, monkeypatch):
    """As the first processes of two containers have, on a folder that both share."""
    path, real, others = tmp_path / "result.json", os.fsync, iter(["other\n"])

    def other_writes(descriptor):
        for text in others:
            write_atomically(path, text)
            assert path.read_text() == text
        real(descriptor)

    monkeypatch.setattr(os, "fsync", other_writes)
    write_atomically(path, "one\n")
    assert path.read_text() == "one\n"
    assert list(tmp_path.iterdir()) == [path]


def test_two_that_make_one_folder_do_not_meet(tmp_path):
    run = RunDir(tmp_path / "seed1")
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: run.create(), range(1000)))
    assert list(run.path.iterdir()) == []


# In a user and mount namespace of its own a process may mount what it alone sees: here 64 KiB with a result.json.
MOUNTED = """
set -e
mount -t tmpfs -o size=64k none "$1"
cd "$1"
printf old > result.json
test "$2" = full || mount -o remount,ro "$1"
shift 2
status=0
"$@" || status=$?
ls -A
cat result.json
exit $status
"""
WRITE = """
from tx.errors import one_line_errors, writing
from tx.files import write_atomically
@one_line_errors
def main():
    with writing("result.json"):
        write_atomically("result.json", "new" * 99_999)
main()
"""
LOG = """
from tx.errors import one_line_errors
from tx.runs.metrics_log import Log
from tx.runs.run_dir import RunDir
@one_line_errors
def main():
    with Log(RunDir("."), 9) as log:
        for step in range(9999):
            log.write(step, {"ppl": 1.0}, {})
main()
"""


def mounted(folder, state, code):
    """Runs Python code in a file system that is "full" soon or read-only; returns the process, which then lists it."""
    command = ["unshare", "-Urm", "sh", "-c", MOUNTED, "sh", folder, state]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody but root mount a file system")
    command += [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("full", "no space left for result.json; free some and start the same command again: training goes on from "),
        ("readonly", "cannot write result.json: Read-only file system; make that place writable or choose another"),
    ],
)
def test_a_disk_that_takes_nothing_keeps_the_old_file(tmp_path, state, message):
    done = mounted(tmp_path, state, WRITE)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert done.stdout.splitlines() == ["result.json", "old"]


def test_a_log_on_a_full_disk_says_so(tmp_path):
    done = mounted(tmp_path, "full", LOG)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no space left for metrics.jsonl; free some and ")


def test_other_errors_of_writing_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        write_atomically(tmp_path / "none" / "file", "")
    (tmp_path / "there").touch()
    with pytest.raises(UserError, match=r"^cannot write .*there: Not a directory; "), writing(tmp_path / "there"):
        write_atomically(tmp_path / "there" / "file", "")


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
    run.config.write_text('{"config": {"name": "ü"}}', encoding="utf-8")
    assert run.read("config") == {"config": {"name": "ü"}}
    with pytest.raises(UserError, match=r"^.*result\.json does not exist; is .* the folder of a run\?$"):
        run.read("result")
    for damaged in (b'{"name": ', b"\xff\xfe", b""):
        run.config.write_bytes(damaged)
        with pytest.raises(
            UserError, match=r"^.*config\.json is not JSON \(.*\); put it back as it was, or launch the run anew$"
        ):
            run.read("config")
    for text in ("[]", "3", '{"config": []}', "{}"):
        run.config.write_text(text)
        with pytest.raises(UserError, match=r"^.*config\.json is not what a run writes; put it back as it was, or "):
            run.read("config")
    run.error.write_text("{}")
    assert run.read("error") == {}
    run.error.unlink()
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


@pytest.mark.parametrize(
    ("name", "known", "wanted"),
    [  # what is spelled most like it as a whole is another each time
        ("optim.warmup", ["optim.wrap", "optim.warmup_steps"], "optim.warmup_steps"),
        ("optim.beta", ["optim.beta2", "optim.adam.beta_one"], "optim.beta2"),
        ("h=4", ["base", "A/h=16", "A/h=4", "B/d_k=16"], "A/h=4"),
        ("model.ff", ["model.mixer", "model.feed_forward_width", "model.d_ff"], "model.d_ff"),
        ("A/P_drop=0.1", ["A/h=1", "D/P_drop=0.0"], "D/P_drop=0.0"),
        ("", ["x"], "x"),
    ],
)
def test_the_nearest_name_is_so_by_part(name, known, wanted):
    assert nearest(name, known) == nearest(name, reversed(known)) == wanted


def test_registry():
    shapes = Registry("model.shape")

    @shapes.register("square")
    class Square:
        pass

    shapes.register("circle")(len)
    assert shapes["square"] is Square
    assert shapes["circle"] is len
    assert list(shapes) == ["circle", "square"]
    message = "no model.shape 'sqare'; the nearest is 'square' (there are: circle, square; "
    message += "one of your own needs --import FILE.py)"
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


def events(run):
    """{name: [(step, value, seconds since 1970), ...]} as TensorBoard reads them."""
    found = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    read = {}
    for name in found.Tags()["tensors"]:
        each = found.Tensors(name)
        read[name] = [(event.step, event.tensor_proto.float_val[0], event.wall_time) for event in each]
    return read


def test_events_are_those_of_the_lines(tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    clock = iter(range(1000, 2000))
    monkeypatch.setattr("tx.runs.metrics_log.time.time", lambda: float(next(clock)))

    def write(first, steps):
        with Log(run, 6, first) as log:
            for step in steps:
                log.write(step, {"loss": 2.0**-step, "lr": 0.5}, {"target_tokens_per_s": 8.0})
            if steps:
                log.write(steps[-1], {"dev_ppl": 4.0}, {})

    write(0, [1, 2, 3, 4, 5])
    before = events(run)
    assert set(before) == {"loss", "lr", "target_tokens_per_s", "dev_ppl"}
    theirs = [
        tmp_path / "tensorboard" / name
        for name in ("notes.txt", "my.events.out.tfevents", "of another/events.out.tfevents.1")
    ]
    for file in theirs:
        file.parent.mkdir(exist_ok=True)
        file.write_text("theirs")
    write(3, [4])
    after = events(run)
    assert [(step, value) for step, value, _ in after["loss"]] == [(step, 2.0**-step) for step in (1, 2, 3, 4)]
    assert after["loss"][:3] == before["loss"][:3]  # the time of day too
    assert after["loss"][3][2] > before["dev_ppl"][0][2]
    assert [step for step, _, _ in after["dev_ppl"]] == [4]
    assert [file.read_text() for file in theirs] == ["theirs"] * 3
    lines = {(line["step"], name): line["timing"]["time"] for line in read_metrics(run) for name in line}
    assert all(lines[step, name] == when for name in ("loss", "lr", "dev_ppl") for step, _, when in after[name])
    write(0, [])
    assert events(run) == {}


def test_events_are_on_file_as_soon_as_the_lines(tmp_path):
    run = RunDir(tmp_path)
    with Log(run, 6) as log:
        for step in (1, 2):
            log.write(step, {"loss": 1.0, "dev_ppl": 2.0}, {"target_tokens_per_s": 1.0})
            read = events(run)
            assert [len(read[name]) for name in ("loss", "dev_ppl", "target_tokens_per_s")] == [step] * 3
    with Log(run, 6, 2):
        assert [step for step, _, _ in events(run)["loss"]] == [1, 2]


def test_events_of_what_has_diverged(tmp_path):
    run = RunDir(tmp_path)
    with Log(run, 6) as log:
        log.write(1, {"dev_ppl": 1e300, "dev_nll": math.nan}, {})
    (ppl,), (nll,) = (events(run)[name] for name in ("dev_ppl", "dev_nll"))
    assert ppl[1] == math.inf
    assert math.isnan(nll[1])


def test_lines_of_before_there_were_times_of_day(tmp_path):
    run = RunDir(tmp_path)
    run.metrics.write_text('{"step": 1, "loss": 2.0, "timing": {}}\n')
    Log(run, 2, 1).__exit__()
    assert [(step, value) for step, value, _ in events(run)["loss"]] == [(1, 2.0)]


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"step": 2, "lo',
        b'{"step": 2, "loss": 1.0, "timing": {}}'.replace(b"s", b"\xf3", 1),
        b"\0" * 40,
        b"",
        b"[2]",
        b'{"step": 2}',
        b'{"step": 2.5, "timing": {}}',
        b'{"loss": 1.0, "timing": {}}',
        b'{"step": 2, "loss": "low", "timing": {}}',
        b'{"step": 2, "loss": 1.0, "timing": {"time": [1]}}',
        b'{"step": 2, "loss": 1%s, "timing": {}}' % (b"0" * 400),
        b'{"step": 2, "loss": 1%s, "timing": {}}' % (b"0" * 5000),
        b"[" * 100_000,
    ],
)
def test_a_damaged_line_of_metrics_is_named(tmp_path, damaged):
    run, good = RunDir(tmp_path), b'{"step": 1, "loss": NaN, "timing": {}}'
    run.metrics.write_bytes(b"\n".join([good, damaged, good, b'{"unfin']))
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2, is damaged \(.*\); start again: it goes on from "):
        Log(run, 6, 1)
    assert run.metrics.read_bytes().split(b"\n")[1] == damaged
    run.metrics.write_bytes(b"\n".join([good, good, b'{"unfin']))
    assert [line["step"] for line in read_metrics(run)] == [1, 1]


def test_provenance(monkeypatch):
    assert jax.device_count() == 2  # JAX has read its flags
    monkeypatch.delenv("XLA_FLAGS")
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
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "tx" / "runs" / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert provenance.revision() == ""


def test_folders_beside_the_checkpoints_are_none(tmp_path):
    run = RunDir(tmp_path / "run")
    for name in ("4", "12", "²", "٣", "4.orbax-checkpoint-tmp"):
        (run.checkpoints / name).mkdir(parents=True)
    assert run.checkpoint_steps() == [4, 12]

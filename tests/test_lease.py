"""The lease of a run's folder: one holder at a time, whatever becomes of processes, machines and files."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tx.errors import UserError
from tx.files import to_json
from tx.runs import lease
from tx.runs.lease import EXPIRY, LOST_STATUS, Held, Lease, Lost, holder

ROOT = pathlib.Path(__file__).resolve().parent.parent


def started(code, *arguments):
    """A process of its own that runs some code with `Lease`, `lease` and others at hand."""
    head = "import os, pathlib, signal, sys\nfrom tx.runs import lease\nfrom tx.runs.lease import Held, Lease, holder\n"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(code), *map(str, arguments)],
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def holding(tmp_path):
    """Starts a process that holds the lease of tmp_path until its input ends, after some code."""
    processes = []

    def start(before=""):
        code = textwrap.dedent(before) + (
            "\nwith Lease(pathlib.Path(sys.argv[1])) as held:\n"
            "    held.set_status('saving step 500')\n"
            "    print('in', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        process = started(code, tmp_path)
        processes.append(process)
        assert process.stdout.readline() == "in\n", process.communicate()[1]
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def waited(process, how):
    """Waits for a child to end or stop, and leaves it as it is: a dead one stays a zombie."""
    os.waitid(os.P_PID, process.pid, how | os.WNOWAIT)


def path_of(folder, number=1):
    return folder / lease.LEASE / str(number)


def aged(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def record(**changes):
    """What the file of this process would say."""
    return {
        "host": socket.gethostname(),
        "place": lease._place(),
        "pid": os.getpid(),
        "start": lease._process(os.getpid())[1],
        "since": 1e9,
        "doing": "training",
        "released": False,
        "token": "somebody's",
    } | changes


def fabricate(folder, number=1, age=0.0, text=None, **changes):
    path = path_of(folder, number)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(to_json(record(**changes)).encode() if text is None else text)
    aged(path, age)
    return path


def claimable(folder):
    """Whether this process gets the lease; `holder` must say the same."""
    before = holder(folder)
    try:
        with Lease(folder):
            free = True
    except Held:
        free = False
    assert free == (before is None)
    return free


def test_a_lease_is_held_until_it_is_released(tmp_path):
    folder = tmp_path / "seed1"
    assert holder(folder) is None
    assert not folder.exists()
    with Lease(folder) as held:
        there = holder(folder)
        assert (there.host, there.pid, there.doing) == (socket.gethostname(), os.getpid(), "starting")
        assert there.beat < EXPIRY
        held.check()
        with pytest.raises(Held, match=rf"{folder} is held by process {os.getpid()} on .* since 20..-..-.. .*starting"):
            Lease(folder).__enter__()
        held.check()
    assert claimable(folder)
    assert sorted(os.listdir(folder / lease.LEASE)) == ["1", "2"]


def test_what_a_holder_does_is_seen_by_other_processes(tmp_path, holding):
    process = holding()
    there = holder(tmp_path)
    assert (there.pid, there.doing) == (process.pid, "saving step 500")
    with pytest.raises(Held, match="saving step 500"):
        Lease(tmp_path).__enter__()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert claimable(tmp_path)


def test_an_error_inside_releases(tmp_path):
    with pytest.raises(ZeroDivisionError), Lease(tmp_path):
        _ = 1 / 0
    assert claimable(tmp_path)


def test_of_processes_that_race_one_at_a_time_holds_it(tmp_path):
    """Each of them claims it nine times, and is killed the last time."""
    racer = """
        import fcntl
        folder, inside = pathlib.Path(sys.argv[1]), open(sys.argv[2], "a")
        lease.HEARTBEAT_SECONDS = 0.001
        sys.stdin.readline()
        for number in range(1, 10):
            while True:
                try:
                    held = Lease(folder).__enter__()
                    break
                except Held:
                    pass
            fcntl.flock(inside, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which the kernel gives to one process at a time
            held.set_status(f"claim {number}")
            held.check()
            if number == 9:
                os.kill(os.getpid(), signal.SIGKILL)
            fcntl.flock(inside, fcntl.LOCK_UN)
            held.__exit__()
    """
    racers = [started(racer, tmp_path, tmp_path / "inside") for _ in range(6)]
    for process in racers:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in racers:
        error = process.communicate(timeout=240)[1]
        assert process.returncode == -signal.SIGKILL, error
    claims = [int(name) for name in os.listdir(tmp_path / lease.LEASE) if name.isdigit()]
    assert sorted(claims) == list(range(1, 6 * 9 + 1))
    assert claimable(tmp_path)


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_holder_is_followed_at_once(tmp_path, holding, reaped):
    process = holding()
    assert not claimable(tmp_path)
    process.kill()
    if reaped:
        process.wait()
    else:
        waited(process, os.WEXITED)
    assert claimable(tmp_path)


def test_a_paused_holder_keeps_it(tmp_path, holding):
    process = holding()
    process.send_signal(signal.SIGSTOP)
    waited(process, os.WSTOPPED)
    aged(path_of(tmp_path), 100 * EXPIRY)
    assert not claimable(tmp_path)
    assert holder(tmp_path).beat > EXPIRY


def test_a_holder_is_found_whatever_its_name(tmp_path, holding):
    process = holding("open('/proc/self/comm', 'w').write('a) Z 1 (b c')")
    assert ") Z 1 (" in pathlib.Path(f"/proc/{process.pid}/stat").read_text()
    assert not claimable(tmp_path)


def test_another_process_of_the_same_number_is_not_the_holder(tmp_path):
    fabricate(tmp_path)
    assert not claimable(tmp_path)
    fabricate(tmp_path, start=record()["start"] + 1)
    assert claimable(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"host": "elsewhere"}, {"place": "another boot"}, {"start": None}, {"host": "elsewhere", "pid": 1 << 30}],
)
def test_a_holder_that_cannot_be_seen_lives_by_its_signs_of_life(tmp_path, monkeypatch, changes):
    monkeypatch.setattr(time, "time", lambda: 0.0)  # this machine's clock is of no matter
    path = fabricate(tmp_path, **changes)
    now = path.stat().st_ctime
    for age, alive in ((0, True), (EXPIRY / 2, True), (2 * EXPIRY, False), (-EXPIRY / 2, True), (-2 * EXPIRY, False)):
        os.utime(path, (now - age, now - age))
        assert (holder(tmp_path) is not None) == alive
    os.utime(path, (now, now))
    assert not claimable(tmp_path)
    os.utime(path, (now - 2 * EXPIRY, now - 2 * EXPIRY))
    with Lease(tmp_path):
        assert holder(tmp_path).pid == os.getpid()
    assert path_of(tmp_path, 2).exists()


def test_a_dying_holder_with_threads_left_in_the_kernel_lives_by_its_signs_of_life(tmp_path, monkeypatch):
    path = fabricate(tmp_path)
    monkeypatch.setattr(lease, "_process", lambda pid: ("Z", record_start, 2))
    record_start = json.loads(path.read_text())["start"]
    assert holder(tmp_path) is not None
    aged(path, 2 * EXPIRY)
    assert holder(tmp_path) is None


def test_without_proc_a_number_that_is_gone_is_dead(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "_place", lambda: "")
    monkeypatch.setattr(lease, "_process", lambda pid: ("", None, 0))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    fabricate(tmp_path, pid=ended.pid, start=None)
    assert claimable(tmp_path)
    with Lease(tmp_path):
        assert not claimable(tmp_path)


def test_a_holder_that_was_cut_off_and_taken_over_ends(tmp_path, holding):
    """It is paused for longer than others wait, on what they take for another machine."""
    process = holding("import socket; socket.gethostname = lambda: 'elsewhere'; lease.HEARTBEAT_SECONDS = 0.01")
    assert holder(tmp_path).host == "elsewhere"
    assert not claimable(tmp_path)
    process.send_signal(signal.SIGSTOP)
    waited(process, os.WSTOPPED)
    assert not claimable(tmp_path)
    aged(path_of(tmp_path), 2 * EXPIRY)
    with Lease(tmp_path) as held:
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == LOST_STATUS
        held.check()
        assert holder(tmp_path).pid == os.getpid()
    _, error = process.communicate()
    assert error.startswith(f"error: {tmp_path} was taken over by process {os.getpid()} on ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("number", [2, 1])
def test_a_lease_that_was_taken_over_is_lost(tmp_path, monkeypatch, number):
    """By the next number; by the same one where somebody deleted the folder meanwhile and began anew."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.001)
    told, lost = [], threading.Event()
    with Lease(tmp_path, lost=lambda error: (told.append(error), lost.set())) as held:
        path = fabricate(tmp_path, number, host="elsewhere", pid=77)
        assert lost.wait(60)
        for write in (held.check, lambda: held.set_status("going on")):
            with pytest.raises(Lost, match="process 77 on elsewhere"):
                write()
    assert [type(error) for error in told] == [Lost]
    assert json.loads(path.read_text()) == record(host="elsewhere", pid=77)
    assert not claimable(tmp_path)


def test_a_file_system_that_is_away_for_a_while_is_no_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.001)
    touch, failures, back = os.utime, iter(range(3)), threading.Event()

    def away(path):
        if next(failures, None) is not None:
            raise OSError(5, "Input/output error")
        touch(path)
        back.set()

    monkeypatch.setattr(os, "utime", away)
    with Lease(tmp_path) as held:
        assert back.wait(60)
        held.check()


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.001)
    touch, beaten = os.utime, threading.Semaphore(0)
    monkeypatch.setattr(os, "utime", lambda path: (touch(path), beaten.release()))
    with Lease(tmp_path):
        for _ in range(3):
            touch(path_of(tmp_path), (0, 0))
            while beaten.acquire(blocking=False):
                pass
            for _ in range(2):  # the first of them may have been under way
                assert beaten.acquire(timeout=60)
            assert path_of(tmp_path).stat().st_mtime > 0


DAMAGED = [b"", b"{", b"\xff", b"[]", b"null", b'{"pid": 1}', b"[" * 100_000, b"1" * 5000]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_holds_the_lease_for_a_while(tmp_path, text):
    fabricate(tmp_path, text=text)
    assert not claimable(tmp_path)
    with pytest.raises(Held, match="held by process 0 on an unknown host since 20"):
        Lease(tmp_path).__enter__()
    aged(path_of(tmp_path), 2 * EXPIRY)
    assert claimable(tmp_path)


def test_damage_to_its_own_file_is_no_loss(tmp_path):
    with Lease(tmp_path) as held:
        path_of(tmp_path).write_bytes(b"")
        held.check()
        held.set_status("evaluating")
        assert holder(tmp_path).doing == "evaluating"


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda some: st.lists(some, max_size=2) | st.dictionaries(st.text(), some, max_size=2),
    max_leaves=4,
)


@given(changes=st.dictionaries(st.sampled_from(sorted(record())), JSON), dropped=st.sets(st.sampled_from([*record()])))
@example(changes={"host": socket.gethostname(), "pid": 1 << 40}, dropped=set())
@example(changes={"host": socket.gethostname(), "pid": -1}, dropped=set())
@example(changes={"since": float("nan")}, dropped=set())
@example(changes={"since": 1e300}, dropped=set())
def test_whatever_a_file_says_it_can_be_shown_and_expires(one_folder, changes, dropped):
    told = {name: value for name, value in (record(host="elsewhere") | changes).items() if name not in dropped}
    path = fabricate(one_folder, text=json.dumps(told).encode())
    assert (holder(one_folder) is None) == (told.get("released") is True and lease._read(path.read_bytes()) != {})
    assert str(holder(one_folder))
    aged(path, 2 * EXPIRY)
    assert holder(one_folder) is None


def test_files_of_other_names_are_no_claims(tmp_path):
    (tmp_path / lease.LEASE).mkdir()
    for name in (".1.77.tmp", "01", "0", "9x", "٣", "1~"):
        (tmp_path / lease.LEASE / name).write_text("")
    with Lease(tmp_path):
        assert holder(tmp_path).pid == os.getpid()
    assert path_of(tmp_path).exists()


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("rivals", [["released"], ["released", "expired", "released"], ["held"], ["expired", "held"]])
def test_who_decided_by_an_old_listing_looks_again(tmp_path, monkeypatch, rivals, links):
    """Rivals claim between the look and the claim, one at each attempt, also where a file has one name only."""
    link, coming = os.link, iter(rivals)

    def late(source, target):
        if rival := next(coming, None):
            age = 2 * EXPIRY if rival == "expired" else 0
            fabricate(tmp_path, int(target.name), age, host="elsewhere", released=rival == "released")
        if not links:
            raise PermissionError(1, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    if "held" in rivals:
        with pytest.raises(Held, match="elsewhere"):
            Lease(tmp_path).__enter__()
    else:
        with Lease(tmp_path) as held:
            held.check()
            assert holder(tmp_path).pid == os.getpid()
            assert json.loads(path_of(tmp_path, len(rivals) + 1).read_text())["pid"] == os.getpid()
    assert all(name.isdigit() for name in os.listdir(tmp_path / lease.LEASE))


def test_a_link_that_was_made_though_it_failed_counts(tmp_path, monkeypatch):
    link = os.link

    def answer_lost(source, target):
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", answer_lost)
    with Lease(tmp_path):
        assert os.listdir(tmp_path / lease.LEASE) == ["1"]


def test_a_full_disk_is_refused_in_one_line(tmp_path, monkeypatch):
    def torn(file, text, **_):
        file.write_bytes(text[:2].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", torn)
    with pytest.raises(UserError, match=rf"^cannot write to {tmp_path}: No space left on device; choose another"):
        Lease(tmp_path).__enter__()
    assert os.listdir(tmp_path / lease.LEASE) == []


def test_a_full_disk_later_neither_hinders_nor_loses(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with Lease(tmp_path) as held:
        monkeypatch.setattr(os, "replace", full)
        monkeypatch.setattr(lease.tempfile, "TemporaryFile", full)
        held.set_status("evaluating")
        held.check()
    monkeypatch.undo()
    assert holder(tmp_path).doing == "starting"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^cannot write to .*file: Not a directory"):
        Lease(tmp_path / "file").__enter__()
    assert holder(tmp_path / "file") is None


def test_who_may_not_write_can_still_look(tmp_path, monkeypatch):
    def refused(**_):
        raise PermissionError(13, "Permission denied")

    fabricate(tmp_path, host="elsewhere")
    monkeypatch.setattr(lease.tempfile, "TemporaryFile", refused)
    assert holder(tmp_path).host == "elsewhere"


def test_a_launcher_can_look_without_jax(tmp_path):
    process = started("print(holder(pathlib.Path(sys.argv[1])), 'jax' in sys.modules)", tmp_path)
    assert process.communicate(timeout=60)[0] == "None False\n"

"""The cache of prepared text: what is whole needs no lock, what killed processes left goes, modes follow the umask."""

import dataclasses
import errno
import fcntl
import os
import stat

import handful
import pytest
import tiny

from launch import local
from tx.data import builders, cache
from tx.decoding.limits import check_corpus
from tx.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))


def build(folder):
    (folder / "file").write_text("whole")


def no_lock(path):
    raise UserError(f"cannot write to {path.parent}: Read-only file system; set TX_CACHE_DIR to a folder that can")


def test_what_is_whole_needs_no_lock(monkeypatch):
    def opened():
        read = {"train": [("a", "b")], "validation": [("c", "d")]}
        return builders.data_sources("text", "en", "de", "0123456789abcdef", lambda: read)["validation"][0]

    pair, entry = opened(), cache.entry("kind", "key", build)
    monkeypatch.setattr(cache, "locked", no_lock)
    assert opened() == pair == {"en": b"c", "de": b"d"}
    assert cache.entry("kind", "key", build) == entry
    with pytest.raises(UserError, match="Read-only file system"):
        cache.entry("kind", "other", build)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_an_error_in_one_line(monkeypatch, number):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cache.fcntl, "flock", flock)
    with pytest.raises(UserError, match=f"kind: {os.strerror(number)}; set TX_CACHE_DIR to a folder where") as error:
        cache.entry("kind", "key", build)
    assert "\n" not in str(error.value)
    assert not (cache.root() / "kind" / "key").exists()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o002, 0o775), (0o077, 0o700)])
def test_who_may_enter_an_entry_is_as_the_umask_says(umask, mode):
    before = os.umask(umask)
    try:
        entry = cache.entry("kind", "key", build)
    finally:
        os.umask(before)
    assert stat.S_IMODE(entry.stat().st_mode) == mode
    assert stat.S_IMODE((entry / "file").stat().st_mode) == mode & 0o666


def test_what_killed_processes_left_goes_and_what_others_build_stays():
    folder = cache.root() / "kind"
    for name in ("key.0123abcd", "dead.one.0123abcd", "alive.0123abcd"):
        (folder / f".incomplete.{name}" / "deep").mkdir(parents=True)
    for name in ("dead.one", "alive"):
        (folder / f".{name}.lock").touch()
    with (folder / ".alive.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cache.entry("kind", "key", build)
    assert sorted(path.name for path in folder.glob(".incomplete*")) == [".incomplete.alive.0123abcd"]
    cache.entry("kind", "another", build)
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["another", "key"]
    assert list(folder.glob(".incomplete*")) == []


def test_what_killed_preparations_left_goes():
    folder = cache.root() / "tfds" / "text.en-de" / builders.ParallelText.name
    (folder / "incomplete.ABC123_1.0.0").mkdir(parents=True)
    builders.data_sources("text", "en", "de", "0123456789abcdef", lambda: {"train": [("a", "b")]})
    assert [path.name for path in folder.iterdir()] == ["1.0.1250999896491"]


def test_text_that_cannot_be_opened_is_found_before_training():
    data = handful.prepared()

    def open_splits():
        raise UserError("it is gone")

    gone = dataclasses.replace(data, corpus=dataclasses.replace(data.corpus, open_splits=open_splits))
    config = tiny.config(model__vocab_size=handful.VOCAB_SIZE)
    check_corpus(config, data, ["validation"])
    with pytest.raises(UserError, match="it is gone"):
        check_corpus(config, gone, ["validation"])


def test_a_place_that_the_tables_cannot_go_to_is_found_before_anything(tmp_path, capsys):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "table3@smoke").write_text("no folder")
    with pytest.raises(SystemExit) as ended:
        local.main(
            ["table3/base@smoke", f"--workdir={tmp_path / 'work'}"], prepare=lambda runs: pytest.fail("it began")
        )
    assert ended.value.code == 2
    assert f"error: cannot write to {tmp_path / 'work' / 'table3@smoke'}" in capsys.readouterr().err

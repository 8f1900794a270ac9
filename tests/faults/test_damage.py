"""Bits flipped and ends cut off at random in what is cached: made again, refused, or harmless; never another result."""

import random
import shutil

import numpy as np
import pytest
from test_checkpoint import damaged, files_of
from test_corpora import data_config, write

from launch import compilation_cache
from tx.data import tokenized
from tx.errors import UserError

PLACES, SEED = 50, 1
V = 320


def content(config):
    """Everything that training and scoring take from a prepared corpus."""
    data = tokenized.prepare(config, V, log=lambda line: None)
    arrays = [
        getattr(data.splits[name], field)
        for name in data.splits
        for field in ("src_ids", "src_offsets", "tgt_ids", "tgt_offsets")
    ]
    return data.fingerprint, [np.array(array) for array in arrays], [data.pairs(name) for name in data.splits]


@pytest.mark.slow
def test_a_damaged_cache_never_gives_other_data(tmp_path, monkeypatch):
    config = data_config(folder=write(tmp_path / "text"))
    whole, copy = tmp_path / "whole", tmp_path / "copy"
    monkeypatch.setenv("TX_CACHE_DIR", str(whole))
    wanted = content(config)
    rng, told = random.Random(SEED), []
    monkeypatch.setenv("TX_CACHE_DIR", str(copy))
    for trial in range(PLACES):
        shutil.copytree(whole, copy)
        files = [path for path in files_of(copy) if path.stat().st_size]
        weights = [path.stat().st_size for path in files] if trial % 2 else None
        done = damaged(rng.choices(files, weights)[0], rng)
        try:
            fingerprint, arrays, pairs = content(config)
        except UserError as error:
            told.append(str(error))
        else:
            assert (fingerprint, pairs) == (wanted[0], wanted[2]), done
            for one, two in zip(arrays, wanted[1], strict=True):
                np.testing.assert_array_equal(one, two, err_msg=done)
        shutil.rmtree(copy)
    assert all("damaged" in line for line in told)


@pytest.fixture
def programs(tmp_path):
    """A folder of made-up compiled programs, with their checksums."""
    for i in range(5):
        (tmp_path / f"jit_step-{i}-cache").write_bytes(random.Random(i).randbytes(1000 + i))
        (tmp_path / f"jit_step-{i}-atime").write_bytes(b"12345678")
    compilation_cache.write_checksums(tmp_path)
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.glob("*-cache"))


def test_a_damaged_program_is_compiled_again(programs, tmp_path_factory):
    rng = random.Random(SEED)
    assert compilation_cache.delete_corrupt(programs) == []
    for _ in range(PLACES):
        copy = tmp_path_factory.mktemp("copy")
        shutil.copytree(programs, copy, dirs_exist_ok=True)
        file = copy / rng.choice(names(copy))
        damaged(file, rng)
        assert compilation_cache.delete_corrupt(copy) == [file.name]
        assert names(copy) == [name for name in names(programs) if name != file.name]


def test_what_has_no_checksum_is_not_trusted(programs):
    (programs / "jit_step-9-cache").write_bytes(b"half")
    assert compilation_cache.delete_corrupt(programs) == ["jit_step-9-cache"]
    (programs / "jit_step-9-cache").write_bytes(b"whole")
    compilation_cache.write_checksums(programs)
    assert compilation_cache.delete_corrupt(programs) == []
    (programs / compilation_cache.NAME).write_text("[")
    assert len(compilation_cache.delete_corrupt(programs)) == 6
    compilation_cache.write_checksums(programs)
    assert compilation_cache.delete_corrupt(programs) == compilation_cache.delete_corrupt(programs / "none") == []

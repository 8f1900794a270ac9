"""Tokenised splits against the plain encoding of their text, and the cache that holds them."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_corpora import SIZES, data_config, sentences, write

from tx import files
from tx.data import cache, tokenized
from tx.data.vocabulary import EOS, Vocabulary
from tx.errors import UserError

V = 320


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("text"))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(folder):
    return tokenized.prepare(data_config(folder=folder), V, log=lambda line: None)


def test_tokens_are_the_encoded_text_with_eos(data):
    assert list(data.splits) == [
        "train",
        "validation",
        "test_2016_flickr",
        "test_2017_flickr",
        "test_2017_mscoco",
    ]
    assert data.vocabulary.size == V
    for name, split in data.splits.items():
        pairs = data.pairs(name)
        assert len(split) == len(pairs) == SIZES[{"validation": "val"}.get(name, name)]
        encoded = [data.vocabulary.encode([pair[side] for pair in pairs]) for side in (0, 1)]
        for i in range(len(split)):
            assert split.source(i).tolist() == [*encoded[0][i], EOS]
            assert split.target(i).tolist() == [*encoded[1][i], EOS]
        assert split.src_lengths.tolist() == [len(ids) + 1 for ids in encoded[0]]
        assert split.tgt_lengths.tolist() == [len(ids) + 1 for ids in encoded[1]]
        assert (split.src_ids.dtype, split.src_offsets.dtype) == (np.int32, np.int64)
        assert (split.tgt_ids.dtype, split.tgt_offsets.dtype) == (np.int32, np.int64)


def test_text_survives(data):
    split = data.splits["validation"]
    assert [data.vocabulary.decode(split.target(i)) for i in range(len(split))] == sentences("de", "val", 40)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(*[st.text(st.characters(exclude_characters="\u2581", exclude_categories=["Cs"]))] * 2)))
def test_any_pairs_in_any_number(data, pairs):
    split = tokenized.tokenize(data.vocabulary, iter(pairs))
    decode = data.vocabulary.decode
    assert [(decode(split.source(i)), decode(split.target(i))) for i in range(len(split))] == pairs


def test_more_pairs_than_a_block(data):
    pairs = [(f"{i}", f"{i} {i}") for i in range(20_001)]
    split = tokenized.tokenize(data.vocabulary, pairs)
    assert len(split) == 20_001
    assert data.vocabulary.decode(split.target(20_000)) == "20000 20000"


def test_the_vocabulary_is_learned_from_the_training_text_alone(data, folder):
    text = [side for pair in data.pairs("train") for side in pair]
    assert data.vocabulary.fingerprint == Vocabulary.learn(text, V).fingerprint


def test_what_is_cached_is_not_made_again(own_cache, folder):
    said = []
    first = tokenized.prepare(data_config(folder=folder), V, log=said.append)
    train = first.splits["train"]
    assert said == ["learning 320 subwords from multi30k (once)", "tokenizing multi30k train (once)"]
    again = tokenized.prepare(data_config(folder=folder), V, log=said.append)
    np.testing.assert_array_equal(again.splits["train"].src_ids, train.src_ids)
    assert len(said) == 2
    assert again.fingerprint == first.fingerprint
    assert isinstance(again.splits["train"].src_ids, np.memmap)


def test_the_fingerprint_follows_text_and_size(own_cache, data, folder, tmp_path):
    quiet = {"log": lambda line: None}
    other_size = tokenized.prepare(data_config(folder=folder), V - 10, **quiet)
    other_test = "\n".join(["neu", *sentences("de", "test_2017_mscoco", 10)[1:]]).encode()
    changed = write(tmp_path / "changed", **{"test_2017_mscoco.de": other_test})
    other_text = tokenized.prepare(data_config(folder=changed), V, **quiet)
    assert len({data.fingerprint, other_size.fingerprint, other_text.fingerprint}) == 3
    assert other_text.vocabulary.fingerprint == data.vocabulary.fingerprint
    split = other_text.splits["test_2017_mscoco"]
    assert other_text.vocabulary.decode(split.target(0)) == "neu"


@pytest.mark.parametrize("damage", [lambda b: b[:-8], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""])
@pytest.mark.parametrize("kind", ["tokens", "vocabularies"])
def test_a_damaged_cache_file_is_made_again(own_cache, folder, data, kind, damage):
    config = data_config(folder=folder)
    whole = np.array(tokenized.prepare(config, V, log=lambda line: None).splits["validation"].tgt_ids)
    file = next((cache.root() / kind).rglob("model" if kind == "vocabularies" else "tgt_ids.npy"))
    file.write_bytes(damage(file.read_bytes()))
    said = []
    again = tokenized.prepare(config, V, log=said.append)
    np.testing.assert_array_equal(again.splits["validation"].tgt_ids, whole)
    assert again.fingerprint == data.fingerprint
    assert len(said) == 1


@pytest.mark.parametrize("of", ["kind/one", "other/two", None])
def test_an_entry_under_the_key_of_another_is_built_anew(own_cache, of):
    """One of before entries said whose they are, too."""

    def build(text):
        return lambda folder: (folder / "file").write_text(text)

    other = cache.entry(*(of or "kind/one").split("/"), build("another's"))
    shutil.copytree(other, cache.root() / "kind" / "two")
    if of is None:
        (cache.root() / "kind" / "two" / files.KEY).unlink()
        files.write_checksums(cache.root() / "kind" / "two")
    assert (cache.entry("kind", "two", build("its own")) / "file").read_text() == "its own"
    assert (cache.entry("kind", "two", build("once more")) / "file").read_text() == "its own"
    assert (other / "file").read_text() == "another's"


def test_a_build_that_fails_leaves_nothing(own_cache):
    def build(folder):
        (folder / "half").write_text("written")
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        cache.entry("kind", "key", build)
    assert [p.name for p in (cache.root() / "kind").iterdir()] == [".key.lock"]


def test_an_unknown_split_is_refused(data):
    with pytest.raises(UserError, match="no split 'dev'"):
        data.splits["dev"]


CODE = """
import sys
from tx import config
from tx.data import tokenized
c = config.get_config()
config.update(c, {"data.corpus": "multi30k", "data.dir": sys.argv[1]})
data = tokenized.prepare(c.data, 320, log=lambda line: print("made", file=sys.stderr))
print(data.fingerprint, int(data.splits["validation"].tgt_ids.sum()), "tensorflow_datasets" in sys.modules)
"""


def test_processes_share_the_cache_and_need_no_tfds_once_it_is_there(own_cache, folder):
    command = [sys.executable, "-c", CODE, str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": dict(os.environ)}
    at_once = [subprocess.Popen(command, **pipes) for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in at_once]
    assert len({out.split()[1] for out, _ in outputs}) == 1
    assert sum(err.count("made") for _, err in outputs) == 2  # one vocabulary and one split, each once
    later = subprocess.run(command, timeout=120, check=True, **pipes)
    assert later.stdout.split() == [*outputs[0][0].split()[:2], "False"]

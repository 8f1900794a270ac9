"""Corpora against the files they come from, and what is said of files that are not what they should be."""

import dataclasses
import errno
import functools
import gzip
import hashlib
import http.server
import importlib.util
import io
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tx import config
from tx.data import builders, cache, corpora, text_files, tokenized
from tx.data.synthetic import numbers
from tx.errors import UserError

PROJECT = pathlib.Path(__file__).parents[1]
SHARED = os.environ.get("TX_DATA_DIR")
ODD = "a\u2028b\u0085c\x0cd\x1ce\rf"  # what str.splitlines would cut in six


@pytest.fixture(autouse=True)
def _no_data_but_the_test_s(monkeypatch, tmp_path):
    monkeypatch.delenv("TX_DATA_DIR", raising=False)
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def data_config(corpus="multi30k", source="en", target="de", folder=""):
    c = config.get_config()
    config.update(c, {"data.corpus": corpus, "data.source": source, "data.target": target, "data.dir": str(folder)})
    return c.data


def sentences(language, split, n):
    """Distinct lines in an order that no sorting or shuffling by key gives."""
    lines = [f"{language} {split} {i} {ODD}" for i in range(n)]
    random.Random(split).shuffle(lines)
    return lines


SIZES = {"train": 3000, "val": 40, "test_2016_flickr": 30, "test_2017_flickr": 20, "test_2017_mscoco": 10}


def write(folder, corpus="multi30k", languages=("en", "de"), **files):
    """Writes a small Multi30k below a folder; `files` replaces whole files, "stem.language" -> bytes."""
    (folder / corpus).mkdir(parents=True, exist_ok=True)
    for split, n in SIZES.items():
        for language in languages:
            data = files.get(f"{split}.{language}", "".join(f"{s}\n" for s in sentences(language, split, n)).encode())
            (folder / corpus / f"{split}.{language}.gz").write_bytes(gzip.compress(data))
    return folder


def test_every_split_keeps_the_order_of_its_file(tmp_path):
    corpus = corpora.load(data_config(folder=write(tmp_path)))
    names = {"val": "validation"}
    assert corpus.split_names == tuple(names.get(split, split) for split in SIZES)
    for split, n in SIZES.items():
        expected = list(zip(sentences("en", split, n), sentences("de", split, n), strict=True))
        assert corpus.pairs(names.get(split, split)) == expected
        assert list(corpus.iterate(names.get(split, split), 7)) == expected[::7]
    record = corpus.splits["validation"][3]  # random access
    assert record["de"].decode() == sentences("de", "val", 40)[3]
    assert "tensorflow" not in sys.modules


def test_lower_case_is_that_of_every_sentence(tmp_path):
    kept = data_config(folder=write(tmp_path, **{"val.de": "Ä ẞ\nİI ΑΣ\n".encode(), "val.en": b"A B\nC\n"}))
    lower = kept.copy_and_resolve_references()
    lower.lowercase = True
    as_it_is, corpus = corpora.load(kept), corpora.load(lower)
    assert corpus.pairs("validation") == [("a b", "ä ß"), ("c", "i\u0307i ας")]
    assert as_it_is.pairs("validation") == [("A B", "Ä ẞ"), ("C", "İI ΑΣ")]
    for split in as_it_is.split_names:
        assert corpus.pairs(split) == [(a.lower(), b.lower()) for a, b in as_it_is.pairs(split)]
    assert corpus.fingerprint == corpora.in_lower_case(as_it_is.fingerprint) != as_it_is.fingerprint
    assert corpus.splits["train"].__getitems__([0]) == as_it_is.splits["train"].__getitems__([0])  # one copy is kept
    made = tokenized.prepare(lower, 300, log=lambda line: None)
    assert made.vocabulary.decode(made.splits["validation"].target(0)) == "ä ß"
    assert made.fingerprint != tokenized.prepare(kept, 300, log=lambda line: None).fingerprint


def test_changed_text_is_never_served_from_old_data(tmp_path):
    before = corpora.load(data_config(folder=write(tmp_path)))
    assert before.pairs("validation")[0][1] != "neu"
    lines = ["neu", *sentences("de", "val", 40)[1:]]
    after = corpora.load(data_config(folder=write(tmp_path, **{"val.de": "\n".join(lines).encode()})))
    assert after.fingerprint != before.fingerprint
    assert after.pairs("validation")[0][1] == "neu"


@pytest.mark.parametrize(
    "same",
    [
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", " \u00a0\n"),
    ],
    ids=["no final newline", "CRLF", "byte order mark", "trailing space"],
)
def test_the_fingerprint_is_that_of_the_sentences(tmp_path, same):
    one = corpora.load(data_config(folder=write(tmp_path / "one")))
    folder = write(tmp_path / "other")
    packed = folder / "multi30k" / "val.de.gz"
    (folder / "multi30k" / "val.de").write_bytes(same(gzip.decompress(packed.read_bytes()).decode()).encode())
    packed.unlink()  # plain files do as well
    assert corpora.load(data_config(folder=folder)).fingerprint == one.fingerprint


# Text of all kinds, mostly what separates, joins, turns around or vanishes, and much that is no text.

ODD_ONES = "a \t\r\0\x1c\x85\u2028\u2029\xa0\ufeff\u200d\u200f\u202e\u0301\u0327\u2581\U0001f600"
piece = st.sampled_from([*ODD_ONES, "שלום", "عربي", "हिन्दी", "ไทย", "日本語"]) | st.characters(
    exclude_characters="\n", exclude_categories=["Cs"]
)
sentence = st.lists(piece, min_size=1, max_size=8).map("".join)
good_line = sentence.filter(str.strip).map(str.encode)
any_line = sentence.map(str.encode) | st.binary(max_size=4).map(lambda data: data.replace(b"\n", b"\r"))
long_line = "wört\u2028 ".encode() * 15_000 + b"end"  # of over 100,000 characters


def plainly_read(data):
    """The sentences of a file's bytes, or what is wrong with them."""
    lines = data.removeprefix("\ufeff".encode()).split(b"\n")
    if lines[-1] == b"" and len(lines) > 1:
        lines.pop()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(line.decode().strip())
        except UnicodeDecodeError:
            return f", line {number}: not UTF-8"
    if not any(found):
        return ": the file is empty"
    return found if all(found) else f": line {found.index('') + 1} is empty"


@pytest.fixture(scope="module")
def one_file():
    """A corpus of nothing but a training split, so that an example is two files; tatoeba's archive, unsplit."""
    plain = text_files.TextFiles(pairs=("en-de",), splits={"train": "train"}, licence="")
    archive = dataclasses.replace(plain, splits={"all": "all"}, archives={"en-de": ("both.zip", "both.txt")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(text_files.CORPORA._components, "plain", plain)
        patch.setitem(text_files.CORPORA._components, "archive", archive)
        yield


def read_or_refusal(corpus, files):
    """What `text_files.read` gives for files of these contents, or its one line of refusal."""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / corpus).mkdir()
        for name, data in files.items():
            (pathlib.Path(folder) / corpus / name).write_bytes(data)
        try:
            return text_files.read(corpus, "en", "de", folder)
        except UserError as error:
            message = str(error)
        assert len(message.splitlines()) == 1
        return message


@settings(max_examples=300)
@given(
    st.lists(st.tuples(good_line, good_line), max_size=6),
    st.tuples(*[st.lists(any_line, max_size=1)] * 2),
    st.tuples(*[st.sampled_from([b"", b"\n", b"\n\n"])] * 2),
    st.tuples(*[st.sampled_from([b"", b"", "\ufeff".encode()])] * 2),
)
@example([(long_line, b"short"), (b"short", long_line)], ([], []), (b"", b"\n"), (b"", b""))
@example([(b"one", b"\xff")], ([b"more"], []), (b"", b""), (b"", b""))
def test_two_files_are_read_line_by_line_or_the_line_is_named(one_file, pairs, more, ends, marks):
    files = {}
    for side, language in enumerate(("en", "de")):
        lines = b"\n".join([*(pair[side] for pair in pairs), *more[side]])
        files[f"train.{language}"] = marks[side] + lines + ends[side]
    found = read_or_refusal("plain", files)
    en, de = map(plainly_read, files.values())
    if isinstance(en, str) or isinstance(de, str):
        assert (f"train.en{en}" if isinstance(en, str) else f"train.de{de}") in found
    elif len(en) != len(de):
        assert f"train.en has {len(en)} lines but " in found
        assert f"train.de has {len(de)};" in found
    else:
        assert found == {"train": list(zip(en, de, strict=True))}


def zipped(text):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("both.txt", text)
    return packed.getvalue()


@settings(max_examples=200)
@given(
    st.lists(st.lists(good_line.map(lambda line: line.replace(b"\t", b" ")), min_size=2, max_size=3), min_size=1),
    st.lists(any_line, max_size=1),
    st.sampled_from([b"\n", b"\r\n"]),
)
@example([[b"one", b"eins", b"CC-BY"]], [b"\tzwei\tCC-BY"], b"\n")
def test_the_columns_of_an_archive_are_read_or_the_line_is_named(one_file, rows, more, end):
    lines = [*map(b"\t".join, rows), *more]
    text = b"".join(line + end for line in lines)
    found = read_or_refusal("archive", {"both.zip": zipped(text)})
    plain = plainly_read(text)
    if isinstance(plain, str):
        assert f"both.txt{plain}" in found
        return
    # Not of the stripped lines: where the first column is empty, they would begin with the second.
    whole = b"\n".join(lines).decode().removeprefix("\ufeff")
    pairs = [tuple(column.strip() for column in line.split("\t")[:2]) for line in whole.split("\n")]
    wrong = [number for number, pair in enumerate(pairs, 1) if len(pair) < 2 or not all(pair)]
    if wrong:
        assert f"both.txt, line {wrong[0]}: not two sentences" in found
    else:
        assert found == {"all": pairs}


@settings(max_examples=300)
@given(st.sampled_from(["train.de.gz", "both.zip"]), st.data())
def test_a_damaged_container_is_named_or_its_text_is_whole(one_file, name, data):
    text = "".join(f"sentence {i}\tSatz {i}\n" for i in range(40)).encode()
    if name == "both.zip":
        corpus, whole, others = "archive", zipped(text), {}
    else:
        corpus, whole, others = "plain", gzip.compress(text), {"train.en": text}
    sound = read_or_refusal(corpus, others | {name: whole})
    damaged = bytearray(whole)
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = damaged[:at]
    else:
        damaged[at] ^= data.draw(st.integers(1, 255))
    found = read_or_refusal(corpus, others | {name: bytes(damaged)})
    assert found == sound or name in found


@settings(max_examples=10)
@given(st.lists(st.tuples(good_line, good_line), min_size=1, max_size=30))
@example([(long_line, b"a\0b\rc"), ("\ufeffहिन्दी".encode(), "\U0001f600".encode()), (b"a", b"a")])
def test_any_text_comes_back_from_tfds(one_file, pairs):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TX_CACHE_DIR", f"{folder}/cache")
        (pathlib.Path(folder) / "plain").mkdir()
        for side, language in enumerate(("en", "de")):
            path = pathlib.Path(folder) / "plain" / f"train.{language}"
            path.write_bytes("\ufeff".encode() + b"".join(pair[side] + b"\n" for pair in pairs))
        corpus = corpora.load(data_config("plain", folder=folder))
        assert corpus.pairs("train") == [tuple(side.decode().strip() for side in pair) for pair in pairs]


def test_a_very_long_line_is_one_sentence(tmp_path):
    long = b"wort " * 200_000 + b"ende"
    folder = write(tmp_path, **{"val.en": long, "val.de": long + b"\n"})
    assert corpora.load(data_config(folder=folder)).pairs("validation") == [(long.decode(), long.decode())]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"one\n", r"val\.en\.gz has 40 lines but .*val\.de\.gz has 1;"),
        (b"gut\n" * 17 + b"schlecht\xff\n" + b"gut\n" * 22, r"val\.de\.gz, line 18: not UTF-8"),
        (b"\xef\xbb\xbfgut\n\xff\n", r"val\.de\.gz, line 2: not UTF-8"),
        (b"gut\n" * 4 + b" \t\n" + b"gut\n" * 35, r"val\.de\.gz: line 5 is empty"),
        (b"gut\n" * 39 + b"gut\n\n", r"val\.de\.gz: line 41 is empty"),
        (b"", r"val\.de\.gz: the file is empty"),
    ],
)
def test_malformed_text_is_named_by_file_and_line(tmp_path, data, message):
    with pytest.raises(UserError, match=message) as error:
        corpora.load(data_config(folder=write(tmp_path, **{"val.de": data})))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cache" / "tfds").exists()


def test_a_damaged_gzip_file_is_named(tmp_path):
    packed = write(tmp_path) / "multi30k" / "train.de.gz"
    for damaged in (packed.read_bytes()[:-200], b"not gzip at all"):
        packed.write_bytes(damaged)
        with pytest.raises(UserError, match=r"train\.de\.gz cannot be read"):
            corpora.load(data_config(folder=tmp_path))


def test_folders_are_looked_in_in_turn(tmp_path, monkeypatch):
    wanted = {}
    for place in ("dir", "environment", "cache/text"):
        write(tmp_path / place, **{"val.en": place.encode(), "val.de": place.encode()})
        wanted[place] = [(place, place)]
    read = functools.partial(text_files.read, "multi30k", "en", "de")
    assert read("")["validation"] == wanted["cache/text"]
    monkeypatch.setenv("TX_DATA_DIR", str(tmp_path / "environment"))
    assert read("")["validation"] == wanted["environment"]
    assert read(str(tmp_path / "dir"))["validation"] == wanted["dir"]
    (tmp_path / "dir/multi30k/val.en.gz").unlink()
    with pytest.raises(UserError, match=r"dir/multi30k has only a part of multi30k; add val\.en\[\.gz\], or move"):
        read(str(tmp_path / "dir"))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (("multi20k",), "no corpus 'multi20k'; the nearest is 'multi30k'"),
        (("my_numbers",), "a generator of your own needs --import FILE.py"),
        (("multi30k", "en", "cs"), "multi30k has no pair en-cs; it has en-de, en-fr, de-fr"),
        (
            ("tatoeba",),
            r"needs all\.en-de\.en\[\.gz\], .* looked in /nowhere/tatoeba, .*; download deu-eng\.zip",
        ),
        (
            ("wmt14_translate/de-en",),
            r"not prepared.*/nowhere.*make wmt-venv, then \.venv-wmt/bin/python -m tx\.data\.builders wmt14_translate",
        ),
    ],
)
def test_what_is_not_there_is_named_with_what_to_do(where, message):
    with pytest.raises(UserError, match=message) as error:
        corpora.load(data_config(*where, folder="/nowhere"))
    assert "\n" not in str(error.value)


def test_an_unknown_split_is_refused(tmp_path):
    corpus = corpora.load(data_config(folder=write(tmp_path)))
    with pytest.raises(UserError, match="no split 'dev'; it has train, validation, test_2016_flickr"):
        corpus.pairs("dev")


# Tatoeba: no official split, many translations of one sentence.


def tatoeba(n=4000):
    pairs = [(f"Sentence {i}.", f"Satz {i}, Fassung {k}") for i in range(n) for k in range(1 + i % 3)]
    return pairs + [(f"sentence {i}!", f"Satz {i}!") for i in range(n)]  # near-copies, far away


def test_translations_of_one_sentence_stay_together():
    splits = text_files.split_by_hash(tatoeba(), 0)
    number = {split: [en.strip(".!").split()[1] for en, _ in pairs] for split, pairs in splits.items()}
    everywhere = [set(numbers) for numbers in number.values()]
    assert sum(map(len, everywhere)) == len(set.union(*everywhere)) == 4000
    for split in ("validation", "test"):
        assert len(number[split]) == len(set(number[split]))  # one reference each, the first of the file
        assert number[split] == sorted(number[split], key=int)
        assert all(de.endswith("Fassung 0") for _, de in splits[split])
        assert 20 <= len(number[split]) <= 60  # 1% of 4000, give or take three standard deviations
    kept = set(splits["train"])
    assert splits["train"] == [pair for pair in tatoeba() if pair in kept]
    assert {n: number["train"].count(n) for n in everywhere[0]} == {n: 2 + int(n) % 3 for n in everywhere[0]}


MARKED = {  # sentences that differ in marks alone
    "Hindi": ["कल", "काल", "किला", "कुल"],
    "Thai": ["มา", "ม้า", "ที", "ที่"],
    "accents": ["pe\u0301che", "peche", "pêche"],
}


@pytest.mark.parametrize("text", MARKED)
def test_sentences_that_differ_in_marks_are_not_one(text):
    keys = [text_files._equality_key(sentence) for sentence in MARKED[text]]
    assert len(set(keys)) == len(keys)
    splits = text_files.split_by_hash([(one, "x") for one in MARKED[text]], 0, percent=50)
    assert sum(map(len, splits.values())) == len(keys)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Pe\u0301che !", "péche"), ("की\u200d, का।", "की का"), ("I \u2764\ufe0f it", "I \u2764 it"), ("e\u0301", "É")],
)
def test_sentences_that_are_written_otherwise_are_one(one, other):
    assert text_files._equality_key(one) == text_files._equality_key(other)


UNMARKED = st.text(st.characters(exclude_categories=["Mn", "Mc", "Cs"]))


@example("İstanbul ΐ ǰ")  # without case they have marks
@example("\u2126 \u212b \uf900 \u1112\u1161\u11ab")  # composed they are others
@given(UNMARKED)
def test_text_without_marks_is_split_as_ever(text):
    assert text_files._equality_key(text) == re.sub(r"[\W_]", "", text.casefold())


def test_either_direction_has_the_same_split(tmp_path):
    (tmp_path / "tatoeba").mkdir()
    for side, language in enumerate(("en", "de")):
        lines = "".join(f"{pair[side]}\n" for pair in tatoeba(500))
        (tmp_path / "tatoeba" / f"all.en-de.{language}").write_text(lines)
    there = text_files.read("tatoeba", "en", "de", str(tmp_path))
    back = text_files.read("tatoeba", "de", "en", str(tmp_path))
    assert back == {split: [(b, a) for a, b in pairs] for split, pairs in there.items()}
    # The archive of the same sentences, as it is published, will do as well.
    (tmp_path / "zip" / "tatoeba").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "zip" / "tatoeba" / "deu-eng.zip", "w") as archive:
        archive.writestr("deu.txt", "".join(f"{a}\t{b}\tCC-BY 2.0\n" for a, b in tatoeba(500)))
        archive.writestr("_about.txt", "no sentences")
    assert text_files.read("tatoeba", "de", "en", str(tmp_path / "zip")) == back
    assert "tensorflow" not in sys.modules


def test_a_file_too_small_for_its_splits_is_named(tmp_path):
    (tmp_path / "tatoeba").mkdir()
    for language in ("en", "de"):
        (tmp_path / "tatoeba" / f"all.en-de.{language}").write_text("Go.\n")
    with pytest.raises(UserError, match=r"all\.en-de\.en has too few sentences: none falls into validation, test;"):
        text_files.read("tatoeba", "en", "de", str(tmp_path))


def test_a_malformed_archive_is_named(tmp_path):
    path = tmp_path / "tatoeba" / "deu-eng.zip"
    path.parent.mkdir()
    path.write_bytes(b"PK, but not for long")
    with pytest.raises(UserError, match=r"deu-eng\.zip is not an archive with deu\.txt"):
        text_files.read("tatoeba", "en", "de", str(tmp_path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("deu.txt", "Go.\tGeh.\nno tab\n")
    with pytest.raises(UserError, match=r"deu\.txt, line 2: not two sentences"):
        text_files.read("tatoeba", "en", "de", str(tmp_path))


# Downloads, from a server on this machine.


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """Makes Multi30k's upstream a folder served here; yields the folder and the checksum table in force."""
    folder = write(tmp_path / "upstream") / "multi30k"
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    checksums = {
        path.name.removesuffix(".gz"): (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.iterdir()
    }
    url = f"http://127.0.0.1:{server.server_port}/{{stem}}.{{language}}.gz"
    table = dataclasses.replace(text_files.CORPORA["multi30k"], url=url, checksums=checksums)
    monkeypatch.setitem(text_files.CORPORA._components, "multi30k", table)
    yield folder, checksums
    server.shutdown()
    server.server_close()


def test_missing_text_is_downloaded_once(upstream):
    folder, _ = upstream
    expected = text_files.read("multi30k", "en", "de", str(folder.parent))
    assert text_files.read("multi30k", "en", "de", "") == expected
    for path in folder.iterdir():
        path.unlink()
    assert text_files.read("multi30k", "en", "de", "") == expected
    assert "tensorflow" not in sys.modules


def test_a_download_with_another_checksum_is_refused(upstream):
    folder, checksums = upstream
    size, sha256 = checksums["val.de"]
    served = (folder / "val.de.gz").read_bytes()
    (folder / "val.de.gz").write_bytes(served[:-1] + bytes([served[-1] ^ 1]))  # same size, one bit
    with pytest.raises(UserError, match=r"the download failed .*val\.de\.gz does not have the checksum") as error:
        corpora.load(data_config())
    assert "\n" not in str(error.value)
    assert sha256 in str(error.value)
    assert size == len(served)
    assert [p for p in cache.root().rglob("*") if p.is_file() and not p.name.endswith(".lock")] == []


def test_a_file_that_upstream_lacks_is_reported(upstream):
    folder, _ = upstream
    (folder / "test_2017_mscoco.de.gz").unlink()
    with pytest.raises(UserError, match=r"multi30k needs .*looked in .*download failed .*404.*put them into"):
        corpora.load(data_config())


def test_the_checksum_table_is_complete():
    corpus = text_files.CORPORA["multi30k"]
    assert set(corpus.checksums) == {
        f"{s}.{language}" for s in corpus.splits.values() for language in ("de", "en", "fr")
    }
    assert len({sha256 for _, sha256 in corpus.checksums.values()}) == 15
    assert all(len(bytes.fromhex(sha256)) == 32 for _, sha256 in corpus.checksums.values())


def test_a_second_pair_downloads_what_the_first_did_not(upstream):
    text_files.read("multi30k", "en", "de", "")
    folder, checksums = upstream
    for split, n in SIZES.items():
        data = gzip.compress("".join(f"{s}\n" for s in sentences("fr", split, n)).encode())
        (folder / f"{split}.fr.gz").write_bytes(data)
        checksums[f"{split}.fr"] = (len(data), hashlib.sha256(data).hexdigest())
    assert text_files.read("multi30k", "en", "fr", "")["validation"][0][1].startswith("fr val")


# TFDS's own sets, stood in for by one that this project's builder makes.


def test_a_set_of_tfds_is_found_and_its_columns_picked(tmp_path, monkeypatch):
    old = {"train": [("ein Satz", "a sentence")], "test": [("noch einer", "one more")]}
    new = {split: [(a, b + ", really") for a, b in rows] for split, rows in old.items()}
    for version, pairs in (("1.9.0", old), ("1.10.0", new)):
        builder = builders.ParallelText("de", "en", version, functools.partial(dict, pairs), data_dir=tmp_path / "set")
        builders.prepare(builder, tmp_path / "set")
    corpus = corpora.load(data_config("set/parallel_text", "en", "de", tmp_path))
    assert corpus.pairs("test") == [("one more, really", "noch einer")]  # the newest version
    assert set(corpus.split_names) == {"train", "test"}
    for pinned in ("set/parallel_text:1.9.0", "set/parallel_text/1.9.0"):
        assert corpora.load(data_config(pinned, "en", "de", tmp_path)).pairs("test") == [("one more", "noch einer")]
    newest = corpora.load(data_config("set/parallel_text:1.10.0", "en", "de", tmp_path))
    assert newest.fingerprint == corpus.fingerprint
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"parallel_text:2\.0\.0 is not prepared .* \(there is 1\.10\.0, 1\.9\.0\), and prep"
    ):
        corpora.load(data_config("set/parallel_text:2.0.0", "en", "de", tmp_path))
    lower = data_config("set/parallel_text", "en", "de", tmp_path)
    lower.lowercase = True
    assert corpora.load(lower).pairs("train") == [("a sentence, really", "ein satz")]
    assert corpora.load(lower).fingerprint == corpora.in_lower_case(corpus.fingerprint)
    other = corpora.load(data_config("set/parallel_text", "de", "en", tmp_path))
    assert other.pairs("train") == [("ein Satz", "a sentence, really")]
    assert other.fingerprint != corpus.fingerprint
    with pytest.raises(UserError, match="set/parallel_text has no pair en-fr; it has de, en"):
        corpora.load(data_config("set/parallel_text", "en", "fr", tmp_path))


@pytest.mark.parametrize("copied", ["set/another/1.0.0", "set/parallel_text/1.1.0"])
def test_a_set_of_tfds_under_the_name_of_another_is_refused(tmp_path, copied):
    pairs = {"train": [("ein Satz", "a sentence")]}
    builder = builders.ParallelText("de", "en", "1.0.0", lambda: pairs, data_dir=tmp_path / "set")
    builders.prepare(builder, tmp_path / "set")
    shutil.copytree(builder.data_dir, tmp_path / copied)
    name, _, version = copied.rpartition("/")
    wanted = rf"{copied} holds parallel_text 1\.0\.0, not {name} {version}; delete it and prepare the set again"
    with pytest.raises(UserError, match=wanted):
        corpora.load(data_config(name, "en", "de", tmp_path))


# The generated corpus, and many processes at once.


def test_the_generated_corpus_comes_through_tfds(monkeypatch):
    monkeypatch.setattr(numbers, "generate", functools.cache(numbers.generate))
    corpus = corpora.load(data_config("numbers"))
    for split, pairs in numbers.generate("en", "de").items():
        assert corpus.pairs(split) == [tuple(pair) for pair in pairs]


def test_two_processes_may_prepare_the_same_corpus(tmp_path):
    code = (
        "import sys; from tests import test_corpora as t; from tx.data import corpora\n"
        "print(corpora.load(t.data_config(folder=sys.argv[1])).pairs('validation')[-1])"
    )
    command = [sys.executable, "-c", code, str(write(tmp_path))]
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}"}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0, 0]
    assert outputs == [f"{(sentences('en', 'val', 40)[-1], sentences('de', 'val', 40)[-1])}\n"] * 3
    assert not list(cache.root().rglob("*incomplete*"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write to .*file.*TX_CACHE_DIR"):
        corpora.load(data_config(folder=write(tmp_path))).pairs("validation")


@pytest.mark.parametrize("kind", ["writer", "system"])
def test_a_full_disk_is_called_so(tmp_path, monkeypatch, kind):
    """The writer of array_record raises an error of its own, with the system's words; it met the learner's, too."""
    full = OSError(errno.ENOSPC, "No space left on device")
    if kind == "writer":
        full = RuntimeError(f"Failed to finalize writing: write() failed: {os.strerror(errno.ENOSPC)}; at byte 1048576")

    def fail(*_, **__):
        raise full

    monkeypatch.setattr(builders.ParallelText, "download_and_prepare", fail)
    with pytest.raises(UserError, match=r"no space left for .*multi30k\.en-de; free some") as error:
        tokenized.prepare(data_config(folder=write(tmp_path)), 320, log=lambda line: None)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"no space left for .*/kind/key; free some"):
        cache.entry("kind", "key", lambda folder: np.save(Full(), np.zeros(9)))


class Full:
    """A file on a full disk."""

    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_of_the_writer_that_is_none_of_the_disk_passes(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("something else")

    monkeypatch.setattr(builders.ParallelText, "download_and_prepare", fail)
    with pytest.raises(RuntimeError, match="something else"):
        corpora.load(data_config(folder=write(tmp_path))).pairs("validation")


# The real text.


@pytest.mark.skipif(not SHARED, reason="TX_DATA_DIR names no folder with the text of multi30k and tatoeba")
def test_the_real_text_is_well_formed():
    for target in ("de", "fr"):
        splits = text_files.read("multi30k", "en", target, SHARED)
        assert [len(pairs) for pairs in splits.values()] == [29000, 1014, 1000, 1000, 461]
        splits = text_files.read("tatoeba", "en", target, SHARED)
        assert 1100 < len(splits["validation"]) < 1500
        assert 1100 < len(splits["test"]) < 1500
        assert not {en for en, _ in splits["train"]} & {en for s in ("validation", "test") for en, _ in splits[s]}


def test_the_page_of_corpora_says_the_licence_of_each():
    page = (pathlib.Path(__file__).parent.parent / "experiments" / "README.md").read_text()
    said = dict(re.findall(r"^\| `(\w+)` \| \w+ \| .+ \| (.+) \|$", page, re.MULTILINE))
    made = {name: text_files.CORPORA[name] for name in text_files.CORPORA}
    stated = {name: one.licence for name, one in made.items() if isinstance(one, text_files.TextFiles) and one.licence}
    assert stated.keys() == {"multi30k", "tatoeba"}  # those that tests plant have none
    assert {name: said[name] for name in stated} == stated

"""Folders of the user's own text: what is found there in which form, what is split off, refused, left out; identity."""

import contextlib
import gzip
import hashlib
import json
import pathlib
import time

import handful
import numpy as np
import pytest
import tiny

from tx import config as config_lib
from tx.data import builders, corpora, text_folders, tokenized
from tx.data.loader import TrainBatches
from tx.decoding import trained_model
from tx.errors import UserError
from tx.model.flops import training_flops
from tx.runs import identity, state
from tx.runs.run_dir import RunDir
from tx.runs.selection import Selected
from tx.training import experiment, outcome

ODD = "a\u2028b\u0085c\x0cd"  # what str.splitlines would cut
TRAIN = [(f"phrase {i} {ODD}", f"sentence {i}") for i in range(40)]
DEV = [("une ligne", "a line"), ("deux", "two")]
TEST = [("trois", "three")]
TEXT = {"train": TRAIN, "validation": DEV, "test": TEST}


@pytest.fixture(autouse=True)
def _no_data_but_the_test_s(monkeypatch, tmp_path):
    monkeypatch.delenv("TX_DATA_DIR", raising=False)
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


def lines(stem, pairs, languages=("fr", "en")):
    sides = zip(*pairs, strict=True)
    return {f"{stem}.{code}": "".join(f"{s}\n" for s in side) for code, side in zip(languages, sides, strict=True)}


def tsv(pairs):
    return "".join(f"{a}\t{b}\n" for a, b in pairs)


def jsonl(pairs, wrap=lambda value: value):
    return "".join(json.dumps(wrap({"fr": a, "en": b, "id": 3})) + "\n" for a, b in pairs)


def write(folder, files):
    """Writes {name: text or bytes}, compressed where the name ends in .gz; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        data = text if isinstance(text, bytes) else text.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def whole(train=TRAIN, dev=DEV, test=TEST):
    return {**lines("train", train), **lines("valid", dev), **lines("test", test)}


def read(folder, source="fr", target="en"):
    return text_folders.read(str(folder), source, target)


def data_config(folder, **diff):
    c = config_lib.get_config()
    settings = {"data.corpus": f"files:{folder}", "data.source": "fr", "data.target": "en"} | diff
    config_lib.update(c, settings)
    return c.data


FORMS = {
    "lines": whole(),
    "compressed": {f"{name}.gz": text for name, text in whole().items()},
    "columns": {"train.tsv": tsv(TRAIN), "dev.tsv": "fr\ten\n" + tsv(DEV), "test.tsv.gz": tsv(TEST)},
    "columns turned around": {
        "train.tsv": "en\tfr\n" + tsv((b, a) for a, b in TRAIN),
        **lines("validation", DEV),
        "test.tsv": tsv(TEST),
    },
    "JSON": {
        "train.jsonl": jsonl(TRAIN),
        "val.jsonl.gz": jsonl(DEV, lambda value: {"translation": value}),
        "test.jsonl": "\ufeff" + jsonl(TEST).rstrip("\n"),
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_sentences(tmp_path, form):
    folder = write(tmp_path / "text", FORMS[form] | {"README.md": "mine", "train.de": "andere\n", "notes.tsv": "no"})
    assert read(folder) == TEXT
    assert list(read(folder)) == ["train", "validation", "test"]


def test_what_only_begins_like_a_split_is_left_alone(tmp_path):
    others = (
        "trainer.fr",
        "values.en",
        "devices.tsv",
        "validator.jsonl",
        "train.2016.de",
        "test.2016.txt",
        "latest.fr",
        "train.tok.fr",
        "test.2016.en",
        "valid.old.tsv",
    )
    folder = write(tmp_path, whole() | dict.fromkeys(others, "no"))
    (folder / "test.old.fr").mkdir()
    assert read(folder) == TEXT


def test_the_fingerprint_is_that_of_the_sentences_wherever_they_lie(tmp_path):
    found = {
        corpora.load(data_config(write(tmp_path / form.replace(" ", "_"), files))).fingerprint
        for form, files in FORMS.items()
    }
    assert len(found) == 1
    other = write(tmp_path / "other", whole(dev=[("une ligne", "one line"), DEV[1]]))
    assert corpora.load(data_config(other)).fingerprint not in found


def test_any_languages_and_several_tests_come_through_tfds(tmp_path):
    files = {}
    for stem, pairs in (("train", TRAIN), ("dev", DEV), ("test-b", TEST), ("test_2016", DEV)):
        files |= lines(stem, pairs, ("zh-Hans", "x.y"))
    corpus = corpora.load(
        data_config(write(tmp_path / "te xt", files), **{"data.source": "zh-Hans", "data.target": "x.y"})
    )
    assert corpus.split_names == ("train", "validation", "test-b", "test_2016")
    assert corpus.name == f"files:{tmp_path}/te xt"
    for split, pairs in {"train": TRAIN, "validation": DEV, "test-b": TEST, "test_2016": DEV}.items():
        assert corpus.pairs(split) == pairs


def test_a_sentence_of_json_is_one_line(tmp_path):
    folder = write(tmp_path, whole() | {"test.jsonl": jsonl([("un\ndeux", " one\ntwo ")])})
    for name in lines("test", TEST):
        (folder / name).unlink()
    assert read(folder)["test"] == [("un deux", "one two")]


# Without dev or test.


def bucket(sentence):
    """As it is documented: a hash of letters and digits alone, in a hundred parts."""
    key = "".join(c for c in sentence.casefold() if c.isalnum())
    return int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) % 100


@pytest.mark.parametrize(
    ("count", "there", "percent"), [(3000, (), 10), (9000, (), 6), (3000, ("valid",), 10), (3000, ("test_a",), 10)]
)
def test_what_is_lacking_is_split_off_by_the_source(tmp_path, count, there, percent):
    pairs = [(f"Phrase {i}.", f"sentence {i}, {k}") for i in range(count // 2) for k in range(2)]
    pairs += [("Phrase 1!", "another"), ("phrase, 1", "one more"), ("", "of nothing"), ("Phrase 2", "")]
    files = lines("train", pairs)
    for stem in there:
        files |= lines(stem, DEV)
    found = read(write(tmp_path, files))
    wanted = {"validation": "valid" not in there, "test": "test_a" not in there}
    expected = {"train": []}
    first = {}
    for pair in pairs:
        part = bucket(pair[0]) // percent if all(pair) else 99
        split = ("validation", "test")[part] if part < 2 else "train"
        if not wanted.get(split):
            expected["train"].append(pair)
        elif first.setdefault(pair[0].strip(".!").replace(",", "").casefold(), pair) is pair:
            expected.setdefault(split, []).append(pair)
    for split, rows in expected.items():
        assert found[split] == rows
    for split in (name for name, lacking in wanted.items() if lacking):
        assert abs(len(found[split]) / (count / 2) - percent / 100) < 0.02
    assert found == read(tmp_path)


def test_too_few_sentences_to_split(tmp_path):
    with pytest.raises(UserError, match=r"train\.fr has too few sentences to split any off for validation, test; add"):
        read(write(tmp_path, lines("train", TRAIN[:1])))


def test_what_is_split_off_leaves_something_to_train_on(tmp_path):
    """Of one sentence all may go to the dev set, as those do whose hash is among the least."""
    goes = next(i for i in range(100) if bucket(f"bonjour{i}") < 10)
    pairs = [(f"Bonjour {goes}", "hello")] * 2
    with pytest.raises(UserError, match=r"train\.fr has too few sentences to split any off for validation; add"):
        read(write(tmp_path, lines("train", pairs) | lines("test", DEV)))
    found = read(write(tmp_path, lines("train", [*pairs, ("Bonjour", "hello")]) | lines("test", DEV)))
    assert [len(found[split]) for split in ("train", "validation")] == [1, 1]


def test_text_that_changes_while_it_is_read_is_not_kept(tmp_path):
    folder = write(tmp_path / "text", whole())
    corpus = corpora.load(data_config(folder))
    write(folder, lines("test", [("quatre", "four")]))
    with pytest.raises(UserError, match=r"files:.*: the text changed while it was read; start again") as error:
        corpus.pairs("test")
    assert "\n" not in str(error.value)
    assert corpora.load(data_config(folder)).pairs("test") == [("quatre", "four")]
    write(folder, whole())
    assert corpora.load(data_config(folder)).pairs("test") == TEST


# What is refused, in one line.

REFUSED = {
    r"no folder .*/text; where a run's text was moved, set TX_DATA_DIR to the folder that text lies in now": None,
    "has no training text: put train.fr and train.en there, .*; it is empty": {},
    r"has no training text.*; it holds a\.fr, dev\.en, dev\.fr": {"a.fr": "x", **lines("dev", DEV)},
    r"has train\.fr but no train\.en\[\.gz\]; add it": {"train.fr": "x\n"},
    r"has test_x\.en but no test_x\.fr\[\.gz\]; add it": whole() | {"test_x.en": "x\n"},
    r"has both train\.fr and train\.fr\.gz; leave one out": whole() | {"train.fr.gz": "x\n"},
    r"one split in several forms \(train\.en, train\.fr, train\.tsv\); leave": whole() | {"train.tsv": "x\ty\n"},
    r"has one split in several forms \(dev\.jsonl, dev\.tsv\)": {"dev.tsv": "x\ty", "dev.jsonl": "{}"}
    | lines("train", TRAIN),
    r"has dev\.\* and valid\.\*, both of validation": whole() | lines("dev", DEV),
    r"has test\.2016\.en, which is of no split; before the language or form write .*\(test_2016\)": lines(
        "train", TRAIN
    )
    | lines("test.2016", TEST),
    r"has test\.2016\.fr\.gz, which is of no split": lines("train", TRAIN) | {"test.2016.fr.gz": "x\n"},
    r"has train\.en-fr\.en, which is of no split": lines("train.en-fr", TRAIN),
    r"has dev2\.fr, which": lines("train", TRAIN) | {"dev2.fr": "x\n"},
    r"has Valid\.tsv, which": lines("train", TRAIN) | {"Valid.tsv": "x\ty\n"},
    r"has validation-a\.jsonl, which": lines("train", TRAIN) | {"validation-a.jsonl": "{}"},
    r"train\.fr has 40 lines but .*train\.en has 1; they must be aligned": whole() | {"train.en": "x\n"},
    r"valid\.en: line 2 is empty \(en\); in dev and test every line": whole(dev=[("a", "b"), ("c", " \t")]),
    r"test\.tsv: line 3 is empty \(fr\)": {
        "test.tsv": "fr\ten\na\tb\n\tc\n",
        **lines("dev", DEV),
        **lines("train", TRAIN),
    },
    r"dev\.jsonl: line 2 is empty \(fr\)": {"dev.jsonl": jsonl([("a", "b"), (" ", "c")]), **lines("train", TRAIN)},
    r"test\.fr: line 2 is empty \(fr\)": whole(test=[("a", "b"), ("", "")]),
    r"valid\.fr: the file is empty": whole() | {"valid.fr": "", "valid.en": ""},
    r"train\.tsv, line 2: 1 columns; a line is a sentence, a tab, its": {"train.tsv": "a\tb\nc\n"},
    r"train\.tsv, line 1: 3 columns": {"train.tsv": "a\tb\tc\n"},
    r'train\.jsonl, line 2: not \{"fr": SENTENCE, "en": SENTENCE\}': {"train.jsonl": jsonl(DEV[:1]) + '{"fr": "x"}\n'},
    r"train\.jsonl, line 1: not": {"train.jsonl": "[1, 2]\n"},
    r"train\.jsonl, line 1: not .*": {"train.jsonl": '{"fr": 3, "en": "x"}\n'},
    r"train\.jsonl, line 1: not .* nor": {"train.jsonl": '{"fr": "\\ud800", "en": "x"}\n'},
    r"train\.jsonl, line 1: not .*, nor": {"train.jsonl": '{"fr": \n'},
    r"train\.en, line 3: not UTF-8": whole() | {"train.en": b"a\nb\n\xff\n"},
    r"train\.fr\.gz cannot be read": {"train.fr.gz": "x\n" * 40, "train.en": "x\n" * 40},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_wrong_is_named_by_file_and_line(tmp_path, message):
    files = REFUSED[message]
    if files is not None:
        folder = write(tmp_path / "text", files)
        if "cannot be read" in message:
            (folder / "train.fr.gz").write_bytes(b"not gzip")
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / "text")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("code", ["../fr", "", "f/r", "tsv"])
def test_a_language_is_no_path(tmp_path, code):
    write(tmp_path, whole())
    with pytest.raises(UserError, match="is no language code"):
        read(tmp_path, code)


# Lines that are empty or endless.


def test_a_training_pair_that_is_empty_on_a_side_is_left_out_and_counted(tmp_path):
    odd = [("rien", ""), (" \t", "nothing"), ("", ""), ("long " * 200, "short")]
    folder = write(tmp_path / "text", whole(train=[*odd[:2], *TRAIN, *odd[2:]]))
    data = tokenized.prepare(data_config(folder), 300, log=lambda line: None)
    train = data.splits["train"]
    batches = TrainBatches(train, seed=1, row_length=60, batch_rows=1)
    assert (batches.num_empty, batches.num_skipped) == (3, 1)
    assert batches.usable.tolist() == list(range(2, 2 + len(TRAIN)))
    assert (np.minimum(train.src_lengths, train.tgt_lengths)[batches.usable] > 1).all()


def test_a_text_of_nothing_but_empty_lines():
    nothing = tokenized.TokenizedSplit(*[np.array(a) for a in ([1, 1], [0, 1, 2], [5, 1, 1], [0, 2, 3])])
    with pytest.raises(UserError, match="no training sentence has text on both sides"):
        TrainBatches(nothing, seed=1, row_length=4, batch_rows=1)


@pytest.mark.parametrize("empty", ["", " \u3000"])
def test_what_tfds_defines_is_held_to_the_same(tmp_path, empty):
    """A set of TFDS's own, stood in for by one that this project's builder makes."""
    rows = {"train": [*TRAIN, ("rien", empty)], "validation": DEV, "test": [*TEST, (empty, "nothing")]}
    builder = builders.ParallelText("fr", "en", "1.0.0", lambda: rows, data_dir=tmp_path / "set")
    builders.prepare(builder, tmp_path / "set")
    c = data_config("", **{"data.corpus": "set/parallel_text", "data.dir": str(tmp_path)})
    data = tokenized.prepare(c, 300, log=lambda line: None)
    assert TrainBatches(data.splits["train"], seed=1, row_length=60, batch_rows=1).num_empty == 1
    assert len(data.splits["validation"]) == len(DEV)
    for _ in range(2):  # made, and found in the cache
        with pytest.raises(UserError, match=r"set/parallel_text test, line 2 is empty \(fr\); in dev and test every"):
            data.splits["test"]
        data = tokenized.prepare(c, 300, log=lambda line: None)


def test_a_line_of_ten_megabytes_is_named_or_left_out_at_once(tmp_path):
    began, endless = time.process_time(), "wortx" * 2_000_000
    dev = write(tmp_path / "dev", whole(dev=[*DEV, ("court", endless)]))
    with pytest.raises(
        UserError, match=r"valid\.en, line 3: [\d,]+ characters; a line is one sentence, of 1,048,576 at"
    ):
        read(dev)
    folder = write(tmp_path / "train", whole(train=[*TRAIN, (endless, "short")]))
    data = tokenized.prepare(data_config(folder), 300, log=lambda line: None)
    batches = TrainBatches(data.splits["train"], seed=1, row_length=60, batch_rows=1)
    assert batches.num_skipped == 1
    assert time.process_time() - began < 10  # it had no end in minutes
    plain = write(tmp_path / "plain", whole())
    without = tokenized.prepare(data_config(plain), 300, log=lambda line: None)
    assert data.vocabulary.fingerprint == without.vocabulary.fingerprint


# Where the text lies is no part of what a run is.


def test_a_folder_is_found_again_where_it_was_moved(tmp_path, monkeypatch):
    old, new = tmp_path / "text", tmp_path / "elsewhere" / "text"
    expected = read(write(old, whole()))
    new.parent.mkdir()
    old.rename(new)
    monkeypatch.setenv("TX_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=f"no folder {old} nor {tmp_path}/nowhere/text; "):
        read(old)
    monkeypatch.setenv("TX_DATA_DIR", str(new.parent))
    assert read(old) == expected


def test_the_folder_is_kept_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, kept in (
        ("text", "text"),
        ("./a/../text/", "text"),
        ("~/text", "home/text"),
        (str(tmp_path / "x"), "x"),
    ):
        assert data_config(given).corpus == f"files:{tmp_path / kept}"
    c = config_lib.get_config()
    config_lib.update(c, {"data.corpus": "files:"})
    with pytest.raises(UserError, match=r"data\.corpus=files: names no folder; write files:DIR"):
        config_lib.validate(c)


def test_two_folders_make_no_two_configurations():
    def made(corpus, **diff):
        c = config_lib.get_config()
        config_lib.update(c, {"data.corpus": corpus} | diff)
        return c

    one, other = made("files:/a"), made("files:/b", **{"data.dir": "/c"})
    assert config_lib.differences(one.to_dict(), other.to_dict()) == {}
    assert identity.describe_other_fields(identity.fields(one), identity.fields(other)) == ""
    assert "data.corpus" in config_lib.differences(one.to_dict(), made("numbers").to_dict())
    # Parameters are shared without a look at the text: there the folder counts.
    assert config_lib.training_fields(one) != config_lib.training_fields(other)
    assert config_lib.training_fields(made("numbers")) != config_lib.training_fields(
        made("numbers", **{"data.dir": "/c"})
    )


@pytest.mark.parametrize("corpus", ["files:/a", "files:~/a/b", "multi30k", "wmt14_translate/de-en"])
def test_a_path_is_no_set_of_tfds(corpus):
    assert config_lib.is_of_tfds(corpus) == (corpus == "wmt14_translate/de-en")
    assert pathlib.Path(data_config("rel").corpus.removeprefix("files:")).is_absolute()


@pytest.mark.parametrize("stem", ["valid", "test"])
def test_a_trained_run_is_opened_on_its_own_text_alone(tmp_path, monkeypatch, stem):
    """A sentence of dev or test is corrected, which no subword depends on."""
    monkeypatch.setattr(trained_model, "select_parameters", lambda *_: Selected({}, 1, "last"))
    folder = write(tmp_path / "text", whole())
    c, run = config_lib.get_config(), RunDir(tmp_path / "run")
    settings = {"data.corpus": f"files:{folder}", "data.source": "fr", "data.target": "en", "model.vocab_size": 300}
    config_lib.update(c, settings)
    made = outcome.described(tokenized.prepare(c.data, 300, log=lambda line: None))
    run.checkpoints.mkdir(parents=True)
    run.config.write_text(json.dumps({"config": c.to_dict(), "data": made}))
    assert trained_model.open_run(run, {})[2].pairs("test") == TEST

    pairs = {"valid": DEV, "test": TEST}[stem]
    write(folder, lines(stem, [(pairs[0][0], "corrected"), *pairs[1:]]))
    with pytest.raises(
        UserError, match=r"run was made with other text, .* TX_DATA_DIR; .* tx\.decode RUN FILE"
    ) as error:
        trained_model.open_run(run, {})
    assert "\n" not in str(error.value)
    assert trained_model.open_model(run, {}).vocabulary.fingerprint == made["vocabulary_fingerprint"]

    del made["fingerprint"]  # as runs of before it was kept
    run.config.write_text(json.dumps({"config": c.to_dict(), "data": made}))
    assert trained_model.open_run(run, {})[2].pairs({"valid": "validation"}.get(stem, stem))[0][1] == "corrected"


# As many subwords as there are: what was asked for says which run it is, what there is says how large its model is.


def test_a_run_has_the_subwords_that_there_are_and_is_known_by_what_was_asked(tmp_path, monkeypatch):
    data, asked = handful.prepared(), 5000
    monkeypatch.setattr(tokenized, "prepare", lambda *_: data)
    c = tiny.config(model__vocab_size=asked, data__vocab="fit", model__num_layers=1, decode__splits="test")
    run = RunDir(tmp_path / "run")
    with contextlib.ExitStack() as held:
        (member,), (head,) = experiment.claim_runs([(c, run)], held)
        member.batches.close()
    assert member.config.model.vocab_size == data.vocabulary.size == handful.VOCAB_SIZE
    assert member.config.is_locked
    assert head["config"] == run.read("config")["config"] == c.to_dict()
    assert c.model.vocab_size == asked
    assert member.training_summary(0.0)["flops"] == training_flops(member.config) < training_flops(c)
    assert not state.is_done(c, run)  # the same command goes on
    exact = tiny.config(model__vocab_size=handful.VOCAB_SIZE)
    assert tokenized.sized(exact, data) is exact

"""The subword vocabulary: exact round trips, fixed ids, the same pieces every time."""

import errno
import hashlib
import json
import re
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_corpora import data_config, write

from tx.data import cache, tokenized
from tx.data.vocabulary import EOS, PAD, UNK, Vocabulary
from tx.errors import UserError

TEXT = [
    f"{a} {b} {c}."
    for a in ("Der kleine Hund", "the small dog", "Ein Mädchen", "a girl")
    for b in ("läuft", "runs", "springt über", "jumps over")
    for c in ("die Straße", "the street", "das Gras", "the grass")
]
SIZE = 400


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.learn(TEXT, SIZE)


anything = st.text(st.characters(exclude_characters="\u2581", exclude_categories=["Cs"]))


def test_a_line_with_sentencepieces_own_mark_counts_like_any_other():
    marked = Vocabulary.learn([f"{line} \u2585" for line in TEXT], SIZE)
    assert marked.fingerprint == Vocabulary.learn([f"{line}  " for line in TEXT], SIZE).fingerprint
    assert marked.decode(marked.encode(["a \u2585 b"])[0]) == "a \u2585 b"


@given(anything)
@example("")
@example(" ")
@example("  two  spaces  at both ends and\u00a0inside  ")
@example("tab\t, carriage return\r, line feed\n, null\0, U+2028 \u2028, U+0085 \u0085, byte order mark \ufeff")
@example("e\u0301 \u00e9 \ufb01 \u2460 \uff21 \u00ad \u200b")  # what normalisation would change or drop
@example("Der Hund 日本語 العربية हिन्दी \U0001f600\u200d\U0001f680")
@example("</s> <pad> <unk> <0x41> <s>")  # the names of special pieces are text like any other
def test_text_survives(vocabulary, text):
    (ids,) = vocabulary.encode([text])
    assert vocabulary.decode(ids) == text
    assert not {PAD, EOS, UNK} & set(ids)
    assert all(0 <= i < SIZE for i in ids)
    assert vocabulary.decode([*ids, EOS, PAD, PAD]) == text


def test_every_character_survives_within_a_word_and_alone(vocabulary):
    some = [chr(i) for i in range(sys.maxunicode + 1) if not 0xD800 <= i < 0xE000 and chr(i) != "\u2581"]
    texts = [between.join(some[start : start + 500]) for start in range(0, len(some), 500) for between in ("", "a ")]
    for text, ids in zip(texts, vocabulary.encode(texts), strict=True):
        assert vocabulary.decode(ids) == text
        assert min(ids) > UNK
        assert max(ids) < SIZE


@settings(max_examples=15)
@given(st.lists(anything.filter(bool), min_size=1, max_size=5))
@example([" \t\r\n\0\u2028\u0085\ufeff"])
@example(["\u2585 \u2047\u2585"])  # sentencepiece's marks of the unknown
@example(["שלום", "العربية", "हिन्दी", "ไทย", "e\u0301\u0327", "\U0001f600\u200d\U0001f680"])
def test_text_survives_whatever_was_learned_from(sentences):
    odd = [sentence * 9 for sentence in sentences]  # often enough to become pieces
    learned = Vocabulary.learn([*TEXT, *odd], 330 + len(set("".join(odd))))
    for text, ids in zip([*TEXT, *odd], learned.encode([*TEXT, *odd]), strict=True):
        assert learned.decode(ids) == text
        assert not {PAD, EOS, UNK} & set(ids)


@given(st.lists(st.integers(0, SIZE - 1)))
def test_any_ids_are_some_text(vocabulary, ids):
    assert vocabulary.decode(ids).encode() == vocabulary.decode([PAD, *ids, EOS]).encode()


def test_its_own_mark_of_a_space_is_the_one_exception(vocabulary):
    assert vocabulary.decode(vocabulary.encode(["a\u2581b"])[0]) == "a b"


def test_the_size_counts_everything(vocabulary):
    assert vocabulary.size == SIZE
    assert (PAD, EOS, UNK) == (0, 1, 2)


def test_a_known_word_is_one_piece_wherever_it_stands(vocabulary):
    first, inside = vocabulary.encode(["the", "Der the"])
    assert inside[-1:] == first


def test_frequent_words_become_whole_pieces(vocabulary):
    assert [len(ids) for ids in vocabulary.encode(TEXT)] == [len(text.split()) + 1 for text in TEXT]


def test_saved_and_loaded(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "model")
    loaded = Vocabulary.load(tmp_path / "model")
    assert loaded.fingerprint == vocabulary.fingerprint
    assert loaded.encode(TEXT) == vocabulary.encode(TEXT)


def test_the_same_text_gives_the_same_pieces_in_any_process(vocabulary):
    code = (
        "import test_vocabulary as t; from tx.data.vocabulary import Vocabulary\n"
        "print(Vocabulary.learn(t.TEXT, t.SIZE).fingerprint)"
    )
    print_it = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {__file__.rpartition('/')[0]!r}); {code}",
    ]
    for hash_seed in ("1", "2"):
        run = subprocess.run(print_it, env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == vocabulary.fingerprint


def test_other_text_or_size_gives_another_fingerprint(vocabulary):
    assert Vocabulary.learn(TEXT, SIZE - 1).fingerprint != vocabulary.fingerprint
    assert Vocabulary.learn([*TEXT[1:], "zzzz yyyy " * 50], SIZE).fingerprint != vocabulary.fingerprint


def test_a_long_line_is_learned_from_too():
    long = "regnerisch " * 2000  # beyond sentencepiece's own limit of 4,192 bytes
    assert len(Vocabulary.learn([long, "a b c"], 290).encode(["regnerisch"])[0]) == 1


def test_a_size_out_of_reach_states_the_largest_possible():
    with pytest.raises(UserError, match=r"vocab_size=5000: the training text yields at most (\d+) pieces") as error:
        Vocabulary.learn(TEXT, 5000)
    most = int(re.search(r"at most (\d+) pieces; data.vocab=fit takes them", str(error.value))[1])
    assert Vocabulary.learn(TEXT, most).size == most
    with pytest.raises(UserError, match=r"vocab_size=200: .* need (\d+) pieces") as error:
        Vocabulary.learn(TEXT, 200)
    least = int(str(error.value).split()[-2])
    assert Vocabulary.learn(TEXT, least).size == least
    with pytest.raises(UserError, match="empty"):
        Vocabulary.learn([], 300)


# Other tokenizers, and as many pieces as there are.


@pytest.fixture(scope="module", params=["unigram", "char", "word"])
def other(request):
    return Vocabulary.learn(TEXT, SIZE, request.param, fit=True)


@settings(max_examples=60)
@given(anything)
@example("")
@example("  two  spaces  the  girl at both ends\u00a0 ")
@example("girl")
@example("日本語 the 日本語")
@example("tab\t, line feed\n, null\0, U+2028 \u2028, \u2585 \u2047 </s> <0x41>")
def test_text_survives_every_tokenizer(other, text):
    (ids,) = other.encode([text])
    assert other.decode([*ids, EOS, PAD]) == text
    assert not {PAD, EOS, UNK} & set(ids)
    assert len(ids) > 0 or not text


def test_what_the_tokenizers_make_of_a_known_word():
    text = "the small dog runs"
    made = {name: Vocabulary.learn(TEXT, SIZE, name, fit=True) for name in ("bpe", "unigram", "char", "word")}
    cut = {name: [v.piece(i) for i in v.encode([text])[0]] for name, v in made.items()}
    assert cut["char"] == list("\u2581" + text.replace(" ", "\u2581"))
    assert cut["word"] == [f"\u2581{word}" for word in text.split()]
    assert "".join(cut["unigram"]) == "".join(cut["bpe"]) == "".join(cut["char"])
    assert len({v.fingerprint for v in made.values()}) == 4


def test_a_vocabulary_of_characters_alone_is_not_one_of_byte_pairs():
    """With no room for a pair both have the same pieces."""
    least = Vocabulary.learn(TEXT, 5000, "char", fit=True).size
    pairs, characters = Vocabulary.learn(TEXT, least), Vocabulary.learn(TEXT, least, "char")
    assert {pairs.piece(i) for i in range(least)} == {characters.piece(i) for i in range(least)}
    assert pairs.fingerprint != characters.fingerprint


def test_fit_takes_what_there_is(vocabulary):
    with pytest.raises(UserError) as error:
        Vocabulary.learn(TEXT, 5000)
    most = int(re.search(r"at most (\d+)", str(error.value))[1])
    fitted = Vocabulary.learn(TEXT, 5000, fit=True)
    assert fitted.size == most
    assert fitted.fingerprint == Vocabulary.learn(TEXT, most).fingerprint
    assert Vocabulary.learn(TEXT, SIZE, fit=True).fingerprint == vocabulary.fingerprint  # where there is enough
    with pytest.raises(UserError, match=r"vocab_size=200: .* need (\d+) pieces"):
        Vocabulary.learn(TEXT, 200, fit=True)


def test_a_vocabulary_of_lower_case_takes_text_in_any_case(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "model")
    lower = Vocabulary.load(tmp_path / "model", lowercase=True)
    assert lower.encode(["Zwei Hunde, ÄÖ"]) == vocabulary.encode(["zwei hunde, äö"])
    assert lower.encode(["Zwei Hunde, ÄÖ"]) != vocabulary.encode(["Zwei Hunde, ÄÖ"])
    assert lower.fingerprint != vocabulary.fingerprint


@pytest.mark.parametrize("tokenizer", ["unigram", "char", "word"])
def test_an_exact_number_is_exact_for_every_tokenizer(tokenizer):
    most = Vocabulary.learn(TEXT, 5000, tokenizer, fit=True).size
    assert Vocabulary.learn(TEXT, most, tokenizer).size == most
    with pytest.raises(UserError, match=f"vocab_size={most + 1}: the training text yields at most {most} pieces; data"):
        Vocabulary.learn(TEXT, most + 1, tokenizer)
    with pytest.raises(UserError, match=r"vocab_size=200: .* alone need"):
        Vocabulary.learn(TEXT, 200, tokenizer)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), UserError("no text"), MemoryError()]
)
def test_what_reading_the_text_raises_is_no_fault_of_the_text(error):
    def sentences():
        yield from TEXT
        raise error

    with pytest.raises(type(error)) as raised:
        Vocabulary.learn(sentences(), SIZE)
    assert raised.value is error


def test_only_what_decides_the_pieces_is_in_the_key_of_a_vocabulary(tmp_path, monkeypatch):
    """Byte pairs of an exact number have the key that they always had."""
    monkeypatch.setenv("TX_CACHE_DIR", str(tmp_path / "cache"))
    c = data_config(folder=write(tmp_path))
    keys = []
    for tokenizer, vocab in (("bpe", "exact"), ("bpe", "fit"), ("char", "fit"), ("word", "fit")):
        c.tokenizer, c.vocab = tokenizer, vocab
        data = tokenized.prepare(c, 320, log=lambda line: None)
        found = {path.name for path in (cache.root() / "vocabularies").iterdir() if not path.name.startswith(".")}
        keys += sorted(found - set(keys))
        if tokenizer == "bpe":
            assert data.vocabulary.size == 320
    assert len(keys) == 4
    assert keys[0] == hashlib.sha256(json.dumps([1, data.corpus.fingerprint, 320]).encode()).hexdigest()

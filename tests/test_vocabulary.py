"""The subword vocabulary: exact round trips, fixed ids, the same pieces every time."""

import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
    most = int(str(error.value).split()[-2])
    assert Vocabulary.learn(TEXT, most).size == most
    with pytest.raises(UserError, match=r"vocab_size=200: .* need (\d+) pieces") as error:
        Vocabulary.learn(TEXT, 200)
    least = int(str(error.value).split()[-2])
    assert Vocabulary.learn(TEXT, least).size == least
    with pytest.raises(UserError, match="empty"):
        Vocabulary.learn([], 300)

"""The scores against independent formulas, and the June 2017 script's steps against strings made by hand."""

import math
from collections import Counter

import numpy as np
import pytest
import sacrebleu

from tx import config as config_lib
from tx.errors import UserError
from tx.evaluation import scores, tokenizers
from tx.training.checks import check_config

REFERENCES = [
    "Der Zug nach Köln-Deutz fährt heute 3,5 Stunden später ab, sagt der Schaffner.",
    "Zwei Kinder bauen am Strand eine Burg aus nassem Sand.",
    "Geht's dir gut?",
    "Die alte U-Bahn-Station wird am 3. Mai geschlossen.",
    "Ja.",
]
HYPOTHESES = [
    "Der Zug nach Köln-Deutz fährt heute 3,5 Stunden zu spät ab, sagt ein Schaffner.",
    "Zwei Kinder bauen am Strand eine Burg aus nassem Sand. ",
    "Geht es dir gut?",
    "Die alte U-Bahn Station wird im Mai geschlossen.",
    "",
]


def plain_multi_bleu(hypotheses, references):
    """multi-bleu.perl's formula: clipped counts of 1- to 4-grams, brevity penalty, no smoothing."""
    correct, total, sys_len, ref_len = np.zeros(4), np.zeros(4), 0, 0
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        hypothesis, reference = hypothesis.split(), reference.split()
        sys_len, ref_len = sys_len + len(hypothesis), ref_len + len(reference)
        for n in range(1, 5):
            ours, theirs = (
                Counter(tuple(x[i : i + n]) for i in range(len(x) - n + 1)) for x in (hypothesis, reference)
            )
            correct[n - 1] += (ours & theirs).total()
            total[n - 1] += ours.total()
    if not correct.all():
        return 0.0
    brevity = 1.0 if sys_len >= ref_len else math.exp(1 - ref_len / sys_len)
    return 100 * brevity * math.exp(np.log(correct / total).mean())


@pytest.mark.parametrize("words", [2, 3, 4])
@pytest.mark.parametrize("longest", [3, 12])
def test_multi_bleu_equals_the_formula(words, longest):
    random = np.random.default_rng(words)
    seen = []
    for _ in range(20):
        sides = [
            [" ".join(f"w{random.integers(words)}" for _ in range(random.integers(longest + 1))) for _ in range(8)]
            for _ in range(2)
        ]
        seen.append(plain_multi_bleu(*sides))
        assert scores.multi_bleu(*sides) == pytest.approx(seen[-1], abs=1e-9)
    assert (longest == 3) == (not any(seen))  # no 4-gram at all: 0, and not an error


@pytest.mark.parametrize(
    ("language", "text", "tokens"),
    [
        ("de", "Ein Hund (braun) läuft, z.B. am 3. Mai.", "Ein Hund ( braun ) läuft , z.B. am 3. Mai ."),
        ("de", "Geht's? Nur 3,5 Euro & mehr", "Geht &apos; s ? Nur 3,5 Euro &amp; mehr"),
        ("de", "Die U-Bahn-Station [alt]", "Die U-Bahn-Station &#91; alt &#93;"),
        ("de", "Er sagt “ja”… oder\u2019s", "Er sagt &quot; ja &quot; ... oder &apos; s"),
        ("de", "Nein\uff1f Doch\uff01", "Nein ? Doch !"),  # full-width marks
        ("fr", "L'homme qu'elle voit", "L&apos; homme qu&apos; elle voit"),
        ("en", "The dog's toys aren't 1,000", "The dog &apos;s toys aren &apos;t 1,000"),
        ("de", "  zwei   Leerzeichen ", "zwei Leerzeichen"),
        ("de", "", ""),
    ],
)
def test_moses_tokens(language, text, tokens):
    assert scores.moses(text, language) == tokens


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("ein Köln-Deutz", "ein Köln ##AT##-##AT## Deutz"),
        ("U-Bahn-Station", "U ##AT##-##AT## Bahn ##AT##-##AT## Station"),
        ("a-b-c", "a ##AT##-##AT## b-c"),  # b was used up by the first match
        ("a--b", "a ##AT##-##AT## -b"),
        ("a - b -c d-", "a - b -c d-"),
        ("3-4-jährig", "3 ##AT##-##AT## 4-jährig"),
    ],
)
def test_compounds_are_split_as_perl_does(text, split):
    assert scores.split_compounds(text) == split


def test_all_scores():
    found = scores.score(HYPOTHESES, REFERENCES, "de")
    assert found["sentences"] == 5
    assert found["exact_match"] == pytest.approx(1 / 5)  # white space at the end does not count
    assert found["bleu"] == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    version = sacrebleu.__version__
    assert found["signature"] == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"

    tokens = [[scores.moses(text, "de") for text in side] for side in (HYPOTHESES, REFERENCES)]
    assert found["bleu_tokenized"] == pytest.approx(plain_multi_bleu(*tokens), abs=1e-9)
    compounds = [[scores.split_compounds(text) for text in side] for side in tokens]
    assert found["bleu_compound"] == pytest.approx(plain_multi_bleu(*compounds), abs=1e-9)
    lowered = [[text.lower() for text in side] for side in tokens]
    assert found["bleu_lower"] == pytest.approx(plain_multi_bleu(*lowered), abs=1e-9)
    assert 0 < found["bleu_tokenized"] < found["bleu_compound"] < 100


def test_case_counts_in_all_scores_but_one():
    found = scores.score([text.upper() for text in REFERENCES], REFERENCES, "de")
    assert found["bleu_lower"] == pytest.approx(100)
    assert max(found["bleu"], found["bleu_tokenized"], found["bleu_compound"]) < 50


def test_perfect_and_hopeless_translations():
    perfect = scores.score(REFERENCES, REFERENCES, "de")
    for name in ("bleu", "chrf", "bleu_tokenized", "bleu_compound", "bleu_lower"):
        assert perfect[name] == pytest.approx(100)
    assert perfect["exact_match"] == 1
    hopeless = scores.score([""] * 5, REFERENCES, "de")
    for name in ("bleu", "chrf", "bleu_tokenized", "bleu_compound", "bleu_lower", "exact_match"):
        assert hopeless[name] == 0
    assert scores.bleu_from_stats(hopeless["stats"]) == 0


# A translation of five sentences with one word wrong, and one exact: by 13a each sentence is one token, and BLEU 0.
CHINESE = ["我今天去了商店。", "她喜欢喝绿茶。", "火车三点钟到。", "这本书很有意思。"]
WRONG = ["我昨天去了商店。", "她喜欢喝红茶。", "火车两点钟到。", "这本书很有意思。"]


def test_chinese_is_scored_as_sacrebleu_chooses_itself():
    scored = scores.score(WRONG, CHINESE, "zh")
    wanted = sacrebleu.BLEU(trg_lang="zh").corpus_score(WRONG, [CHINESE])
    assert scored["bleu"] == wanted.score > 50
    assert "tok:zh" in scored["signature"]
    assert scores.bleu_from_stats(scored["stats"]) == pytest.approx(scored["bleu"])
    spaced = [[" ".join(text) for text in side] for side in (WRONG, CHINESE)]
    assert scored["bleu_tokenized"] == scored["bleu_compound"] == scores.multi_bleu(*spaced)


@pytest.mark.parametrize("language", ["th", "TH", "th_TH", "km", "bo", "my"])
def test_scripts_without_spaces_are_scored_by_character(language):
    references, hypotheses = ["ฉันไปตลาดเมื่อวานนี้", "เธอชอบชาเขียว"], ["ฉันไปตลาดวันนี้", "เธอชอบชาเขียว"]
    scored = scores.score(hypotheses, references, language)
    wanted = sacrebleu.BLEU(tokenize="char").corpus_score(hypotheses, [references])
    assert scored["bleu"] == wanted.score > 50
    assert "tok:char" in scored["signature"]
    assert sacrebleu.BLEU(trg_lang="th").corpus_score(hypotheses, [references]).score < 1  # what is not relied on


# Each language by its code of two letters, and by others that mean the same.
CODES = {
    "zh": ["zho", "chi", "cmn", "zho_Hans", "ZH-TW"],
    **{"ja": ["jpn"], "ko": ["kor", "kor_Hang"], "th": ["tha", "tha_Thai"], "lo": ["lao"], "km": ["khm"]},
    **{"my": ["mya", "bur"], "bo": ["bod", "tib"], "dz": ["dzo"], "de": ["deu", "ger", "deu_Latn"], "hi": ["hin"]},
}


@pytest.mark.parametrize(("two", "language"), [(two, one) for two, codes in CODES.items() for one in codes])
def test_a_code_of_three_letters_means_what_that_of_two_does(monkeypatch, two, language):
    monkeypatch.setattr(tokenizers.importlib.util, "find_spec", lambda name: name)
    assert tokenizers.bleu_tokenizer(language) == tokenizers.bleu_tokenizer(two)
    assert tokenizers.has_spaces(language) == tokenizers.has_spaces(two)


@pytest.mark.parametrize("language", ["lzh", "yue", "yue_Hant", "nan", "hak", "gan", "shn", "tts"])
def test_what_has_no_two_letters_and_no_spaces_is_scored_by_character(language):
    assert tokenizers.bleu_tokenizer(language) == "char"
    assert scores.moses("語言 文", language) == "語 言 文"


@pytest.mark.parametrize(
    ("language", "text", "tokens"),
    [
        *[(code, "L'homme", "L&apos; homme") for code in ("fr_CA", "FR", "fra", "fre")],
        *[(code, "The dog's toys", "The dog &apos;s toys") for code in ("en-GB", "EN", "eng_Latn")],
        *[(code, "Es hat ca. 30 Zimmer.", "Es hat ca. 30 Zimmer .") for code in ("de_AT", "de-CH", "deu", "ger")],
    ],
)
def test_moses_has_the_rules_of_a_language_however_its_code_is_written(language, text, tokens):
    assert scores.moses(text, language) == tokens


def test_every_language_of_moses_is_known_by_three_letters():
    languages = set(scores.sacremoses.tokenize.NonbreakingPrefixes().available_langs.values())
    assert languages - {"mni", "tdt", "yue"} <= set(tokenizers._TWO_LETTERS.values())
    assert {tokenizers.language_code(code) for code in languages} == languages


@pytest.mark.parametrize("language", ["de", "en", "fr", "cs", "hi", "vi"])
def test_other_languages_keep_the_default(language):
    assert tokenizers.bleu_tokenizer(language) == sacrebleu.BLEU.TOKENIZER_DEFAULT


@pytest.mark.parametrize(("language", "module"), [("ja", "MeCab"), ("ko-KR", "mecab_ko")])
def test_a_missing_segmenter_is_one_line_before_training(monkeypatch, language, module):
    monkeypatch.setattr(tokenizers.importlib.util, "find_spec", lambda name: None)
    config = config_lib.get_config()
    config.data.target = language
    wanted = rf"BLEU of '{language}' needs {module}, .*pip install -e '\.\[{language[:2]}\]'"
    with pytest.raises(UserError, match=wanted):
        check_config(config)


@pytest.mark.parametrize(("language", "name"), [("ja", "ja-mecab"), ("ko", "ko-mecab")])
def test_an_installed_segmenter_is_taken(monkeypatch, language, name):
    monkeypatch.setattr(tokenizers.importlib.util, "find_spec", lambda name: name)
    assert tokenizers.bleu_tokenizer(language) == name


def test_sufficient_statistics_give_back_bleu():
    stats = scores.score(HYPOTHESES, REFERENCES, "de")["stats"]
    assert all(len(row) == 10 and all(type(number) is int for number in row) for row in stats)
    # "Geht es dir gut ?" against "Geht's dir gut ?": "dir gut ?" matches.
    assert stats[2] == [5, 4, 3, 2, 1, 0, 5, 4, 3, 2]
    random = np.random.default_rng(0)
    for _ in range(50):
        chosen = random.integers(5, size=random.integers(1, 8))
        expected = sacrebleu.corpus_bleu([HYPOTHESES[i] for i in chosen], [[REFERENCES[i] for i in chosen]])
        assert scores.bleu_from_stats([stats[i] for i in chosen]) == pytest.approx(expected.score, abs=1e-9)


def test_a_process_of_its_own_scores_the_same():
    assert scores.score_apart(HYPOTHESES, REFERENCES, "de") == scores.score(HYPOTHESES, REFERENCES, "de")
    with pytest.raises(RuntimeError, match=r"(?s)^scoring broke off with status 1: .*2 translations but 1 reference"):
        scores.score_apart(["a", "b"], ["a"], "de")


def test_refuses_unequal_counts_and_nothing():
    with pytest.raises(UserError, match="4 translations but 5 references"):
        scores.score(HYPOTHESES[:4], REFERENCES, "de")
    with pytest.raises(UserError, match="no translations"):
        scores.score([], [], "de")

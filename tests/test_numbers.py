"""The embedded corpus: reproducible, split by value, a function in both directions, correct German."""

import collections
import hashlib
import itertools
import os
import random
import re
import subprocess
import sys

import pytest

from tx.data.synthetic import number_sentences as sentences
from tx.data.synthetic import numbers
from tx.errors import UserError

_MONTHS = "Januar Februar März April Mai Juni Juli August September Oktober November Dezember"
MONTHS = _MONTHS.split()
_MONTHS_EN = "January February March April May June July August September October November December"
MONTHS_EN = _MONTHS_EN.split()

_ONES = "null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn"
ONES = {word: n for n, word in enumerate([*_ONES.split(), "siebzehn", "achtzehn", "neunzehn"])} | {"eins": 1}
_TENS = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig"
TENS = {word: 10 * n for n, word in enumerate(_TENS.split(), 2)}
# German as the dictionary has it: one | the third | the, as a subject | two, of each thing with an adjective
DECLINED = """
table: einen alten Tisch | den dritten alten Tisch | der alte Tisch | zwei alte Tische
chair: einen neuen Stuhl | den dritten neuen Stuhl | der neue Stuhl | zwei neue Stühle
key: einen kleinen Schlüssel | den dritten kleinen Schlüssel | der kleine Schlüssel | zwei kleine Schlüssel
plate: einen großen Teller | den dritten großen Teller | der große Teller | zwei große Teller
letter: einen roten Brief | den dritten roten Brief | der rote Brief | zwei rote Briefe
coat: einen grünen Mantel | den dritten grünen Mantel | der grüne Mantel | zwei grüne Mäntel
apple: einen schönen Apfel | den dritten schönen Apfel | der schöne Apfel | zwei schöne Äpfel
stone: einen schweren Stein | den dritten schweren Stein | der schwere Stein | zwei schwere Steine
ball: einen billigen Ball | den dritten billigen Ball | der billige Ball | zwei billige Bälle
lamp: eine hässliche Lampe | die dritte hässliche Lampe | die hässliche Lampe | zwei hässliche Lampen
door: eine alte Tür | die dritte alte Tür | die alte Tür | zwei alte Türen
cup: eine neue Tasse | die dritte neue Tasse | die neue Tasse | zwei neue Tassen
clock: eine kleine Uhr | die dritte kleine Uhr | die kleine Uhr | zwei kleine Uhren
bottle: eine große Flasche | die dritte große Flasche | die große Flasche | zwei große Flaschen
flower: eine rote Blume | die dritte rote Blume | die rote Blume | zwei rote Blumen
bag: eine grüne Tasche | die dritte grüne Tasche | die grüne Tasche | zwei grüne Taschen
book: ein altes Buch | das dritte alte Buch | das alte Buch | zwei alte Bücher
picture: ein neues Bild | das dritte neue Bild | das neue Bild | zwei neue Bilder
window: ein kleines Fenster | das dritte kleine Fenster | das kleine Fenster | zwei kleine Fenster
bed: ein großes Bett | das dritte große Bett | das große Bett | zwei große Betten
shirt: ein rotes Hemd | das dritte rote Hemd | das rote Hemd | zwei rote Hemden
car: ein grünes Auto | das dritte grüne Auto | das grüne Auto | zwei grüne Autos
knife: ein schweres Messer | das dritte schwere Messer | das schwere Messer | zwei schwere Messer
bicycle: ein schönes Fahrrad | das dritte schöne Fahrrad | das schöne Fahrrad | zwei schöne Fahrräder
"""
ADJECTIVES = {
    "alt": "old",
    "neu": "new",
    "klein": "small",
    "groß": "big",
    "rot": "red",
    "grün": "green",
    "schön": "beautiful",
    "schwer": "heavy",
    "billig": "cheap",
    "hässlich": "ugly",
}
# Participles whose stem changes or that do not begin with "ge"; the rest are regular.
PARTICIPLES = """
finden gefunden, verlieren verloren, sehen gesehen, bringen gebracht, beschreiben beschrieben, verkaufen verkauft,
bestellen bestellt, verstecken versteckt, vergessen vergessen, erhalten erhalten, fotografieren fotografiert
"""
THIRD_PERSON = {"finden": "findet", "sehen": "sieht", "vergessen": "vergisst", "erhalten": "erhält"}
IRREGULAR = {"erst": "eins", "dritt": "drei", "siebt": "sieben", "acht": "acht"}


def parse_german(word: str) -> int | None:
    """The number that one German word says (cardinal, or ordinal with ending), without num2words."""
    word = word.lower()
    value = _cardinal(word)
    stem = re.fullmatch(r"(.+?t)(e|en)", word)
    if value is not None or not stem:
        return value
    stem = stem[1]
    for irregular, cardinal in IRREGULAR.items():
        if stem.endswith(irregular):
            value = _cardinal(stem.removesuffix(irregular) + cardinal)
            if value is not None:
                return value
    value = _cardinal(stem.removesuffix("st"))
    return value if value is not None else _cardinal(stem.removesuffix("t"))


def _cardinal(word):
    for unit, factor in (("tausend", 1000), ("hundert", 100)):
        before, found, after = word.partition(unit)
        if found:
            many, rest = _cardinal(before) if before else 1, _cardinal(after) if after else 0
            return None if many is None or rest is None else many * factor + rest
    if word in ONES:
        return ONES[word]
    one, found, ten = word.rpartition("und")
    if found and one in ONES and ten in TENS:
        return ONES[one] + TENS[ten]
    return TENS.get(word)


@pytest.fixture(scope="module")
def corpus():
    return list(numbers.examples())


def by_split(corpus):
    groups = collections.defaultdict(list)
    for example in corpus:
        groups[example.split].append(example)
    return groups


def test_same_text_whatever_the_hash_seed():
    program = "from tx.data.synthetic import numbers; print(*numbers.examples(), sep='\\n')"
    digests = set()
    for seed in ("0", "4711"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
        output = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
        assert output.stdout.count(b"\n") == sum(numbers.SENTENCES.values())
        digests.add(hashlib.sha256(output.stdout).hexdigest())
    assert len(digests) == 1


def test_generate_gives_the_examples_in_both_directions(corpus):
    en_de, de_en = numbers.generate("en", "de"), numbers.generate("de", "en")
    assert list(en_de) == ["train", "validation", "test"]
    for split, examples in by_split(corpus).items():
        assert len(examples) == numbers.SENTENCES[split]
        assert en_de[split] == [(example.en, example.de) for example in examples]
        assert de_en[split] == [(example.de, example.en) for example in examples]


@pytest.mark.parametrize("pair", [("en", "fr"), ("en", "en"), ("fr", "de")])
def test_other_languages_are_refused(pair):
    with pytest.raises(UserError, match="en-de or de-en"):
        numbers.generate(*pair)


def test_recorded_values_are_those_in_the_text(corpus):
    for example in corpus:
        # Numbers up to 31 are said in days too, and are train's.
        recorded = {int(value.split()[1]) for value in example.values if value.startswith("number")}
        read = {parse_german(word) for word in re.findall(r"\w+", example.de)} - {None}
        assert {n for n in recorded if n > 31} == {n for n in read if n > 31}, example
        days = re.findall(rf"(\w+) ({'|'.join(MONTHS)})\b", example.de)
        read = {f"day {MONTHS.index(month) + 1:02}-{parse_german(day):02}" for day, month in days}
        assert {value for value in example.values if value.startswith("day")} == read, example


def test_no_value_is_in_two_splits(corpus):
    values = {split: {value for e in group for value in e.values} for split, group in by_split(corpus).items()}
    for one, other in itertools.combinations(values.values(), 2):
        assert {value.split()[0] for value in one} == {"number", "day"}
        assert not one & other


def test_building_blocks_are_all_in_train(corpus):
    train = by_split(corpus)["train"]
    words = {word for example in train for word in re.findall(r"\w+", f"{example.en} {example.de}".lower())}
    blocks = [*range(32), *range(40, 100, 10), *range(100, 1000, 100)]
    for n in blocks:
        assert set(re.findall(r"\w+", sentences.cardinal(n, "en"))) <= words
        assert n == 1 or sentences.cardinal(n, "de") in words  # one is said "ein", "eine", ...
    for n in blocks[1:]:
        stem = sentences.ordinal(n, "de")
        assert words & {stem + "e", stem + "en"}
        assert set(re.findall(r"\w+", sentences.ordinal(n, "en"))) <= words
    for n in range(1100, 2001, 100):
        assert sentences.year(n, "de") in words
        assert set(sentences.year(n, "en").split()) <= words
    dates = [int(day) for e in train for day in re.findall(r"day \d\d-(\d\d)", *e.values)]
    assert set(dates) == set(range(1, 32))
    assert {month.lower() for month in MONTHS + MONTHS_EN} <= words


def test_words_of_the_held_out_splits_were_seen_in_train(corpus):
    """English numbers are words apart; of the German ones compounds, and ordinals in another ending, are new."""
    groups = by_split(corpus)
    for held_out in ("validation", "test"):
        for language in ("en", "de"):
            seen, words = (
                {word for e in groups[split] for word in re.findall(r"\w+", getattr(e, language).lower())}
                for split in ("train", held_out)
            )
            assert bool(words - seen) == (language == "de")
            assert None not in map(parse_german, words - seen)


def test_every_word_of_the_tables_is_in_train(corpus):
    """Of the adjectives -es is left out: it follows "ein" alone, which only the number 1 brings, never held out."""
    train = by_split(corpus)["train"]
    english, german = ({w for e in train for w in re.findall(r"\w+", getattr(e, lang))} for lang in ("en", "de"))
    assert {stem + ending for _, stem in sentences.ADJECTIVES for ending in ("e", "en")} <= german
    assert {word for word, _ in sentences.ADJECTIVES} <= english
    for verb in sentences.VERBS:
        assert set(verb[:3]) <= english
        assert set(verb[3:]) <= german
    for thing in sentences.THINGS:
        assert set(thing[:2]) <= english
        assert set(thing[3:]) <= german
    for table in (sentences.SUBJECTS, sentences.MOTION, sentences.BUILDINGS, sentences.CITIES):
        for en, de, *_ in table:
            assert set(en.lower().split()) <= {word.lower() for word in english}
            assert set(de.lower().split()) <= {word.lower() for word in german}


def test_adjectives_share_of_the_things(corpus):
    words = {word for word, _ in sentences.ADJECTIVES}
    with_thing = [e.en for e in corpus if e.template.split("/")[0] in ("cardinal", "ordinal", "amount")]
    found = sum(bool(words & set(re.findall(r"\w+", text))) for text in with_thing)
    assert found / len(with_thing) == pytest.approx(0.3, abs=0.04)  # 3 standard errors


def test_translation_is_a_function_both_ways_and_nothing_repeats(corpus):
    assert len({example.en for example in corpus}) == len({example.de for example in corpus}) == len(corpus)


def test_words_are_one_to_one():
    """No form of a word is a form of another word in the same slot, in either language."""
    first_german = {"SUBJECTS": 1, "VERBS": 3, "MOTION": 1, "THINGS": 3, "ADJECTIVES": 1, "BUILDINGS": 1, "CITIES": 1}
    for table, column in first_german.items():
        for row, other in itertools.combinations(getattr(sentences, table), 2):
            assert row[0] != other[0]
            if table == "SUBJECTS":  # "sie" is she or they: the verb tells
                assert row[1:] != other[1:]
                continue
            english = slice(2 if table == "THINGS" else column)  # without the gender
            assert not set(row[english]) & set(other[english])
            assert not set(row[column:]) & set(other[column:])
    for base, third, past, *_ in sentences.VERBS:  # German tells past from present: English must too
        assert past not in (base, third)
    forms = [stem + ending for _, stem in sentences.ADJECTIVES for ending in ("e", "en", "es")]
    assert len(forms) == len(set(forms))


def test_verbs_follow_the_rules_of_german():
    """ich -e; er -t and wir -(e)n of the same stem; participle ge- -t; but for the strong verbs, by hand."""
    participles = dict(pair.split() for pair in PARTICIPLES.replace("\n", " ").split(","))
    assert participles.keys() | THIRD_PERSON.keys() <= {verb[5] for verb in sentences.VERBS}
    for *_, first, third, plural, participle in sentences.VERBS:
        stem = plural.removesuffix("en") if plural.endswith("en") else plural.removesuffix("n")
        assert first == {"sammel": "sammle"}.get(stem, stem + "e")
        assert third == THIRD_PERSON.get(plural, "zeichnet" if stem == "zeichn" else stem + "t")
        assert participle == participles.get(plural, "gezeichnet" if stem == "zeichn" else f"ge{stem}t")


def test_every_template_is_used_and_text_is_clean(corpus):
    expected = {f"{kind}/{i}" for kind, pairs in sentences.TEMPLATES.items() for i in range(len(pairs))}
    for split, group in by_split(corpus).items():
        assert {example.template for example in group} == expected, split
    for example in corpus:
        for text in (example.en, example.de):
            assert re.fullmatch(r"[A-ZÄÖÜ][\w-]*(,? [\w-]+)+\.", text), text
            assert not re.search(r"\d|None", text), text


def test_numbers_by_hand():
    ordinals = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht", 17: "siebzehnt", 30: "dreißigst", 101: "einhunderterst"}
    assert {n: sentences.ordinal(n, "de") for n in ordinals} == ordinals
    years = {1984: "nineteen eighty-four", 1905: "nineteen oh-five", 1100: "eleven hundred"}
    assert {n: sentences.year(n, "en") for n in years} == years
    english, german = sentences.sentence("amount", 0, 101, random.Random(0))
    assert english.endswith("one hundred and one euros.")
    assert german.endswith(" einhundertein Euro.")


def test_every_german_number_reads_back():
    for n in range(1000):
        assert parse_german(sentences.cardinal(n, "de")) == n
        assert n == 0 or parse_german(sentences.ordinal(n, "de") + "en") == n
    for n in range(1100, 2100):
        assert parse_german(sentences.year(n, "de")) == n


@pytest.mark.parametrize("adjective", [False, True])
@pytest.mark.parametrize("line", DECLINED.strip().splitlines())
def test_declension(monkeypatch, line, adjective):
    thing, phrases = line.split(": ")
    english, german = next((en, de) for de, en in ADJECTIVES.items() if f" {de}e " in phrases)
    if not adjective:
        phrases = re.sub(rf"{german}\w+ ", "", phrases)
    one, third, the, two = phrases.split(" | ")
    paid = third.replace(" dritten", "").replace(" dritte", "")
    name = f"{english} {thing}" if adjective else thing
    names = f"{english} {plural(thing)}" if adjective else plural(thing)
    expected = {
        ("cardinal", 0, 1): (f"She sells one {name}.", f"Sie verkauft {one}."),
        ("cardinal", 0, 2): (f"She sells two {names}.", f"Sie verkauft {two}."),
        ("cardinal", 1, 2): (f"She sold two {names}.", f"Sie hat {two} verkauft."),
        ("ordinal", 0, 3): (f"She sells the third {name}.", f"Sie verkauft {third}."),
        ("ordinal", 1, 3): (f"She sold the third {name}.", f"Sie hat {third} verkauft."),
        ("amount", 0, 1): (f"The {name} costs one euro.", f"D{the[1:]} kostet einen Euro."),
        ("amount", 1, 9): (f"She paid nine euros for the {name}.", f"Sie hat neun Euro für {paid} bezahlt."),
    }
    words = {"THINGS": thing, "SUBJECTS": "she", "VERBS": "sell", "ADJECTIVES": english}
    translate(monkeypatch, expected, adjective, **words)


def plural(thing):
    return "knives" if thing == "knife" else thing + "s"


def test_every_thing_and_adjective_is_declined_above():
    things = [line.split(":")[0] for line in DECLINED.strip().splitlines()]
    assert sorted(things) == sorted(row[0] for row in sentences.THINGS)
    assert {en: de for de, en in ADJECTIVES.items()} == dict(sentences.ADJECTIVES)
    assert all(f" {stem}e " in DECLINED for stem in ADJECTIVES)


@pytest.mark.parametrize(
    ("subject", "en", "de", "past", "moved", "arrive"),
    [
        ("I", "I count", "Ich zähle", "Ich habe", "bin ich", "Ich komme"),
        ("Anna", "Anna counts", "Anna zählt", "Anna hat", "ist Anna", "Anna kommt"),
        ("they", "They count", "Sie zählen", "Sie haben", "sind sie", "Sie kommen"),
        ("the doctor", "The doctor counts", "Die Ärztin zählt", "Die Ärztin hat", "ist die Ärztin", "Die Ärztin kommt"),
        (
            "our neighbours",
            "Our neighbours count",
            "Unsere Nachbarn zählen",
            "Unsere Nachbarn haben",
            "sind unsere Nachbarn",
            "Unsere Nachbarn kommen",
        ),
    ],
)
def test_agreement(monkeypatch, subject, en, de, past, moved, arrive):
    name, arrives = subject[0].upper() + subject[1:], "arrives" if en.endswith("s") else "arrive"
    expected = {
        ("cardinal", 0, 21): (f"{en} twenty-one keys.", f"{de} einundzwanzig Schlüssel."),
        ("ordinal", 1, 8): (f"{name} counted the eighth key.", f"{past} den achten Schlüssel gezählt."),
        ("year", 0, 1500): ("The tower was built in fifteen hundred.", "Der Turm wurde fünfzehnhundert gebaut."),
        ("year", 1, 1714): (
            f"In seventeen fourteen, {subject} travelled to Munich.",
            f"Siebzehnhundertvierzehn {moved} nach München gereist.",
        ),
        ("date", 0, (5, 3)): ("Today is the third of May.", "Heute ist der dritte Mai."),
        ("date", 1, (5, 3)): (
            f"{name} {arrives} in Munich on the third of May.",
            f"{arrive} am dritten Mai in München an.",
        ),
    }
    words = {"THINGS": "key", "SUBJECTS": subject, "VERBS": "count", "MOTION": "travelled", "CITIES": "Munich"}
    translate(monkeypatch, expected, False, **words, BUILDINGS="the tower")


def translate(monkeypatch, expected, adjective, **words):
    """Fills the templates with the rows that begin with these words, with an adjective or without, and compares."""
    monkeypatch.setattr(sentences, "ADJECTIVE_SHARE", float(adjective))
    for table, word in words.items():
        (row,) = (row for row in getattr(sentences, table) if row[0] == word)
        monkeypatch.setattr(sentences, table, (row,))
    assert {case: sentences.sentence(*case, random.Random(0)) for case in expected} == expected

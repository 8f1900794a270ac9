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

from tx.data import number_grammar, number_templates, number_words, numbers
from tx.data.number_grammar import Values, fill
from tx.errors import UserError

_MONTHS = "Januar Februar März April Mai Juni Juli August September Oktober November Dezember"
MONTHS = _MONTHS.split()
_MONTHS_EN = "January February March April May June July August September October November December"
MONTHS_EN = _MONTHS_EN.split()

_ONES = (
    "null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn"
)
ONES = {word: n for n, word in enumerate([*_ONES.split(), "siebzehn", "achtzehn", "neunzehn"])} | {"eins": 1}
_TENS = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig"
TENS = {word: 10 * n for n, word in enumerate(_TENS.split(), 2)}
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


class Fixed(Values, random.Random):
    """Values and a random stream that always give the same."""

    def __init__(self, number):
        super().__init__(0)
        self.number = number

    def cardinal(self):
        return self.number

    ordinal = year = cardinal

    def amount(self):
        return self.number, 0

    def day(self):
        return 5, 3

    def time(self):
        return 210

    def random(self):
        return 0.99  # the last word of each list, and no adjective


@pytest.fixture(scope="module")
def corpus():
    return list(numbers.examples())


def by_split(corpus):
    groups = collections.defaultdict(list)
    for example in corpus:
        groups[example.split].append(example)
    return groups


def test_same_text_whatever_the_hash_seed():
    program = "from tx.data import numbers; print(*numbers.examples(), sep='\\n')"
    digests = set()
    for seed in ("0", "4711"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
        output = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
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
        recorded = {int(value.split()[1]) for value in example.values if value.startswith("number")}
        # Days and times say numbers up to 31 too; all of these are train's.
        read = {parse_german(word) for word in re.findall(r"\w+", example.de)} - {None}
        assert {n for n in recorded if n > 31} == {n for n in read if n > 31}, example
        days = re.findall(rf"(\w+) ({'|'.join(MONTHS)})\b", example.de)
        read = {f"day {MONTHS.index(month) + 1:02}-{parse_german(day):02}" for day, month in days}
        assert {value for value in example.values if value.startswith("day")} == read, example


def test_no_value_is_in_two_splits(corpus):
    values = {
        split: {value for e in group for value in e.values} for split, group in by_split(corpus).items()
    }
    assert set(values) == set(numbers.SENTENCES)
    for one, other in itertools.combinations(values.values(), 2):
        assert one
        assert not one & other
    times = collections.defaultdict(set)  # the words themselves, for times: not read back above
    for example in corpus:
        for match in re.findall(r"(?:at|already|It is) ([\w' -]*(?:past|to \w+|o'clock)[\w -]*)", example.en):
            times[example.split].add(re.sub(r" on .*", "", match))
    assert len(times["test"]) > 3
    assert not times["test"] & times["train"]
    assert not times["validation"] & times["train"]


def test_building_blocks_are_all_in_train(corpus):
    train = by_split(corpus)["train"]
    words = {
        word for example in train for word in re.findall(r"[\w']+", f"{example.en} {example.de}".lower())
    }
    blocks = [*range(32), *range(40, 100, 10), *range(100, 1000, 100), *range(1000, 10_000, 1000)]
    for n in blocks:
        assert set(number_words.cardinal(n, "en").replace("-", " ").split()) <= words
        assert n == 1 or number_words.cardinal(n, "de") in words  # one is said "ein", "eine", ...
    for n in [*range(1, 32), *range(40, 100, 10), *range(100, 1000, 100)]:
        stem = number_words.ordinal(n, "de")
        assert words & {stem + "e", stem + "en"}


def test_words_of_the_held_out_splits_were_seen_in_train(corpus):
    """English numbers are words apart; of the German ones only the compounds may be new."""
    groups = by_split(corpus)
    for language in ("en", "de"):
        vocabulary = {split: set() for split in groups}
        for split, group in groups.items():
            for example in group:
                vocabulary[split] |= set(re.findall(r"[\w']+", getattr(example, language).lower()))
        for split in ("validation", "test"):
            new = vocabulary[split] - vocabulary["train"]
            compounds = {word for word in new if (parse_german(word) or 0) > 31}
            assert new == (compounds if language == "de" else set())
            assert bool(compounds) == (language == "de")


def test_translation_is_a_function_both_ways_and_nothing_repeats(corpus):
    assert len({example.en for example in corpus}) == len(corpus)
    assert len({example.de for example in corpus}) == len(corpus)


NOUN_TABLES = ("THINGS", "ROOMS", "BUILDINGS", "EVENTS", "SPANS", "AGES", "LENGTHS")
VERB_TABLES = ("TRANSITIVE", "MOTION", "MODALS", "THINKING")
OTHER_TABLES = ("SUBJECTS", "ADJECTIVES", "CITIES", "VEHICLES")


@pytest.mark.parametrize("table", NOUN_TABLES + VERB_TABLES + OTHER_TABLES)
def test_words_are_one_to_one(table):
    """No form of a word is a form of another word in the same slot, in either language."""
    rows = getattr(number_templates, table)
    assert len({len(row) for row in rows}) == 1
    for row, other in itertools.combinations(rows, 2):
        if table in NOUN_TABLES:
            languages = [(set(r[:2]), set(r[3:])) for r in (row, other)]
        elif table in VERB_TABLES:
            languages = [(set(r[:3]), {(r[3], form) for form in r[4:]}) for r in (row, other)]
        elif table == "SUBJECTS":  # "sie" is she or they: the verb tells
            languages = [({r[0]}, {(r[1], r[2])}) for r in (row, other)]
        else:
            languages = [({r[0]}, {r[1]}) for r in (row, other)]
        (en, de), (other_en, other_de) = languages
        assert not en & other_en
        assert not de & other_de


def test_templates_are_one_to_one():
    pairs = list(itertools.chain.from_iterable(number_templates.TEMPLATES.values()))
    sentences = [fill(en, de, Fixed(1200), Fixed(1200)) for en, de in pairs]
    assert len({en for en, _ in sentences}) == len({de for _, de in sentences}) == len(pairs)


@pytest.mark.parametrize(
    ("row", "one", "definite", "many"),
    [
        (
            "coat|coats|m|Mantel|Mantels|Mäntel|Mänteln",
            "ein neuer Mantel, einen neuen Mantel, einem neuen Mantel",
            "der neue Mantel, den neuen Mantel, dem neuen Mantel, des neuen Mantels",
            "zwei neue Mäntel, zwei neue Mäntel, zwei neuen Mänteln",
        ),
        (
            "lamp|lamps|f|Lampe|Lampe|Lampen|Lampen",
            "eine neue Lampe, eine neue Lampe, einer neuen Lampe",
            "die neue Lampe, die neue Lampe, der neuen Lampe, der neuen Lampe",
            "zwei neue Lampen, zwei neue Lampen, zwei neuen Lampen",
        ),
        (
            "book|books|n|Buch|Buches|Bücher|Büchern",
            "ein neues Buch, ein neues Buch, einem neuen Buch",
            "das neue Buch, das neue Buch, dem neuen Buch, des neuen Buches",
            "zwei neue Bücher, zwei neue Bücher, zwei neuen Büchern",
        ),
    ],
)
def test_declension(monkeypatch, row, one, definite, many):
    things = (tuple(row.split("|")),)
    monkeypatch.setattr(number_templates, "THINGS", things)
    monkeypatch.setattr(number_templates, "ADJECTIVES", (("new", "neu"),))
    monkeypatch.setattr(number_grammar, "ADJECTIVE_SHARE", 1.0)
    for slot in ("q", "the", "o"):
        monkeypatch.setitem(number_grammar._NOUNS, slot, things)
    counted, cases = "x {q.nom}, {q.acc}, {q.dat}", "x {the.nom}, {the.acc}, {the.dat}, {the.gen}"
    assert fill("x {q}", counted, Fixed(1), Fixed(1)) == (f"X one new {row.split('|')[0]}", f"X {one}")
    assert fill("x {q}", counted, Fixed(2), Fixed(2)) == (f"X two new {row.split('|')[1]}", f"X {many}")
    assert fill("x {the}", cases, Fixed(1), Fixed(1)) == (f"X the new {row.split('|')[0]}", f"X {definite}")
    # An ordinal takes the adjective's endings.
    ordered = re.sub(r"(d\w+) (neu)(en?)", r"\1 dritt\3 neu\3", definite)
    assert fill("x {o}", cases.replace("the", "o"), Fixed(3), Fixed(3))[1] == f"X {ordered}"


def test_every_template_is_used_and_text_is_clean(corpus):
    used = {example.template for example in corpus if example.split == "train"}
    expected = {
        f"{kind}/{i}" for kind, pairs in number_templates.TEMPLATES.items() for i in range(len(pairs))
    }
    assert used == expected
    for example in corpus:
        assert example.values
        for text in (example.en, example.de):
            assert re.fullmatch(r"[A-ZÄÖÜ][\w',-]*( [\w',-]+)+[.?]", text), text
            assert not re.search(r"\d|[{}]| ,|,[.?]|None", text), text


@pytest.mark.parametrize(
    ("n", "cardinal", "ordinal"),
    [
        (1, "eins", "erst"),
        (3, "drei", "dritt"),
        (7, "sieben", "siebt"),
        (8, "acht", "acht"),
        (16, "sechzehn", "sechzehnt"),
        (17, "siebzehn", "siebzehnt"),
        (21, "einundzwanzig", "einundzwanzigst"),
        (30, "dreißig", "dreißigst"),
        (101, "einhunderteins", "einhunderterst"),
        (712, "siebenhundertzwölf", "siebenhundertzwölft"),
        (1984, "eintausendneunhundertvierundachtzig", "eintausendneunhundertvierundachtzigst"),
    ],
)
def test_german_numbers(n, cardinal, ordinal):
    assert number_words.cardinal(n, "de") == cardinal
    assert number_words.ordinal(n, "de") == ordinal


def test_every_german_number_reads_back():
    for n in range(10_000):
        assert parse_german(number_words.cardinal(n, "de")) == n
    for n in range(1, 1000):
        assert parse_german(number_words.ordinal(n, "de") + "en") == n
    for n in range(1100, 2100):
        assert parse_german(number_words.year(n, "de")) == n


def test_years_amounts_days_and_times():
    assert number_words.year(1984, "de") == "neunzehnhundertvierundachtzig"
    assert number_words.year(1984, "en") == "nineteen eighty-four"
    assert number_words.year(2017, "de") == "zweitausendsiebzehn"
    assert number_words.amount(12, 50, "de") == "zwölf Euro und fünfzig Cent"
    assert number_words.amount(12, 50, "en") == "twelve euros and fifty cents"
    assert number_words.amount(1, 1, "en") == "one euro and one cent"
    assert number_words.amount(101, 0, "de") == "einhundertein Euro"
    assert number_words.calendar_day(5, 3, "de") == "dritten Mai"
    assert number_words.calendar_day(5, 3, "en") == "the third of May"
    assert [number_words.calendar_day(m, 1, "en").split()[-1] for m in range(1, 13)] == MONTHS_EN
    times = {
        0: ("twelve o'clock", "zwölf Uhr"),
        60: ("one o'clock", "ein Uhr"),
        65: ("five past one", "fünf nach eins"),
        195: ("quarter past three", "Viertel nach drei"),
        205: ("twenty-five past three", "fünf vor halb vier"),
        210: ("half past three", "halb vier"),
        215: ("twenty-five to four", "fünf nach halb vier"),
        715: ("five to twelve", "fünf vor zwölf"),
    }
    for minutes, expected in times.items():
        assert (number_words.clock(minutes, "en"), number_words.clock(minutes, "de")) == expected


@pytest.mark.parametrize(
    ("number", "english", "german", "en", "de"),
    [
        (
            1,
            "{q} is mine: {P}",
            "{q.nom}, {q.acc}, {q.dat}",
            "One ring is mine: Prague",
            "Ein Ring, einen Ring, einem Ring",
        ),
        (
            21,
            "{q}",
            "{q.nom}, {q.acc}, {q.dat}",
            "Twenty-one rings",
            ", ".join(["Einundzwanzig Ringe", "einundzwanzig Ringe", "einundzwanzig Ringen"]),
        ),
        (
            3,
            "{o}",
            "{o.nom}, {o.acc}, {o.dat}, {o.gen}",
            "The third ring",
            "Der dritte Ring, den dritten Ring, dem dritten Ring, des dritten Ringes",
        ),
        (
            8,
            "This is {ev}",
            "Das ist {ev.nom} in {r.dat}",
            "This is the exam",
            "Das ist die Prüfung im achten Saal",
        ),
        (
            1984,
            "{b} was closed in {y}",
            "{b.nom} wurde {y} geschlossen",
            "The station was closed in nineteen eighty-four",
            "Der Bahnhof wurde neunzehnhundertvierundachtzig geschlossen",
        ),
        (
            5,
            "{S} {V.S} {q} and {T} {arrive.T}",
            "{S} {V.S} {q.acc}{V.prefix}, weil {T} {arrive.subT}",
            "Our neighbours look at five rings and his sister arrives",
            "Unsere Nachbarn schauen fünf Ringe an, weil seine Schwester ankommt",
        ),
        (2, "{u}", "in {u.dat}, {u.acc}", "Two weeks", "In zwei Wochen, zwei Wochen"),
    ],
)
def test_agreement(number, english, german, en, de):
    values = Fixed(number)
    assert fill(english, german, values, values) == (en, de)


def test_whole_sentences_by_hand(corpus):
    """One pattern of the corpus, translated again by rules of its own."""
    articles = {
        "concert": "Das Konzert",
        "meeting": "Die Sitzung",
        "course": "Der Kurs",
        "film": "Der Film",
        "exam": "Die Prüfung",
    }
    checked = 0
    for example in corpus:
        match = re.fullmatch(r"The (\w+) lasts until the (.+) of (\w+)\.", example.en)
        if match:
            day = next(d for d in range(1, 32) if number_words.ordinal(d, "en") == match[2])
            suffix = "ten" if day < 20 else "sten"
            word = {1: "ersten", 3: "dritten", 7: "siebten", 8: "achten"}.get(
                day, number_words.cardinal(day, "de") + suffix
            )
            month = MONTHS[MONTHS_EN.index(match[3])]
            assert example.de == f"{articles[match[1]]} dauert bis zum {word} {month}."
            checked += 1
    assert checked > 20

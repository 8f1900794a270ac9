"""English-German sentences about numbers: templates, and words that agree in person, number, gender and case.

num2words spells the numbers, Babel names the months. A translation is a function of its source, both ways:
no word has two translations ("sie" is she or they, but its verb tells).
"""

import random
from collections.abc import Sequence

from babel.dates import get_month_names
from num2words import num2words

# (English, German) by the kind of value. Slots as in `_words` and `_value`.
TEMPLATES = {
    "cardinal": (
        ("{subject} {verb} {counted}.", "{subject} {verb} {counted}."),
        ("{subject} {past} {counted}.", "{subject} {have} {counted} {past}."),
    ),
    "ordinal": (
        ("{subject} {verb} {ordered}.", "{subject} {verb} {ordered}."),
        ("{subject} {past} {ordered}.", "{subject} {have} {ordered} {past}."),
    ),
    "year": (
        ("{building} was built in {year}.", "{building} wurde {year} gebaut."),
        ("In {year}, {subject} {moved} to {city}.", "{year} {be} {subject} nach {city} {moved}."),
    ),
    "amount": (
        ("{thing} costs {amount}.", "{thing} kostet {amount}."),
        ("{subject} paid {amount} for {object}.", "{subject} {have} {amount} für {object} bezahlt."),
    ),
    "date": (
        ("Today is {day}.", "Heute ist {day}."),
        ("{subject} {arrive} in {city} on {day}.", "{subject} {arrive} {on_day} in {city} an."),
    ),
}

# English, German, person (0: I, 1: he or she, 2: we or they)
SUBJECTS = (
    ("I", "ich", 0),
    ("we", "wir", 2),
    ("they", "sie", 2),
    ("he", "er", 1),
    ("she", "sie", 1),
    ("Anna", "Anna", 1),
)
# English base, with he, past; German with ich, er, wir, past participle
VERBS = (
    ("buy", "buys", "bought", "kaufe", "kauft", "kaufen", "gekauft"),
    ("sell", "sells", "sold", "verkaufe", "verkauft", "verkaufen", "verkauft"),
    ("find", "finds", "found", "finde", "findet", "finden", "gefunden"),
    ("count", "counts", "counted", "zähle", "zählt", "zählen", "gezählt"),
    ("order", "orders", "ordered", "bestelle", "bestellt", "bestellen", "bestellt"),
    ("lose", "loses", "lost", "verliere", "verliert", "verlieren", "verloren"),
)
# English past, German past participle (with "sein")
MOTION = (
    ("travelled", "gereist"),
    ("flew", "geflogen"),
    ("drove", "gefahren"),
    ("moved", "gezogen"),
    ("returned", "zurückgekehrt"),
)
# English singular, plural; German gender, singular, plural
THINGS = (
    ("book", "books", "n", "Buch", "Bücher"),
    ("table", "tables", "m", "Tisch", "Tische"),
    ("chair", "chairs", "m", "Stuhl", "Stühle"),
    ("lamp", "lamps", "f", "Lampe", "Lampen"),
    ("picture", "pictures", "n", "Bild", "Bilder"),
    ("key", "keys", "m", "Schlüssel", "Schlüssel"),
)
BUILDINGS = (
    ("the church", "die Kirche"),
    ("the bridge", "die Brücke"),
    ("the castle", "das Schloss"),
    ("the tower", "der Turm"),
    ("the school", "die Schule"),
    ("the station", "der Bahnhof"),
)
CITIES = (
    ("Berlin", "Berlin"),
    ("Hamburg", "Hamburg"),
    ("Munich", "München"),
    ("Cologne", "Köln"),
    ("Vienna", "Wien"),
    ("Zurich", "Zürich"),
)
_THE_NOMINATIVE = {"m": "der", "f": "die", "n": "das"}
_THE_ACCUSATIVE = {"m": "den", "f": "die", "n": "das"}
_ONE_ACCUSATIVE = {"m": "einen", "f": "eine", "n": "ein"}


def choose(rng: random.Random, items: Sequence):
    """One of the items; from `random()` alone, whose stream is the same in every Python version."""
    return items[int(rng.random() * len(items))]


def sentence(kind: str, index: int, value, rng: random.Random) -> tuple[str, str]:
    """Returns one English sentence and its German translation, from template `index` of `TEMPLATES[kind]`.

    value: an integer, at least 1 for ordinals and amounts; for dates (month, day), from (1, 1).
    """
    thing = choose(rng, THINGS)
    words, values = _words(thing, rng), _value(kind, value, thing)
    texts = [
        template.format(**word, **value_slots)
        for template, word, value_slots in zip(TEMPLATES[kind][index], words, values, strict=True)
    ]
    english, german = (text[0].upper() + text[1:] for text in texts)
    return english, german


def _words(thing, rng):
    """The slots that chance fills: (English, German)."""
    (en_subject, de_subject, person), verb = choose(rng, SUBJECTS), choose(rng, VERBS)
    moved, building, city = (choose(rng, table) for table in (MOTION, BUILDINGS, CITIES))
    singular, _, gender, german, _ = thing
    english = {
        "subject": en_subject,
        "verb": verb[person == 1],
        "past": verb[2],
        "arrive": ("arrive", "arrives")[person == 1],
        "thing": f"the {singular}",
        "object": f"the {singular}",
    }
    german = {
        "subject": de_subject,
        "verb": verb[3 + person],
        "past": verb[6],
        "have": ("habe", "hat", "haben")[person],
        "be": ("bin", "ist", "sind")[person],
        "arrive": ("komme", "kommt", "kommen")[person],
        "thing": f"{_THE_NOMINATIVE[gender]} {german}",
        "object": f"{_THE_ACCUSATIVE[gender]} {german}",
    }
    for slots, column in ((english, 0), (german, 1)):
        slots |= {"moved": moved[column], "building": building[column], "city": city[column]}
    return english, german


def _value(kind, value, thing):
    """The slots that hold the value: (English, German)."""
    singular, plural, gender, german, german_plural = thing
    if kind == "cardinal":
        if value == 1:
            return {"counted": f"one {singular}"}, {"counted": f"{_ONE_ACCUSATIVE[gender]} {german}"}
        english, number = cardinal(value, "en"), cardinal(value, "de")
        return {"counted": f"{english} {plural}"}, {"counted": f"{number} {german_plural}"}
    if kind == "ordinal":
        order = ordinal(value, "de") + ("en" if gender == "m" else "e")
        return (
            {"ordered": f"the {ordinal(value, 'en')} {singular}"},
            {"ordered": f"{_THE_ACCUSATIVE[gender]} {order} {german}"},
        )
    if kind == "year":
        return {"year": year(value, "en")}, {"year": year(value, "de")}
    if kind == "amount":
        if value == 1:
            return {"amount": "one euro"}, {"amount": "einen Euro"}
        number = cardinal(value, "de")
        number = number.removesuffix("s") if number.endswith("eins") else number  # "hundertein Euro"
        return {"amount": f"{cardinal(value, 'en')} euros"}, {"amount": f"{number} Euro"}
    month, day = value
    stem, name = ordinal(day, "de"), get_month_names("wide", locale="de")[month]
    english = f"the {ordinal(day, 'en')} of {get_month_names('wide', locale='en')[month]}"
    return {"day": english}, {"day": f"der {stem}e {name}", "on_day": f"am {stem}en {name}"}


def cardinal(n: int, lang: str) -> str:
    """21 -> "twenty-one" (lang "en"), "einundzwanzig" ("de")."""
    return num2words(n, lang=lang)


def ordinal(n: int, lang: str) -> str:
    """21 -> "twenty-first"; in German the stem, without an adjective's ending: "einundzwanzigst"."""
    word = num2words(n, lang=lang, to="ordinal")
    return word.removesuffix("e") if lang == "de" else word


def year(n: int, lang: str) -> str:
    """1984 -> "nineteen eighty-four", "neunzehnhundertvierundachtzig"; right from 1000 on."""
    return num2words(n, lang=lang, to="year")

"""English-German sentences about numbers: templates, and words that agree in person, number, gender and case.

num2words spells the numbers, Babel names the months. A translation is a function of its source, both ways:
no word has two translations ("sie" is she or they, but its verb tells; every doctor is a woman, "die Ärztin").
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
    ("Peter", "Peter", 1),
    ("the teacher", "der Lehrer", 1),
    ("the doctor", "die Ärztin", 1),
    ("my sister", "meine Schwester", 1),
    ("the children", "die Kinder", 2),
    ("our neighbours", "unsere Nachbarn", 2),
)
# English base, with he, past; German with ich, er, wir, past participle (with "haben"). All go with all things.
VERBS = (
    ("buy", "buys", "bought", "kaufe", "kauft", "kaufen", "gekauft"),
    ("sell", "sells", "sold", "verkaufe", "verkauft", "verkaufen", "verkauft"),
    ("find", "finds", "found", "finde", "findet", "finden", "gefunden"),
    ("count", "counts", "counted", "zähle", "zählt", "zählen", "gezählt"),
    ("order", "orders", "ordered", "bestelle", "bestellt", "bestellen", "bestellt"),
    ("lose", "loses", "lost", "verliere", "verliert", "verlieren", "verloren"),
    ("draw", "draws", "drew", "zeichne", "zeichnet", "zeichnen", "gezeichnet"),
    ("see", "sees", "saw", "sehe", "sieht", "sehen", "gesehen"),
    ("need", "needs", "needed", "brauche", "braucht", "brauchen", "gebraucht"),
    ("bring", "brings", "brought", "bringe", "bringt", "bringen", "gebracht"),
    ("photograph", "photographs", "photographed", "fotografiere", "fotografiert", "fotografieren", "fotografiert"),
    ("hide", "hides", "hid", "verstecke", "versteckt", "verstecken", "versteckt"),
    ("choose", "chooses", "chose", "wähle", "wählt", "wählen", "gewählt"),
    ("forget", "forgets", "forgot", "vergesse", "vergisst", "vergessen", "vergessen"),
    ("describe", "describes", "described", "beschreibe", "beschreibt", "beschreiben", "beschrieben"),
    ("receive", "receives", "received", "erhalte", "erhält", "erhalten", "erhalten"),
    ("collect", "collects", "collected", "sammle", "sammelt", "sammeln", "gesammelt"),
    ("check", "checks", "checked", "prüfe", "prüft", "prüfen", "geprüft"),
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
    ("door", "doors", "f", "Tür", "Türen"),
    ("window", "windows", "n", "Fenster", "Fenster"),
    ("cup", "cups", "f", "Tasse", "Tassen"),
    ("plate", "plates", "m", "Teller", "Teller"),
    ("letter", "letters", "m", "Brief", "Briefe"),
    ("bed", "beds", "n", "Bett", "Betten"),
    ("clock", "clocks", "f", "Uhr", "Uhren"),
    ("coat", "coats", "m", "Mantel", "Mäntel"),
    ("shirt", "shirts", "n", "Hemd", "Hemden"),
    ("bottle", "bottles", "f", "Flasche", "Flaschen"),
    ("car", "cars", "n", "Auto", "Autos"),
    ("apple", "apples", "m", "Apfel", "Äpfel"),
    ("flower", "flowers", "f", "Blume", "Blumen"),
    ("stone", "stones", "m", "Stein", "Steine"),
    ("knife", "knives", "n", "Messer", "Messer"),
    ("bag", "bags", "f", "Tasche", "Taschen"),
    ("ball", "balls", "m", "Ball", "Bälle"),
    ("bicycle", "bicycles", "n", "Fahrrad", "Fahrräder"),
)
# English; German stem, to which the endings are added without a change
ADJECTIVES = (
    ("old", "alt"),
    ("new", "neu"),
    ("small", "klein"),
    ("big", "groß"),
    ("red", "rot"),
    ("green", "grün"),
    ("heavy", "schwer"),
    ("cheap", "billig"),
    ("beautiful", "schön"),
    ("ugly", "hässlich"),
)
ADJECTIVE_SHARE = 0.3  # of the things
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
# The article by gender, and the ending of an ordinal or adjective after it
_THE_NOMINATIVE = {"m": ("der", "e"), "f": ("die", "e"), "n": ("das", "e")}
_THE_ACCUSATIVE = {"m": ("den", "en"), "f": ("die", "e"), "n": ("das", "e")}
_ONE_ACCUSATIVE = {"m": ("einen", "en"), "f": ("eine", "e"), "n": ("ein", "es")}
_PLURAL_ENDING = "e"  # after a number


def choose(rng: random.Random, items: Sequence):
    """Returns one of the items; from `random()` alone, whose stream is the same in every Python version."""
    return items[int(rng.random() * len(items))]


def sentence(kind: str, index: int, value, rng: random.Random) -> tuple[str, str]:
    """Returns one English sentence and its German translation, from template `index` of `TEMPLATES[kind]`.

    value: an integer, at least 1 for ordinals and amounts; for dates (month, day), from (1, 1).
    """
    thing = choose(rng, THINGS)
    adjective = choose(rng, ADJECTIVES) if rng.random() < ADJECTIVE_SHARE else ("", "")
    words, values = _words(thing, adjective, rng), _value(kind, value, thing, adjective)
    texts = [
        template.format(**word, **value_slots)
        for template, word, value_slots in zip(TEMPLATES[kind][index], words, values, strict=True)
    ]
    english, german = (text[0].upper() + text[1:] for text in texts)
    return english, german


def _words(thing, adjective, rng):
    """Returns the slots that chance fills: (English, German)."""
    # The person first, else "I" would be too rare for every verb's form with it to occur.
    person = choose(rng, sorted({person for *_, person in SUBJECTS}))
    en_subject, de_subject, _ = choose(rng, [subject for subject in SUBJECTS if subject[2] == person])
    verb = choose(rng, VERBS)
    moved, building, city = (choose(rng, table) for table in (MOTION, BUILDINGS, CITIES))
    singular, _, gender, german_singular, _ = thing
    english = {
        "subject": en_subject,
        "verb": verb[person == 1],
        "past": verb[2],
        "arrive": ("arrive", "arrives")[person == 1],
        "thing": _join("the", adjective[0], singular),
        "object": _join("the", adjective[0], singular),
    }
    german = {
        "subject": de_subject,
        "verb": verb[3 + person],
        "past": verb[6],
        "have": ("habe", "hat", "haben")[person],
        "be": ("bin", "ist", "sind")[person],
        "arrive": ("komme", "kommt", "kommen")[person],
        "thing": _german(_THE_NOMINATIVE, gender, german_singular, adjective[1]),
        "object": _german(_THE_ACCUSATIVE, gender, german_singular, adjective[1]),
    }
    for slots, column in ((english, 0), (german, 1)):
        slots |= {"moved": moved[column], "building": building[column], "city": city[column]}
    return english, german


def _value(kind, value, thing, adjective):
    """Returns the slots that hold the value: (English, German)."""
    singular, plural, gender, german_singular, german_plural = thing
    english, stem = adjective
    if kind == "cardinal":
        if value == 1:
            german = _german(_ONE_ACCUSATIVE, gender, german_singular, stem)
            return {"counted": _join("one", english, singular)}, {"counted": german}
        german = _join(cardinal(value, "de"), stem and stem + _PLURAL_ENDING, german_plural)
        return {"counted": _join(cardinal(value, "en"), english, plural)}, {"counted": german}
    if kind == "ordinal":
        german = _german(_THE_ACCUSATIVE, gender, german_singular, ordinal(value, "de"), stem)
        return {"ordered": _join("the", ordinal(value, "en"), english, singular)}, {"ordered": german}
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


def _german(articles, gender, noun, *stems):
    """Returns a noun with its article, after it ordinals and adjectives ("" for none) with the article's ending."""
    article, ending = articles[gender]
    return _join(article, *(stem and stem + ending for stem in stems), noun)


def _join(*words):
    """Returns one phrase of the words that are not empty."""
    return " ".join(filter(None, words))


def cardinal(n: int, lang: str) -> str:
    """Returns a number in words: 21 -> "twenty-one" (lang "en"), "einundzwanzig" ("de")."""
    return num2words(n, lang=lang)


def ordinal(n: int, lang: str) -> str:
    """Returns an ordinal in words: 21 -> "twenty-first"; in German the stem, without ending: "einundzwanzigst"."""
    word = num2words(n, lang=lang, to="ordinal")
    return word.removesuffix("e") if lang == "de" else word


def year(n: int, lang: str) -> str:
    """Returns a year in words: 1984 -> "nineteen eighty-four", "neunzehnhundertvierundachtzig"; right from 1000 on."""
    return num2words(n, lang=lang, to="year")

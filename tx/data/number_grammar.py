"""Fills a pair of templates with words that agree: in person and number, gender, case and ending."""

import abc
import functools
import random
import string
import types
from collections.abc import Sequence

from tx.data import number_templates as words
from tx.data import number_words as spell

ADJECTIVE_SHARE = 0.25  # of the noun phrases that may have an adjective

_DEFINITE = {
    "nom": {"m": "der", "f": "die", "n": "das"},
    "acc": {"m": "den", "f": "die", "n": "das"},
    "dat": {"m": "dem", "f": "der", "n": "dem"},
    "gen": {"m": "des", "f": "der", "n": "des"},
}
_INDEFINITE = {
    "nom": {"m": "ein", "f": "eine", "n": "ein"},
    "acc": {"m": "einen", "f": "eine", "n": "ein"},
    "dat": {"m": "einem", "f": "einer", "n": "einem"},
}
_CASES = tuple(_INDEFINITE)
# An adjective's ending after the definite article, and after "ein".
_WEAK = {(case, gender): "en" for case in _DEFINITE for gender in "mfn"}
_WEAK |= dict.fromkeys([("nom", "m"), ("nom", "f"), ("nom", "n"), ("acc", "f"), ("acc", "n")], "e")
_MIXED = {(case, gender): "en" for case in _INDEFINITE for gender in "mfn"}
_MIXED |= {("nom", "m"): "er", ("nom", "f"): "e", ("nom", "n"): "es", ("acc", "f"): "e", ("acc", "n"): "es"}
_PRESENT = {"en": {"be": ("am", "is", "are"), "was": ("was", "was", "were")}}
_PRESENT["de"] = {"be": ("bin", "ist", "sind"), "was": ("wurde", "wurde", "wurden")}
_NOUNS = {"q": words.THINGS, "q2": words.THINGS, "u": words.SPANS, "a": words.AGES, "k": words.LENGTHS}
_NOUNS |= {"the": words.THINGS, "the2": words.THINGS, "o": words.THINGS}
_NOUNS |= {"b": words.BUILDINGS, "ev": words.EVENTS, "r": words.ROOMS, "room": words.ROOMS}
_WORDS = {
    "P": words.CITIES,
    "Q": words.CITIES,
    "by": words.VEHICLES,
    "S": words.SUBJECTS,
    "T": words.SUBJECTS,
}
_DISTINCT = {"T": "S", "Q": "P", "q2": "q", "the2": "the"}  # two slots that must not hold the same word
_VERB_LISTS = {"V": words.TRANSITIVE, "W": words.MOTION, "modal": words.MODALS, "think": words.THINKING}
_VERBS = {row[0]: row[1:] for row in words.VERBS}
_VERB_SLOTS = {*_VERBS, *_VERB_LISTS, *_PRESENT["en"]}


class Values(abc.ABC):
    """Draws the values of one split."""

    @abc.abstractmethod
    def cardinal(self) -> int: ...

    @abc.abstractmethod
    def ordinal(self) -> int:
        """At least 1."""

    @abc.abstractmethod
    def year(self) -> int: ...

    @abc.abstractmethod
    def amount(self) -> tuple[int, int]:
        """Euros, at least 1, and cents or 0."""

    @abc.abstractmethod
    def day(self) -> tuple[int, int]:
        """Month and day."""

    @abc.abstractmethod
    def time(self) -> int:
        """Minutes on the dial of twelve hours, a multiple of five."""


def choose(rng: random.Random, items: Sequence):
    """One of the items; from `random()` alone, whose stream is the same in every Python version."""
    return items[int(rng.random() * len(items))]


def fill(english: str, german: str, values: Values, rng: random.Random) -> tuple[str, str]:
    """Returns one English sentence and its German translation."""
    scene = _Scene(values, rng)
    # Verbs last: they agree with what is there.
    for name in sorted(_slots(english + german), key=_VERB_SLOTS.__contains__):
        scene.add(name)
    en, de = english.format(**scene.en), german.format(**scene.de)
    de = de.replace(" in dem ", " im ")
    return en[0].upper() + en[1:], de[0].upper() + de[1:]


@functools.cache
def _slots(template: str) -> tuple[str, ...]:
    fields = (field for _, field, _, _ in string.Formatter().parse(template) if field)
    return tuple(dict.fromkeys(field.split(".")[0] for field in fields))


class _Scene:
    """The fillers of one sentence, chosen slot by slot: `en` and `de` map a slot to its forms."""

    def __init__(self, values: Values, rng: random.Random):
        self.values, self.rng = values, rng
        self.en, self.de = {}, {}
        self.persons = {}  # slot -> 0, 1, 2: first singular, third singular, plural
        self.rows = {}

    def add(self, name: str) -> None:
        if name in _VERB_SLOTS:
            self.en[name], self.de[name] = self._verb(name)
        elif name in _WORDS:
            row = self._row(name, _WORDS[name])
            self.en[name], self.de[name] = row[:2]
            if len(row) == 3:
                self.persons[name] = int(row[2])
        elif name in ("q", "q2", "u", "a", "k"):
            self.en[name], self.de[name] = self._counted(name)
        elif name in _NOUNS:
            self.en[name], self.de[name] = self._definite(name)
        else:
            self.en[name], self.de[name] = self._value(name)

    def _row(self, name, table):
        taken = self.rows.get(_DISTINCT.get(name))
        row = self.rows[name] = choose(self.rng, [row for row in table if row is not taken])
        return row

    def _adjective(self, allowed):
        """Returns (English, German stem), both empty for none."""
        if allowed and self.rng.random() < ADJECTIVE_SHARE:
            return choose(self.rng, words.ADJECTIVES)
        return "", ""

    def _counted(self, name):
        n = self.values.cardinal()
        singular, plural, gender, german, _, german_plural, german_dative = self._row(name, _NOUNS[name])
        adjective, stem = self._adjective(_NOUNS[name] is words.THINGS)
        self.persons[name] = 1 if n == 1 else 2
        cases = {}
        for case in _CASES:
            if n == 1:
                phrase = _INDEFINITE[case][gender], stem and stem + _MIXED[case, gender], german
            else:
                ending, noun = ("en", german_dative) if case == "dat" else ("e", german_plural)
                phrase = spell.cardinal(n, "de"), stem and stem + ending, noun
            cases[case] = " ".join(filter(None, phrase))
        english = " ".join(filter(None, (spell.cardinal(n, "en"), adjective, singular if n == 1 else plural)))
        return english, types.SimpleNamespace(**cases)

    def _definite(self, name):
        singular, _, gender, german, genitive, _, _ = self._row(name, _NOUNS[name])
        adjective, stem = self._adjective(_NOUNS[name] is words.THINGS)
        order, order_stem = "", ""
        if name in ("o", "r"):
            n = self.values.ordinal()
            order, order_stem = spell.ordinal(n, "en"), spell.ordinal(n, "de")
        cases = {}
        for case, articles in _DEFINITE.items():
            ending = _WEAK[case, gender]
            attributes = [word + ending for word in (order_stem, stem) if word]
            cases[case] = " ".join(
                filter(None, (articles[gender], *attributes, genitive if case == "gen" else german))
            )
        return " ".join(filter(None, ("the", order, adjective, singular))), types.SimpleNamespace(**cases)

    def _value(self, name):
        if name == "n":
            n = self.values.cardinal()
            return spell.cardinal(n, "en"), spell.cardinal(n, "de")
        if name in ("y", "y2"):
            n = self.values.year()
            return spell.year(n, "en"), spell.year(n, "de")
        if name == "m":
            euros, cents = self.values.amount()
            return spell.amount(euros, cents, "en"), spell.amount(euros, cents, "de")
        if name == "d":
            month, day = self.values.day()
            forms = {c: spell.calendar_day(month, day, "de", e) for c, e in (("nom", "e"), ("dat", "en"))}
            return spell.calendar_day(month, day, "en"), types.SimpleNamespace(**forms)
        if name == "t":
            minutes = self.values.time()
            return spell.clock(minutes, "en"), spell.clock(minutes, "de")
        if name == "day":
            number = choose(self.rng, range(7))
            return spell.weekday(number, "en"), spell.weekday(number, "de")
        raise KeyError(f"no slot named {name!r}")

    def _verb(self, name):
        if name in _PRESENT["en"]:
            return tuple(
                types.SimpleNamespace(**{s: _PRESENT[lang][name][p] for s, p in self.persons.items()})
                for lang in ("en", "de")
            )
        row = _VERBS.get(name) or self._row(name, _VERB_LISTS[name])
        base, third, past, prefix, *present, participle = row
        en = {slot: third if person == 1 else base for slot, person in self.persons.items()}
        de = {slot: present[person] for slot, person in self.persons.items()}
        de |= {f"sub{slot}": prefix + present[person] for slot, person in self.persons.items()}
        en |= {"base": base, "past": past}
        de |= {"prefix": prefix and f" {prefix}", "inf": prefix + present[2], "part": participle}
        return types.SimpleNamespace(**en), types.SimpleNamespace(**de)

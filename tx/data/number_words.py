"""Numbers, amounts, calendar days and times of day in English and German words.

`lang` is "en" or "de" everywhere. num2words spells the numbers, Babel names months and weekdays.
"""

import functools

from babel.dates import get_day_names, get_month_names
from num2words import num2words


@functools.cache
def cardinal(n: int, lang: str) -> str:
    """21 -> "twenty-one", "einundzwanzig"."""
    return num2words(n, lang=lang)


@functools.cache
def ordinal(n: int, lang: str) -> str:
    """21 -> "twenty-first"; in German the stem, without an adjective's ending: "einundzwanzigst"."""
    word = num2words(n, lang=lang, to="ordinal")
    return word.removesuffix("e") if lang == "de" else word


@functools.cache
def year(n: int, lang: str) -> str:
    """1984 -> "nineteen eighty-four", "neunzehnhundertvierundachtzig"; right from 1000 on."""
    return num2words(n, lang=lang, to="year")


def amount(euros: int, cents: int, lang: str) -> str:
    """(12, 50) -> "twelve euros and fifty cents", "zwölf Euro und fünfzig Cent"; no cents are left out."""
    if lang == "de":
        parts = [f"{_numeral(n)} {unit}" for n, unit in ((euros, "Euro"), (cents, "Cent")) if n]
        return " und ".join(parts)
    parts = [
        f"{cardinal(n, lang)} {unit}{'s' * (n != 1)}" for n, unit in ((euros, "euro"), (cents, "cent")) if n
    ]
    return " and ".join(parts)


def _numeral(n: int) -> str:
    """A German cardinal before a masculine unit: "ein Euro", "hundertein Euro"."""
    word = cardinal(n, "de")
    return word.removesuffix("s") if word.endswith("eins") else word


def calendar_day(month: int, day: int, lang: str, ending: str = "en") -> str:
    """(5, 3) -> "the third of May", "dritten Mai" (without article; `ending` is the adjective's)."""
    name = get_month_names("wide", locale=lang)[month]
    return f"{ordinal(day, lang)}{ending} {name}" if lang == "de" else f"the {ordinal(day, lang)} of {name}"


def weekday(number: int, lang: str) -> str:
    """0 -> "Monday", "Montag"."""
    return get_day_names("wide", locale=lang)[number]


def clock(minutes: int, lang: str) -> str:
    """A time on the 12-hour dial, in steps of five minutes: 210 -> "half past three", "halb vier"."""
    hour, minute = divmod(minutes, 60)
    this, following = (_hour(h, lang) for h in (hour, hour + 1))
    if lang == "en":
        past = {
            0: f"{this} o'clock",
            15: f"quarter past {this}",
            30: f"half past {this}",
            45: f"quarter to {following}",
        }
        if minute < 30:
            return past.get(minute) or f"{cardinal(minute, lang)} past {this}"
        return past.get(minute) or f"{cardinal(60 - minute, lang)} to {following}"
    return {
        0: "ein Uhr" if this == "eins" else f"{this} Uhr",
        5: f"fünf nach {this}",
        10: f"zehn nach {this}",
        15: f"Viertel nach {this}",
        20: f"zwanzig nach {this}",
        25: f"fünf vor halb {following}",
        30: f"halb {following}",
        35: f"fünf nach halb {following}",
        40: f"zwanzig vor {following}",
        45: f"Viertel vor {following}",
        50: f"zehn vor {following}",
        55: f"fünf vor {following}",
    }[minute]


def _hour(hour: int, lang: str) -> str:
    return cardinal((hour - 1) % 12 + 1, lang)

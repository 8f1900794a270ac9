"""The embedded corpus: generated English-German sentences about numbers, split by the number itself.

A number in test (as a cardinal, an ordinal, a year or an amount) never occurs in train or validation, and so
on for each split; a calendar day is a value of its own. Numbers up to 31, tens and hundreds belong to train,
so that every word a number is made of has been seen: what is tested is composition.
"""

import calendar
import dataclasses
import hashlib
import random
from collections.abc import Iterator, Sequence

from tx.data.synthetic.number_sentences import TEMPLATES, choose, sentence
from tx.errors import UserError

# The dials of the difficulty. SENTENCES is also the order of the splits.
SENTENCES = {"train": 1500, "validation": 200, "test": 300}
SHARES = {"cardinal": 2, "ordinal": 1, "year": 1, "amount": 1, "date": 1}  # of the kinds of template
DIGIT_WEIGHTS = (1, 3, 4)  # of numbers with 1, 2, 3 digits: the largest is 999
ORDINAL_DIGITS = 3  # at most
YEARS = (1100, 2099)  # first and last; within them English and German both say hundreds ("nineteen hundred")
HELD_OUT_PERCENT = {"test": 15, "validation": 10}  # of the values, the rest is train's
SEED = 2017

_DAYS = [(month, day) for month in range(1, 13) for day in range(1, calendar.monthrange(2023, month)[1] + 1)]


@dataclasses.dataclass(frozen=True)
class Example:
    """Sentence pair, with the values in it: "number 1984", "day 05-03" (3 May)."""

    split: str
    template: str
    values: tuple[str, ...]
    en: str
    de: str


def split_of(value: str) -> str:
    """Returns the split that a value belongs to, by a hash of its name (see `Example`)."""
    kind, _, text = value.partition(" ")
    if kind == "number" and is_building_block(int(text)):
        return "train"
    bucket = int.from_bytes(hashlib.sha256(value.encode()).digest()[:4], "big") % 100
    for split, percent in HELD_OUT_PERCENT.items():
        if bucket < percent:
            return split
        bucket -= percent
    return "train"


def is_building_block(n: int) -> bool:
    """Returns whether a number is always train's: 0 to 31 (days of a month), tens, hundreds."""
    return n <= 31 or (n < 100 and n % 10 == 0) or n % 100 == 0


def examples() -> Iterator[Example]:
    """Yields the whole corpus, split by split, the same on every machine. No sentence occurs twice."""
    seen_en, seen_de = set(), set()
    for offset, (split, size) in enumerate(SENTENCES.items()):
        rng = random.Random(SEED + offset)
        # Train begins with every building block once, so that chance cannot leave one out.
        blocks = _building_blocks() if split == "train" else {}
        while size:
            kind = _weighted(rng, list(SHARES), list(SHARES.values()))
            value = blocks[kind].pop() if blocks.get(kind) else _draw(kind, split, rng)
            index = choose(rng, range(len(TEMPLATES[kind])))
            en, de = sentence(kind, index, value, rng)
            if en in seen_en or de in seen_de:
                continue
            seen_en.add(en)
            seen_de.add(de)
            size -= 1
            yield Example(split, f"{kind}/{index}", (_name(value),), en, de)


def generate(source: str = "en", target: str = "de") -> dict[str, list[tuple[str, str]]]:
    """Returns {"train", "validation", "test": [(source sentence, target sentence), ...]}.

    Raises UserError for another pair of languages than English and German.
    """
    if {source, target} != {"en", "de"}:
        raise UserError(f"corpus numbers is en-de or de-en, not {source}-{target}; set data.source and data.target")
    splits = {split: [] for split in SENTENCES}
    for example in examples():
        splits[example.split].append((getattr(example, source), getattr(example, target)))
    return splits


def _name(value: int | tuple[int, int]) -> str:
    return f"number {value}" if isinstance(value, int) else "day {:02}-{:02}".format(*value)


def _building_blocks() -> dict[str, list]:
    """Returns the values of each kind that train must have; for dates every day of the month, in changing months."""
    ranges = {
        "cardinal": range(10 ** len(DIGIT_WEIGHTS)),
        "ordinal": range(1, 10**ORDINAL_DIGITS),
        "year": range(YEARS[0], YEARS[1] + 1),
    }
    blocks = {kind: [n for n in numbers if is_building_block(n)] for kind, numbers in ranges.items()}
    blocks["date"] = []
    for day in range(1, 32):
        dates = [date for date in _DAYS if date[1] == day and split_of(_name(date)) == "train"]
        blocks["date"].append(dates[day % len(dates)])
    return blocks


def _draw(kind: str, split: str, rng: random.Random) -> int | tuple[int, int]:
    """Returns a random value of the split."""
    while True:
        if kind == "date":
            value = choose(rng, _DAYS)
        elif kind == "year":
            value = choose(rng, range(YEARS[0], YEARS[1] + 1))
        else:  # the count of digits first, else nearly all would have the most
            weights = DIGIT_WEIGHTS[:ORDINAL_DIGITS] if kind == "ordinal" else DIGIT_WEIGHTS
            digits = _weighted(rng, range(1, len(weights) + 1), weights)
            smallest = 0 if kind == "cardinal" and digits == 1 else 10 ** (digits - 1)
            value = choose(rng, range(smallest, 10**digits))
        if split_of(_name(value)) == split:
            return value


def _weighted(rng: random.Random, items: Sequence, weights: Sequence[int]):
    return choose(rng, [item for item, weight in zip(items, weights, strict=True) for _ in range(weight)])

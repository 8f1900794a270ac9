"""The embedded corpus: generated English-German sentences about numbers, split by the number itself.

A number in test (as a cardinal, an ordinal, a year or an amount) never occurs in train or validation, and so
on for each split; a calendar day and a time of day are values of their own. Numbers up to 31, tens, hundreds
and thousands belong to train, so that every word a number is made of has been seen: what is tested is
composition.
"""

import calendar
import dataclasses
import hashlib
import random
from collections.abc import Iterator

from tx.data import number_templates
from tx.data.number_grammar import Values, choose, fill
from tx.errors import UserError

# The dials of the difficulty. SENTENCES is also the order of the splits.
SENTENCES = {"train": 6000, "validation": 200, "test": 300}
SHARES = {
    "cardinal": 4,
    "ordinal": 2,
    "year": 2,
    "amount": 2,
    "date": 2,
    "time": 1,
}  # of the kinds of template
DIGIT_WEIGHTS = (1, 3, 4, 2)  # of cardinals with 1, 2, 3, 4 digits: the largest is 9,999
ORDINAL_DIGITS = 3  # at most
YEARS = (1100, 2099)  # first and last; within them English and German both say hundreds ("nineteen hundred")
CENTS_SHARE = 0.3  # of the amounts
HELD_OUT_PERCENT = {"test": 15, "validation": 10}  # of the values, the rest is train's
SEED = 2017


@dataclasses.dataclass(frozen=True)
class Example:
    """One pair, with the values in it: "number 1984", "day 05-03" (3 May), "time 03:30"."""

    split: str
    template: str
    values: tuple[str, ...]
    en: str
    de: str


def split_of(value: str) -> str:
    """The split that a value belongs to, by a hash of its name (see `Example`)."""
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
    """Whether a number is always train's: 0 to 31 (days of a month), tens, hundreds, thousands."""
    return n <= 31 or (n < 100 and n % 10 == 0) or n % 100 == 0


def examples() -> Iterator[Example]:
    """Yields the whole corpus, split by split, the same on every machine. No sentence occurs twice."""
    seen_en, seen_de = set(), set()
    kinds, shares = list(SHARES), list(SHARES.values())
    for offset, (split, size) in enumerate(SENTENCES.items()):
        rng = random.Random(SEED + offset)
        values = _SplitValues(split, rng)
        while size:
            kind = kinds[_weighted(rng, shares)]
            pairs = number_templates.TEMPLATES[kind]
            index = choose(rng, range(len(pairs)))
            values.used = []
            en, de = fill(*pairs[index], values, rng)
            if en in seen_en or de in seen_de:
                continue
            seen_en.add(en)
            seen_de.add(de)
            size -= 1
            yield Example(split, f"{kind}/{index}", tuple(values.used), en, de)


def generate(source: str = "en", target: str = "de") -> dict[str, list[tuple[str, str]]]:
    """Returns {"train", "validation", "test": [(source sentence, target sentence), ...]}.

    Raises UserError for another pair of languages than English and German.
    """
    if {source, target} != {"en", "de"}:
        raise UserError(
            f"corpus numbers is en-de or de-en, not {source}-{target}; set data.source and data.target"
        )
    splits = {split: [] for split in SENTENCES}
    for example in examples():
        splits[example.split].append((getattr(example, source), getattr(example, target)))
    return splits


def _weighted(rng: random.Random, weights) -> int:
    point = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return index
    return len(weights) - 1


_NUMBER = "number {}".format


class _SplitValues(Values):
    """Draws values that belong to one split, and notes them in `used`."""

    def __init__(self, split: str, rng: random.Random):
        self.split, self.rng, self.used = split, rng, []
        # Train begins with every building block once, so that chance cannot leave one out.
        blocks = (*range(32), *range(40, 100, 10), *range(100, 1000, 100), *range(1000, 10_000, 1000))
        blocks = blocks if split == "train" else ()
        self.cardinal_blocks = [n for n in blocks if n < 10 ** len(DIGIT_WEIGHTS)]
        self.ordinal_blocks = [n for n in blocks if 0 < n < 10**ORDINAL_DIGITS]

    def _draw(self, name, propose, *arguments):
        """The first proposal that, named, belongs to the split."""
        while True:
            proposal = propose(*arguments)
            value = name(proposal)
            if split_of(value) == self.split:
                self.used.append(value)
                return proposal

    def _between(self, first, last):
        return choose(self.rng, range(first, last + 1))

    def _with_digits(self, most, least):
        """A number whose count of digits is drawn first, else nearly all would have the most."""
        digits = 1 + _weighted(self.rng, DIGIT_WEIGHTS[:most])
        return self._between(10 ** (digits - 1) if digits > 1 else least, 10**digits - 1)

    def _month_and_day(self):
        month = self._between(1, 12)
        return month, self._between(1, calendar.monthrange(2023, month)[1])  # never 29 February

    def cardinal(self) -> int:
        if self.cardinal_blocks:
            return self._draw(_NUMBER, self.cardinal_blocks.pop)
        return self._draw(_NUMBER, self._with_digits, len(DIGIT_WEIGHTS), 0)

    def ordinal(self) -> int:
        if self.ordinal_blocks:
            return self._draw(_NUMBER, self.ordinal_blocks.pop)
        return self._draw(_NUMBER, self._with_digits, ORDINAL_DIGITS, 1)

    def year(self) -> int:
        return self._draw(_NUMBER, self._between, *YEARS)

    def amount(self) -> tuple[int, int]:
        euros = self._draw(_NUMBER, self._with_digits, len(DIGIT_WEIGHTS), 1)
        return euros, self._draw(_NUMBER, self._between, 1, 99) if self.rng.random() < CENTS_SHARE else 0

    def day(self) -> tuple[int, int]:
        return self._draw(lambda day: "day {:02}-{:02}".format(*day), self._month_and_day)

    def time(self) -> int:
        step = self._draw(lambda step: f"time {step // 12:02}:{step % 12 * 5:02}", self._between, 0, 143)
        return 5 * step

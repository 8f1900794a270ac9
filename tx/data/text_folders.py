"""Text in a folder of the user's own (data.corpus=files:DIR): splits found by name, three forms, any languages.

Forms: SPLIT.LANGUAGE files aligned line by line; SPLIT.tsv, a sentence of the source, a tab, its translation;
SPLIT.jsonl, an object a line with the languages as keys, or that as its "translation". Each may end in .gz. SPLIT is
train, one of valid, val, validation, dev, or what begins with "test", of letters, digits, "_" and "-". Without dev or
test they are split off train.
"""

import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tx.data.text_files import Pairs, aligned, contents, split_by_hash
from tx.data.text_lines import LONGEST, refuse_long, split_lines
from tx.errors import UserError
from tx.files import expanded, from_json

_LANGUAGE = re.compile(r"\w[\w.@+-]*")  # of a code: a part of a file's name that leads nowhere else
_DEV = ("valid", "val", "validation", "dev")
_TEST = re.compile(r"test[\w-]*")  # TFDS takes no other names of splits
# What was meant for a split, perhaps: "test.2016", "dev2", "Train", but not "trainer" or "values".
_LIKE_A_SPLIT = re.compile(r"(?:train|valid|val|validation|dev)(?![^\W\d_]).*|test.*", re.IGNORECASE | re.DOTALL)
_SHOWN = 6  # names of files in a message
# Of the training sentences each of dev and test gets a hundredth where that is enough of them, more where there are
# few, and at most a tenth.
_ENOUGH, _LARGEST_PERCENT = 500, 10


class _Files(NamedTuple):
    """Files of one split: two of "lines", of the source and the target, or one of "tsv" or "jsonl"."""

    kind: str
    paths: tuple[pathlib.Path, ...]


def read(folder: str, source: str, target: str) -> Pairs:
    """Returns the sentence pairs of every split, outer white space stripped: train, validation, then tests by name.

    A side of a training pair may be empty: such pairs are never split off, and `tx.data.loader` leaves them out.

    Args:
      folder: DIR; where there is none (any more), one of its name is looked for in $TX_DATA_DIR.

    Raises:
      UserError: no training text; files missing, in two forms, misaligned or malformed; in dev or test an empty line,
        or one of more than `LONGEST` characters; too few sentences to split any off.
    """
    if wrong := [code for code in (source, target) if not _LANGUAGE.fullmatch(code) or code in _PARSERS]:
        raise UserError(f"{wrong[0]!r} is no language code that the name of a file can end in")
    place = _find(folder)
    found = _splits(place, source, target)
    if "train" not in found:
        raise UserError(
            f"{place} has no training text: put train.{source} and train.{target} there, aligned line by line, or "
            f"train.tsv, or train.jsonl, each perhaps with .gz; {_holds(place)}"
        )
    pairs = {split: _read(files, source, target, split != "train") for split, files in found.items()}
    has_test = any(split.startswith("test") for split in pairs)
    lacking = [split for split, there in (("validation", "validation" in pairs), ("test", has_test)) if not there]
    if lacking:
        pairs |= _split_off(pairs["train"], lacking, found["train"].paths[0])
    first = ("train", "validation")
    return {split: pairs[split] for split in (*first, *sorted(pairs.keys() - set(first)))}


def _split_off(pairs, lacking, path) -> Pairs:
    """Returns the training pairs without those of the splits that are lacking, and these."""
    whole = sum(map(all, pairs))
    percent = min(_LARGEST_PERCENT, max(1, -(-100 * _ENOUGH // max(whole, 1))))
    splits = split_by_hash(pairs, 0, percent, lacking)
    if empty := [split for split in lacking if not splits[split]] or (lacking if not splits["train"] else []):
        raise UserError(
            f"{path} has too few sentences to split any off for {', '.join(empty)}; add more, or files of that name"
        )
    return splits


def _find(folder):
    path = pathlib.Path(folder)
    root = os.environ.get("TX_DATA_DIR")
    places = [path, *([expanded(root) / path.name] if root else [])]
    for place in places:
        if place.is_dir():
            return place
    raise UserError(
        f"data.corpus=files:DIR: no folder {' nor '.join(map(str, places))}; where a run's text was moved, set "
        f"TX_DATA_DIR to the folder that {path.name} lies in now"
    )


def _holds(place):
    names = sorted(path.name for path in place.iterdir())
    more = ", ..." if len(names) > _SHOWN else ""
    return f"it holds {', '.join(names[:_SHOWN])}{more}" if names else "it is empty"


def _splits(place, source, target) -> dict[str, _Files]:
    """Returns {split: its files}; UserError where a split is there twice, of one language alone, or only misnamed."""
    stems: dict[str, dict[str, pathlib.Path]] = {}
    misnamed = []
    for path in sorted(place.iterdir()):
        plain = path.name.removesuffix(".gz")
        ends = {ending: plain.removesuffix(f".{ending}") for ending in (source, target, *_PARSERS)}
        ends = {ending: stem for ending, stem in ends.items() if stem != plain and path.is_file()}
        if not any(map(_split_of, ends.values())) and any(map(_LIKE_A_SPLIT.fullmatch, ends.values())):
            misnamed.append(path.name)
        for ending, stem in ends.items():
            if _split_of(stem):
                other = stems.setdefault(stem, {}).setdefault(ending, path)
                if other != path:
                    raise UserError(f"{place} has both {other.name} and {path.name}; leave one out")
    kinds = {_kind(stem) for stem in stems}
    if lost := [name for name in misnamed if _kind(name) not in kinds]:  # else one split off train would take its place
        raise UserError(
            f"{place} has {lost[0]}, which is of no split; before the language or form write train, dev, or "
            "test with letters, digits, '_' and '-' (test_2016), or move the file away"
        )
    found, named = {}, {}
    for stem, endings in stems.items():
        split = _split_of(stem)
        if split in found:
            raise UserError(f"{place} has {named[split]}.* and {stem}.*, both of {split}; leave one out")
        found[split], named[split] = _files(place, stem, endings, source, target), stem
    return found


def _kind(stem):
    """Returns "train", "test" or "dev", whichever the name of a split, or one like it, begins with."""
    return next((kind for kind in ("train", "test") if stem.lower().startswith(kind)), "dev")


def _split_of(stem):
    """Returns the split that the beginning of a file's name stands for; None for none."""
    if stem in _DEV:
        return "validation"
    return stem if stem == "train" or _TEST.fullmatch(stem) else None


def _files(place, stem, endings, source, target):
    forms = [kind for kind in _PARSERS if kind in endings]
    sides = [language for language in (source, target) if language in endings]
    if len(forms) + bool(sides) > 1:
        names = ", ".join(path.name for path in endings.values())
        raise UserError(f"{place} has one split in several forms ({names}); leave all but one out")
    if forms:
        return _Files(forms[0], (endings[forms[0]],))
    for one, other in ((source, target), (target, source)):
        if one not in sides:
            raise UserError(f"{place} has {endings[other].name} but no {stem}.{one}[.gz]; add it, or move that away")
    return _Files("lines", (endings[source], endings[target]))


def _read(files: _Files, source: str, target: str, scored: bool) -> list[tuple[str, str]]:
    """Returns the pairs of a split; what dev and test, which are scored, may not hold is refused by file and line."""
    texts = [split_lines(contents(path), path, longest=None) for path in files.paths]
    first, places = 1, files.paths
    if files.kind == "lines":
        pairs = aligned(*texts, *places)
    else:
        places *= 2
        first, pairs = _PARSERS[files.kind](texts[0], places[0], source, target)
    pairs = [(a.strip(), b.strip()) for a, b in pairs]
    if not pairs:
        raise UserError(f"{places[0]}: the file is empty")
    if scored:
        for side, language in enumerate((source, target)):
            sentences = [pair[side] for pair in pairs]
            refuse_long(sentences, places[side], LONGEST, first)
            if "" in sentences:
                number = sentences.index("") + first
                raise UserError(
                    f"{places[side]}: line {number} is empty ({language}); "
                    "in dev and test every line must hold a sentence"
                )
    return pairs


def _parse_tsv(lines: list[str], path: pathlib.Path, source: str, target: str) -> tuple[int, list[Sequence[str]]]:
    """Returns (number of the first line, pairs). A first line of the two codes is a header, in either order."""
    rows = [line.split("\t") if line.strip() else ["", ""] for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise UserError(f"{path}, line {number}: {len(row)} columns; a line is a sentence, a tab, its translation")
    header = [code.strip() for code in rows[0]] if rows else []
    if sorted(header) != sorted((source, target)):
        return 1, rows
    return 2, rows[1:] if header == [source, target] else [row[::-1] for row in rows[1:]]


def _parse_jsonl(lines: list[str], path: pathlib.Path, source: str, target: str) -> tuple[int, list[Sequence[str]]]:
    """Returns (number of the first line, pairs). A line break inside a sentence becomes a space."""
    return 1, [_parse_object(line, f"{path}, line {i}", source, target) for i, line in enumerate(lines, 1)]


def _parse_object(line, where, source, target):
    if not line.strip():
        return "", ""
    try:
        value = from_json(line)
        found = value.get("translation", value)
        pair = [" ".join(found[language].split("\n")) for language in (source, target)]
        "".join(pair).encode()  # halves of surrogate pairs are no text
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(
            f'{where}: not {{"{source}": SENTENCE, "{target}": SENTENCE}}, nor that as its "translation"'
        ) from None
    return pair


_Parser = Callable[[list[str], pathlib.Path, str, str], tuple[int, list[Sequence[str]]]]
_PARSERS: dict[str, _Parser] = {"tsv": _parse_tsv, "jsonl": _parse_jsonl}

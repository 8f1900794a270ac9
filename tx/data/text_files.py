"""Corpora of line-aligned text files: their table, where they are looked for, how they are read and checked.

A further corpus is one more registered in `CORPORA`.
"""

import dataclasses
import gzip
import hashlib
import os
import pathlib
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Collection

from tx.data import cache, downloads
from tx.data.text_lines import LONGEST, split_lines
from tx.errors import UserError
from tx.files import expanded
from tx.registry import Registry

_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # how a sign is drawn, e.g. as an emoji
Pairs = dict[str, list[tuple[str, str]]]  # split -> (source, target) sentences in the data set's order


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """Files of a corpus of line-aligned text.

    Attributes:
      pairs: the language pairs it has; either direction can be trained.
      splits: {split: file stem}; `{pair}` in a stem stands for the pair as written in `pairs`, e.g. "en-de".
      licence: as stated by the source.
      split_by: where the files have no official split: the language whose sentence decides, by its hash,
        in which of train, validation and test a pair of the one file ("all") belongs.
      url: template of {stem} and {language}; empty where the source cannot be pinned by checksum.
      checksums: {"stem.language": (bytes, SHA-256)} of the files at `url`; a local copy may have others.
      archives: {pair: (zip file, member)} with tab-separated sentences, an alternative to line-aligned files.
      where: what to do where there are no files and no download.
    """

    pairs: tuple[str, ...]
    splits: dict[str, str]
    licence: str
    split_by: str = ""
    url: str = ""
    checksums: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)
    archives: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    where: str = ""


CORPORA = Registry("data.corpus")
CORPORA.register("multi30k")(
    TextFiles(
        pairs=("en-de", "en-fr", "de-fr"),
        splits={"train": "train", "validation": "val"}
        | {name: name for name in ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")},
        licence="non-commercial research and education (derived from Flickr30K)",
        url="https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a"
        "/data/task1/raw/{stem}.{language}.gz",
        checksums={
            "train.de": (637_044, "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6"),
            "train.en": (568_929, "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f"),
            "train.fr": (604_242, "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c"),
            "val.de": (24_681, "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a"),
            "val.en": (21_650, "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28"),
            "val.fr": (23_001, "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9"),
            "test_2016_flickr.de": (
                22_890,
                "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
            ),
            "test_2016_flickr.en": (
                21_077,
                "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
            ),
            "test_2016_flickr.fr": (
                22_310,
                "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
            ),
            "test_2017_flickr.de": (
                21_471,
                "a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee",
            ),
            "test_2017_flickr.en": (
                19_138,
                "76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074",
            ),
            "test_2017_flickr.fr": (
                20_434,
                "3ba671ceb2299f3304ffafefea7a833d08632fbaf0ba18546f8a2ec2391af496",
            ),
            "test_2017_mscoco.de": (
                10_230,
                "799e4854c25d601cb6cb6be29eabe5667734c61ace2f495e03e429031a0bc338",
            ),
            "test_2017_mscoco.en": (
                8_844,
                "aab300bfb4427697987e02cd0aacd44bfe8aa50456231b6474c08038bbed2b58",
            ),
            "test_2017_mscoco.fr": (
                9_751,
                "754f3072ba9f124569ba5258b32730fc1d214bbf8e0c6dfb2b74401676220db0",
            ),
        },
    )
)
CORPORA.register("tatoeba")(
    TextFiles(
        pairs=("en-de", "en-fr"),
        splits={"all": "all.{pair}"},
        split_by="en",
        licence="CC BY 2.0 (tatoeba.org, manythings.org/anki)",
        archives={"en-de": ("deu-eng.zip", "deu.txt"), "en-fr": ("fra-eng.zip", "fra.txt")},
        where="download {archive} from https://www.manythings.org/anki/",
    )
)


def read(name: str, source: str, target: str, folder: str) -> Pairs:
    """Returns the sentence pairs of every split, outer white space stripped, every line checked.

    Args:
      name: one of CORPORA.
      folder: looked in first (may be empty), then $TX_DATA_DIR, then the cache: FOLDER/name/FILE[.gz].

    Raises:
      UserError: files missing, misaligned, not UTF-8, with an empty line, with too few sentences for every split;
        or a pair the corpus does not have.
    """
    corpus = CORPORA[name]
    pair = next((p for p in corpus.pairs if sorted(p.split("-")) == sorted((source, target))), None)
    if pair is None:
        raise UserError(f"{name} has no pair {source}-{target}; it has {', '.join(corpus.pairs)}, either direction")
    stems = {split: stem.format(pair=pair) for split, stem in corpus.splits.items()}
    found = _find(
        name,
        corpus,
        pair,
        [f"{s}.{language}" for s in stems.values() for language in (source, target)],
        folder,
    )
    if isinstance(found, pathlib.Path):
        columns = _read_archive(found, corpus.archives[pair][1])
        splits = {"all": [columns[pair.split("-").index(language)] for language in (source, target)]}
        files = {"all": (found, found)}
    else:
        files = {split: (found[f"{s}.{source}"], found[f"{s}.{target}"]) for split, s in stems.items()}
        splits = {
            split: [[line.strip() for line in _lines(path, contents(path))] for path in both]
            for split, both in files.items()
        }
    pairs = {split: aligned(*sides, *files[split]) for split, sides in splits.items()}
    if corpus.split_by:
        pairs = split_by_hash(pairs["all"], (source, target).index(corpus.split_by))
        if empty := [split for split, some in pairs.items() if not some]:
            raise UserError(f"{files['all'][0]} has too few sentences: none falls into {', '.join(empty)}; add more")
    return pairs


def aligned(a: list[str], b: list[str], one: pathlib.Path, other: pathlib.Path) -> list[tuple[str, str]]:
    """Returns the pairs of the lines of two files; UserError, with both counts, where they are not as many."""
    if len(a) != len(b):
        raise UserError(f"{one} has {len(a)} lines but {other} has {len(b)}; they must be aligned line by line")
    return list(zip(a, b, strict=True))


def split_by_hash(
    pairs: list[tuple[str, str]], side: int, percent: int = 1, lacking: Collection[str] = ("validation", "test")
) -> Pairs:
    """Splits into train, validation and test by a hash of the sentence on one side (0 or 1).

    Only letters with their marks, and digits, count, without case, so that "Go on!" and "go on." with all their
    translations fall into one split. Validation and test keep the first translation of each, in the order of the file.
    A pair that is empty or endless on a side stays in train.

    Args:
      percent: of the sentences that each of validation and test gets; the same sentence goes to the same.
      lacking: which of the two are wanted; what would go to the other stays in train.
    """
    splits = {"train": [], **{split: [] for split in lacking}}
    seen = set()
    for pair in pairs:
        if not all(0 < len(sentence) <= LONGEST for sentence in pair):
            splits["train"].append(pair)
            continue
        key = _equality_key(pair[side])
        bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100
        split = "validation" if bucket < percent else "test" if bucket < 2 * percent else "train"
        if split == "train" or split not in splits:
            splits["train"].append(pair)
        elif key not in seen:
            seen.add(key)
            splits[split].append(pair)
    return splits


def _equality_key(sentence):
    """Returns what equal sentences share: letters and digits without case, and marks, which in many scripts are vowels.

    Text without marks is not composed: its key, and so its split, is older than that of marks.
    """
    text = _SELECTORS.sub("", sentence)
    if text.isascii() or not any(map(_is_mark, text)):
        return _bare(text)
    return "".join(one if _is_mark(one) else _bare(one) for one in unicodedata.normalize("NFC", text))


def _is_mark(character):
    return unicodedata.category(character) in ("Mn", "Mc")


def _bare(text):
    return re.sub(r"[\W_]", "", text.casefold())


def _find(name, corpus, pair, wanted, folder):
    """Returns {file: path} or the path of an archive, from the first folder that has any of them."""
    roots = [folder, os.environ.get("TX_DATA_DIR"), cache.root() / "text"]
    folders = [expanded(r) / name for r in roots if r]
    archive = corpus.archives.get(pair, ("", ""))[0]
    for place in folders:
        found = {f: p for f in wanted for p in (place / f"{f}.gz", place / f) if p.is_file()}
        missing = [f for f in wanted if f not in found]
        if not missing:
            return found
        if archive and (place / archive).is_file():
            return place / archive
        if found and place != folders[-1]:  # the cache may well have only the languages downloaded so far
            raise UserError(f"{place} has only a part of {name}; add {_names(missing)}, or move the rest away")
    trouble = ""
    if corpus.url:
        try:
            return found | downloads.fetch({f: (_url(corpus, f), *corpus.checksums[f]) for f in missing}, place)
        except downloads.Failed as error:
            trouble = f" and the download failed ({error})"
    looked = ", ".join(map(str, folders))
    what = corpus.where.format(archive=archive) or "put them"
    raise UserError(
        f"{name} needs {_names(wanted)}; looked in {looked}{trouble}; {what} into one of these folders "
        f"(--config.data.dir or TX_DATA_DIR names the folder above)"
    )


def _names(files):
    return ", ".join(f"{file}[.gz]" for file in files)


def _url(corpus, file):
    stem, _, language = file.rpartition(".")
    return corpus.url.format(stem=stem, language=language)


def contents(path: pathlib.Path) -> bytes:
    """Returns the bytes of a file, decompressed where its name ends in .gz; UserError where it cannot be read."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:  # gzip's own errors are OSErrors
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from None


def _lines(path: pathlib.Path, data: bytes) -> list[str]:
    lines = split_lines(data, path)
    empty = next((i for i, line in enumerate(lines or [""], 1) if not line.strip()), None)
    if empty:
        what = f"line {empty} is empty" if any(map(str.strip, lines)) else "the file is empty"
        raise UserError(f"{path}: {what}; every line must hold a sentence")
    return lines


def _read_archive(path: pathlib.Path, member: str) -> list[list[str]]:
    """Returns the two columns of a tab-separated member (further columns are attributions)."""
    try:
        with zipfile.ZipFile(path) as archive:
            lines = _lines(path / member, archive.read(member))
    # RuntimeError: encrypted, or compressed as nobody knows
    except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        why = str(error) or "it ends early"
        raise UserError(f"{path} is not an archive with {member} ({why}); fetch it again") from None
    columns = [line.split("\t") for line in lines]
    for i, row in enumerate(columns):
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise UserError(f"{path / member}, line {i + 1}: not two sentences with a tab between; fetch it again")
    return [[row[side].strip() for row in columns] for side in (0, 1)]

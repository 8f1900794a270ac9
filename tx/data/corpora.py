"""Parallel corpora by name, each read through TFDS as random-access array_record splits, without TensorFlow.

`numbers` and `recall` are generated (tx/data/synthetic/generate.py), `multi30k` and `tatoeba` are text files
(tx/data/text_files.py), `files:DIR` is a folder of the user's own (tx/data/text_folders.py), and another name with a
slash is TFDS's own (`wmt14_translate/de-en`, `ted_hrlr_translate/pt_to_en`, ...), with `:1.0.0` of that version.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from tx import config
from tx.config import FOLDER
from tx.data import text_files, text_folders, tfds_folders
from tx.data.synthetic import generate
from tx.errors import UserError, unknown
from tx.files import expanded

_BLOCK = 4096  # records read at once: one by one is thirty times slower


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Sentence pairs in named splits.

    Attributes:
      name, source, target: the corpus and its two language codes.
      fingerprint: hex digest that changes with the text.
      split_names: its splits, in the data set's order.
      open_splits: returns {split: random-access sequence of {language: UTF-8 bytes}}, prepared if need be.
      lowercase: whether the pairs are read in lower case.
    """

    name: str
    source: str
    target: str
    fingerprint: str
    split_names: tuple[str, ...]
    open_splits: Callable[[], Mapping[str, Sequence]] = dataclasses.field(repr=False)
    lowercase: bool = False

    @functools.cached_property
    def splits(self) -> Mapping[str, Sequence]:
        """{split: its records}, opened when first asked for."""
        return self.open_splits()

    def check_split(self, split: str) -> None:
        """Raises UserError for a split that the corpus does not have."""
        if split not in self.split_names:
            raise UserError(f"{self.name} has no split {split!r}; it has {', '.join(self.split_names)}")

    def iterate(self, split: str, step: int = 1) -> Iterator[tuple[str, str]]:
        """Yields (source, target) of every step-th pair, in the data set's order."""
        self.check_split(split)
        records = self.splits[split]
        indices = range(0, len(records), step)
        cased = str.lower if self.lowercase else str
        for start in range(0, len(indices), _BLOCK):
            for record in records.__getitems__(list(indices[start : start + _BLOCK])):
                yield cased(record[self.source].decode()), cased(record[self.target].decode())

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """Returns the (source, target) sentences of a split, in order."""
        return list(self.iterate(split))


def load(data_config, log: Callable[[str], None] = print) -> Corpus:
    """Opens a corpus, fetching its text where that is possible.

    Args:
      data_config: `config.data` (its fields corpus, source, target, dir, lowercase).
      log: told, in a line, of anything that takes long.

    Raises:
      UserError: an unknown corpus or pair, missing or malformed text, a TFDS set that cannot be prepared.
    """
    corpus = _load(data_config, log)
    if not data_config.lowercase:
        return corpus
    return dataclasses.replace(corpus, fingerprint=in_lower_case(corpus.fingerprint), lowercase=True)


def in_lower_case(fingerprint: str) -> str:
    """Returns the fingerprint of a text in lower case, from that of the text."""
    return hashlib.sha256(f"{fingerprint} in lower case".encode()).hexdigest()


def _load(data_config, log) -> Corpus:
    name, source, target = data_config.corpus, data_config.source, data_config.target
    if config.is_of_tfds(name):
        return _from_tfds(name, source, target, data_config.dir, log)
    if name in generate.generators:
        read = functools.partial(generate.read, name, source, target)
    elif name in text_files.CORPORA:
        read = functools.partial(text_files.read, name, source, target, data_config.dir)
    elif name.startswith(FOLDER):
        read = functools.partial(text_folders.read, name.removeprefix(FOLDER), source, target)
    else:
        known = [*generate.generators, *text_files.CORPORA]
        more = f"{FOLDER}DIR is a folder of your own, a generator of your own needs --import FILE.py"
        raise unknown("no corpus", name, known, f" (names of TFDS hold a slash; {more})")
    pairs = read()
    fingerprint = _fingerprint(pairs)

    def read_again():
        if _fingerprint(again := read()) != fingerprint:
            raise UserError(f"{name}: the text changed while it was read; start again")
        return again

    def open_splits():
        from tx.data import builders

        kind = FOLDER.rstrip(":") if name.startswith(FOLDER) else name  # of own text the fingerprint is name enough
        return builders.data_sources(kind, source, target, fingerprint, read_again)

    return Corpus(name, source, target, fingerprint, tuple(pairs), open_splits)


def _fingerprint(pairs: text_files.Pairs) -> str:
    digest = hashlib.sha256()
    for split, rows in pairs.items():  # lines hold no "\n", so nothing else has the same digest
        digest.update("\n".join([split, str(len(rows)), *(side for row in rows for side in row), ""]).encode())
    return digest.hexdigest()


def is_in_folder(data_config) -> bool:
    """Returns whether the text of a corpus lies in a folder of the user's; it need not be fetched."""
    if data_config.corpus.startswith(FOLDER):
        return True
    roots = [root for root in (data_config.dir, os.environ.get("TX_DATA_DIR")) if root]
    return data_config.corpus in text_files.CORPORA and any(
        (expanded(root) / data_config.corpus).is_dir() for root in roots
    )


def is_here(data_config) -> bool:
    """Returns whether the text of a corpus can be read at once: it lies in a folder of the user's, or is generated."""
    return data_config.corpus in generate.generators or is_in_folder(data_config)


def _from_tfds(name, source, target, folder, log) -> Corpus:
    """Opens a translation set of TFDS's own, in the order of its files: a fixed shuffle of TFDS's."""
    from tx.data import builders

    builder = builders.tfds_set(name, folder, log)
    languages = getattr(builder.info.features, "languages", ())
    if {source, target} - set(languages):
        has = ", ".join(languages) or "no sentence pairs"
        raise UserError(f"{name} has no pair {source}-{target}; it has {has}")
    if wrong := [split for split in builder.info.splits if not tfds_folders.NAME.fullmatch(split)]:
        raise UserError(f"{name} has a split {wrong[0]!r}: no name for a file; prepare the set again")
    fingerprint = tfds_folders.fingerprint(pathlib.Path(builder.data_dir), source, target)
    return Corpus(name, source, target, fingerprint, tuple(builder.info.splits), builder.as_data_source)

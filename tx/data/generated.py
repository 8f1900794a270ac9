"""Corpora that are generated, not read: made once, and kept for as long as what makes them stays as it is."""

import importlib
import importlib.metadata
import importlib.util
import json
import pathlib

from tx.data import cache
from tx.data.textfiles import Pairs

_FORMAT, _FILE = 1, "pairs.json"
# Of each, the modules that it is made by (the first one's `generate` is called), and the libraries with a say in it.
CORPORA = {
    "numbers": (("numbers", "number_sentences"), ("num2words", "babel")),
    "recall": (("recall",), ()),
}


def read(name: str, source: str, target: str) -> Pairs:
    """Returns {split: [(source sentence, target sentence), ...]} of one of CORPORA.

    Its modules are slow to import, and so imported only where the text has to be made.

    Raises UserError for a pair of languages that it does not have.
    """
    modules, libraries = CORPORA[name]

    def build(folder: pathlib.Path) -> None:
        made = importlib.import_module(f"tx.data.{modules[0]}").generate(source, target)
        (folder / _FILE).write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")

    versions = {library: importlib.metadata.version(library) for library in libraries}
    key = cache.fingerprint(_FORMAT, name, source, target, *map(_source, modules), versions)
    text = (cache.entry("generated", key, build) / _FILE).read_text(encoding="utf-8")
    return {split: [tuple(pair) for pair in pairs] for split, pairs in json.loads(text).items()}


def _source(module):
    """The text of a module, which is not imported."""
    return pathlib.Path(importlib.util.find_spec(f"tx.data.{module}").origin).read_text(encoding="utf-8")

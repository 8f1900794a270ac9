"""Generated corpora, made once and cached for as long as the code and libraries that make them stay the same."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import pathlib
from collections.abc import Callable

from tx.data import cache
from tx.data.text_files import Pairs
from tx.registry import Registry

generators = Registry("data.corpus")
_FORMAT, _FILE = 1, "pairs.json"


@dataclasses.dataclass(frozen=True)
class Generator:
    """Generator of a corpus, and what its sentences depend on.

    Attributes:
      generate: returns the pairs of every split, given two language codes; what it imports may be slow to import.
      modules: those of tx.data.synthetic that make it.
      libraries: those that have a say in it.
    """

    generate: Callable[[str, str], Pairs]
    modules: tuple[str, ...]
    libraries: tuple[str, ...] = ()


def _numbers(source, target):
    from tx.data.synthetic import numbers

    return numbers.generate(source, target)


def _recall(source, target):
    from tx.data.synthetic import recall

    return recall.generate(source, target)


generators.register("numbers")(Generator(_numbers, ("numbers", "number_sentences"), ("num2words", "babel")))
generators.register("recall")(Generator(_recall, ("recall",)))


def read(name: str, source: str, target: str) -> Pairs:
    """Returns {split: [(source sentence, target sentence), ...]} of one of the `generators`.

    Its modules are imported only where the text has to be made.

    Raises UserError for a pair of languages that it does not have.
    """
    generator = generators[name]

    def build(folder: pathlib.Path) -> None:
        made = generator.generate(source, target)
        (folder / _FILE).write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")

    versions = {library: importlib.metadata.version(library) for library in generator.libraries}
    key = cache.fingerprint(_FORMAT, name, source, target, *map(_source, generator.modules), versions)
    text = (cache.entry("generated", key, build) / _FILE).read_text(encoding="utf-8")
    return {split: [tuple(pair) for pair in pairs] for split, pairs in json.loads(text).items()}


def _source(module):
    """Returns the text of a module, which is not imported."""
    return pathlib.Path(importlib.util.find_spec(f"tx.data.synthetic.{module}").origin).read_text(encoding="utf-8")

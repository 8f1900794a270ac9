"""Generated corpora, made once and cached for as long as the code and libraries that make them stay the same."""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import inspect
import json
import pathlib
from collections.abc import Callable

from tx.data import cache
from tx.data.text_files import Pairs
from tx.errors import UserError
from tx.files import digest
from tx.registry import Registry

generators = Registry("data.corpus")
_FORMAT, _FILE = 1, "pairs.json"


@dataclasses.dataclass(frozen=True)
class Generator:
    """Generator of a corpus, and what its sentences depend on.

    Attributes:
      generate: returns the pairs of every split, given two language codes; what it imports may be slow to import.
      modules: those that make it: of tx.data.synthetic, by their last names, or others by their whole names.
      libraries: those that have a say in it, by the names of their distributions.
      code: digest of the file that `generate` is in, when it was registered; "" for this one, which makes no text.

    Raises UserError where that file cannot be read.
    """

    generate: Callable[[str, str], Pairs]
    modules: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    code: str = dataclasses.field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "code", _digest(self.generate))


def _digest(function):
    try:
        path = pathlib.Path(inspect.getfile(inspect.unwrap(function)))
        return "" if path.resolve() == pathlib.Path(__file__).resolve() else digest(path)
    except (OSError, TypeError):
        raise UserError(
            f"the generator {getattr(function, '__qualname__', function)!r} is in no file that can be read, so that a "
            "change of it would not be seen; write it as a function in a file, and name that with --import"
        ) from None


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

    Raises UserError for a pair of languages that it does not have, and where its modules or libraries are not here.
    """
    generator = generators[name]

    def build(folder: pathlib.Path) -> None:
        made = generator.generate(source, target)
        (folder / _FILE).write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")

    versions = {library: _version(library) for library in generator.libraries}
    own = [generator.code] if generator.code else []
    key = cache.fingerprint(_FORMAT, name, source, target, *map(_source, generator.modules), versions, *own)
    text = (cache.entry("generated", key, build) / _FILE).read_text(encoding="utf-8")
    return {split: [tuple(pair) for pair in pairs] for split, pairs in json.loads(text).items()}


def _version(library):
    """Returns the version of an installed distribution."""
    try:
        return importlib.metadata.version(library)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # none of that name; a name that is empty
        raise UserError(
            f"the library {library!r} of a generator is no distribution that is installed here; give the name that pip "
            "lists it by, which need not be the one that it is imported by (scikit-learn, not sklearn), or install it"
        ) from None


def _source(module):
    """Returns the text of a module, which is not imported."""
    for name in (f"{__package__}.{module}", module):
        with contextlib.suppress(ImportError, ValueError, OSError):
            spec = importlib.util.find_spec(name)
            if spec and spec.origin:
                return pathlib.Path(spec.origin).read_text(encoding="utf-8")
    raise UserError(
        f"the module {module!r} of a generator has no source here, neither in {__package__} nor by its whole name; "
        "leave the generator's own file out of its modules: it counts anyway"
    )

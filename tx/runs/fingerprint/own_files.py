"""Files of a user's own: those that are added to the package, and the modules of theirs that these import."""

import ast
import importlib.util
import pathlib
import sys
import sysconfig
from collections.abc import Collection, Iterator, Sequence

from tx.files import digest_if_readable, read_source
from tx.runs.fingerprint.definitions import PROGRAM, Module, imported_by_call

_PROJECT = frozenset({"tx", "experiments", "launch", "__main__"})  # the last is its command, or the file itself
_INSTALLED = frozenset({"site-packages", "dist-packages"})  # folders, one of which every installed library lies in


class OwnFiles:
    """Added files and what they import that is neither a library nor this project's, each read once.

    Nothing is imported to find it: a module lies beside the file, is an added file itself, or lies where Python looks.
    Of two of one name the first is everyone's, as in Python.

    Args:
      files: the added ones.
      libraries: names of modules that are a library's wherever they lie, an editable installation among them.

    Attributes:
      modules: of all that is read.
      named: {dotted name: Module} of what is imported.
      digests: {file: SHA-256} of all that is read; "" for what cannot be.
    """

    def __init__(self, files: Sequence[pathlib.Path], libraries: Collection[str]):
        self.named, self.digests = {}, {}
        self._libraries = {*sys.stdlib_module_names, *_PROJECT, *libraries}
        self._stems = {path.stem: path for path in reversed(files)}
        self._read, self._folders = {}, {}  # by file; of packages, by dotted name
        waiting = [(self._module(path, path.stem, ""), path.parent) for path in files]
        while waiting:
            module, folder = waiting.pop(0)
            for name in _requested(module):
                waiting += self._take(name.split("."), folder)
        self.modules = list(self._read.values())

    def _take(self, names, folder):
        """Finds a dotted name and the packages that it is in; returns [(Module, where it imports from)] of the new."""
        new, within, folders = [], "", [folder]
        if not names[0] or names[0] in self._libraries:
            return new
        for last in names:
            name = f"{within}.{last}" if within else last
            if name not in self._folders:
                found, self._folders[name] = _place(last, folders) if within else self._first_place(last, folder)
                before = len(self._read)
                if found and (module := self._importable(found, name, within)):
                    self.named[name] = module
                    new += [(module, folder)] * (len(self._read) - before)
            within, folders = name, self._folders[name]
            if not folders:
                break  # no package: what follows is of the module
        return new

    def _first_place(self, name, folder):
        """As `_place`, of a module that is in no package; (None, []) for one that is not a user's own."""
        found, inside = _place(name, [folder])
        if found:
            return found, inside
        if name in self._stems:
            return self._stems[name], []
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, AttributeError, ValueError):  # what the finders of others raise, and of a script
            return None, []
        if not spec:
            return None, inside
        inside = [pathlib.Path(place) for place in spec.submodule_search_locations or ()]
        found = pathlib.Path(spec.origin) if spec.origin else None
        if any(map(_is_installed, [*inside, *([found] if found else [])])) or (found and found.suffix != ".py"):
            return None, []
        return found, inside

    def _importable(self, path, name, package):
        """Returns the Module of a file; None where it is none of Python's, which nobody imports either."""
        try:
            return self._module(path.resolve(), name, name if path.name == "__init__.py" else package)
        except (OSError, SyntaxError, ValueError):
            return None

    def _module(self, path, name, package):
        if path not in self._read:
            self.digests[path] = digest_if_readable(path)  # before it is read: what is written meanwhile is noticed
            self._read[path] = Module(name, read_source(path), package)
        return self._read[path]


def _place(name, folders):
    """Returns (file, folders of what it has in it) of a module in one of some folders; no file without __init__.py."""
    for folder in folders:
        if (package := folder / name / "__init__.py").is_file():
            return package, [package.parent]
        if (file := folder / f"{name}.py").is_file():
            return file, []
    return None, [folder / name for folder in folders if (folder / name).is_dir()]


def _is_installed(path):
    return bool(_INSTALLED.intersection(path.parts)) or path.is_relative_to(sysconfig.get_path("stdlib"))


def _requested(module: Module) -> Iterator[str]:
    """Yields the dotted names, of modules or what is in them, that a module imports, in its functions too."""
    definitions = [node for name, nodes in module.definitions.items() if name != PROGRAM for node in nodes]
    for statement in [*module.import_nodes, *definitions, *module.rest]:
        for node in ast.walk(statement):
            match node:
                case ast.Import(names=names):
                    yield from (alias.name for alias in names)
                case ast.ImportFrom(module=str() as whole, names=names):
                    yield from (f"{whole}.{alias.name}" for alias in names)
                case ast.Call() if name := imported_by_call(node):
                    yield name

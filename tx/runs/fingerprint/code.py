"""Fingerprint of the code that a run's results depend on; it detects runs made by other code.

It goes by definitions, not by files: from the functions that make a run it follows every name to the function, class
or constant that it stands for, and so on. Of the components in a registry (`tx.registry`) only those count that the
configuration names; of the files that `--import` names, and of the modules of a user's own that these import, what
such a component needs, and what they change elsewhere.
"""

import ast
import functools
import hashlib
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from tx import config as config_lib
from tx.files import read_source
from tx.runs.fingerprint.definitions import EFFECTS, WHOLE, Module, bound, first_text, is_idle, path_of
from tx.runs.fingerprint.own_files import OwnFiles
from tx.runs.fingerprint.references import Reader, Reference

ENTRIES = (  # all that leaves a result
    "tx.training.experiment.run_experiments",
    "tx.training.reevaluation.evaluate_with_trained_params",
)
# What says, shows, stores or guards, and computes no part of a result, is not followed. Nor is the configuration, whose
# values are compared by themselves.
APART = frozenset(
    (
        *(
            "cli",
            "components",
            "config",
            "errors",
            "fields",
            "files",
            "plugins",
            "registry",
            "renamed_fields",
            "streams",
        ),
        *("data/cache", "data/downloads", "decoding/limits", "model/flops"),
        *("training/loss_monitor", "training/memory_check"),
        *(
            f"runs/{name}"
            for name in ("identity", "lease", "metrics_log", "provenance", "record", "result", "run_dir", "tensorboard")
        ),
        *(
            f"runs/fingerprint/{name}"
            for name in ("__init__", "code", "current", "definitions", "own_files", "references")
        ),
        *(f"runtime/{name}" for name in ("clock", "determinism", "distributed", "liveness", "memory", "signals")),
    )
)

# Calls of a user's file that say what is to be run, which a run's configuration has, and where Python finds modules.
_NAMES_RUNS = ("@experiments.registry.register", "@experiments.scales.register")
_FINDS_MODULES = "@sys.path."


@functools.cache
def _defaults():
    return config_lib.fields(config_lib.get_config())


class Code:
    """A package and the files that add to it, with the modules of a user's own that these import, each read once.

    Args:
      root: the folder of the package.
      files: what `--import` named.

    Attributes:
      modules: {dotted name: Module}, None for those of APART.
      registries: {key of a registry: the field of the configuration that it is of}.
      own: the added files, and what they import (`OwnFiles`).
    """

    def __init__(self, root: pathlib.Path, files: Sequence[pathlib.Path] = ()):
        self.modules, self._package = {}, root.name
        for path in sorted(root.rglob("*.py")):
            place = path.relative_to(root).with_suffix("")
            if not place.name.isidentifier() or not path.is_file():
                continue  # an editor's lock file, a link that leads nowhere: Python imports none of them
            folder = ".".join([root.name, *place.parent.parts])
            name = folder if place.name == "__init__" else f"{folder}.{place.name}"
            apart = place.as_posix() in APART
            self.modules[name] = None if apart else Module(name, read_source(path), folder)
        whole = [module for module in self.modules.values() if module]
        self.own = OwnFiles(files, {one.partition(".")[0] for module in whole for one in module.imports.values()})
        every = whole + self.own.modules
        made = [(module, name, nodes[0]) for module in every for name, nodes in module.definitions.items()]
        self.registries = {(m, name): field for m, name, node in made if (field := self._registry(m, node))}
        self._fields = sorted(set(self.registries.values()))
        self._components, self._unnamed, self._read, self._known = {}, {}, {}, {}
        for module in every:
            self._sort(module)

    def numerics(self, config: ConfigDict | dict) -> str:
        """As the function `tx.runs.fingerprint.numerics`."""
        chosen = self._chosen(config)
        if chosen not in self._known:
            reached = self._reached(chosen)
            digest = {key: self._definition(key)[0] for key in reached}
            lines = {" ".join([digest[key], *(digest[other] for other in others)]) for key, others in reached.items()}
            self._known[chosen] = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]
        return self._known[chosen]

    def covered(self, config: ConfigDict | dict) -> list[str]:
        """As the function `tx.runs.fingerprint.covered`."""
        return sorted(f"{module.name}.{name}" for module, name in self._reached(self._chosen(config)))

    def _chosen(self, config):
        """The names of components, in the order of the fields."""
        return tuple(_value(config, field) for field in self._fields)

    # What is reached.

    def _reached(self, chosen):
        """{key: keys that it refers to} of all that the entries and the effects of a user's files lead to."""
        names, found = dict(zip(self._fields, chosen, strict=True)), {}
        waiting = [self.follow(entry.split(".")).key for entry in ENTRIES]
        waiting += [(module, EFFECTS) for module in self.own.modules if module.effects]
        while waiting:
            key = waiting.pop()
            if key not in found:
                field = self.registries.get(key)
                found[key] = self._definition(key)[1] + (self.components(field, names[field]) if field else [])
                waiting += found[key]
        return found

    def _definition(self, key):
        """(digest of what it says, keys that it refers to) of a definition or another part of a module."""
        if key not in self._read:
            module, name = key
            reader = Reader(module, self, effects=name == EFFECTS)
            others = []
            if name == WHOLE:
                others = [(module, one) for one in sorted(module.definitions)]
            else:
                reader.read(module.effects if name == EFFECTS else module.definitions[name])
            if name == EFFECTS:
                others = [found.key for star in module.stars if (found := self.follow(star.split("."))).key]
            elif module.effects or module.stars:
                others.append((module, EFFECTS))
            digest = hashlib.sha256("\n".join(reader.words).encode()).hexdigest()
            self._read[key] = digest, reader.references + others
        return self._read[key]

    # What is on the top level of a module.

    def _registry(self, module, statement):
        """The field of a registry that a statement makes, if it does."""
        call = getattr(statement, "value", None)
        made = isinstance(call, ast.Call) and self._word(module, call.func) == "@Registry"
        return first_text(call) if made else None

    def _word(self, module, node):
        return self.find(module, names).word if (names := path_of(node)) else ""

    def registration(self, module: Module, node: ast.AST) -> tuple[str, str | None] | None:
        """Returns (field, name) of `positions.register(NAME)`, None for a name that is no constant; else None."""
        match node:
            case ast.Call(func=ast.Attribute(value=registry, attr="register")) if names := path_of(registry):
                if field := self.registries.get(self.find(module, names).key):
                    return field, first_text(node)
        return None

    def _sort(self, module):
        """Finds the components of a module, and tells what belongs to a definition from what has an effect."""
        for name, statements in module.definitions.items():
            for decorator in getattr(statements[0], "decorator_list", []):
                self._register(self.registration(module, decorator), module, name)
        for node in module.rest:
            match node:
                case ast.Expr(ast.Call(func=call, args=[value])) if registered := self.registration(module, call):
                    name = f"{path_of(call.func.value)[-1]}.{registered[1]}"
                    module.definitions[name] = [value]
                    self._register(registered, module, name)
                case _ if self._only_names_runs(module, node):
                    for name in bound([node]):  # a definition may use what a loop has left there
                        module.definitions.setdefault(name, []).append(node)
                case _:
                    owner = self._owner(module, node)
                    if not owner:
                        for call in ast.walk(node):
                            self._register(self.registration(module, call), module, WHOLE)
                    (module.definitions[owner] if owner else module.effects).append(node)
        module.loose = set(bound(module.effects))

    def _only_names_runs(self, module, statement):
        """Whether a statement says what is to be run or where modules lie, or is a loop or a condition of these."""
        match statement:
            case ast.Expr(ast.Call(func=func)):
                word = self._word(module, func)
                return word in _NAMES_RUNS or word.startswith(_FINDS_MODULES)
            case ast.For() | ast.While() | ast.If():
                inner = [one for one in [*statement.body, *statement.orelse] if not is_idle(one)]
                return bool(inner) and all(self._only_names_runs(module, one) for one in inner)
        return False

    def _register(self, registered, module, name):
        if registered and registered[1] is None:
            self._unnamed.setdefault(registered[0], []).append((module, WHOLE))
        elif registered:
            self._components.setdefault(registered, []).append((module, name))

    def _owner(self, module, node):
        """The definition that a statement changes, as `f.defvjp(...)` does f; None where it may be anything else.

        In a user's file a variable may be another name of something elsewhere.
        """
        match node:
            case (
                ast.Expr(ast.Call(func=ast.Attribute(value=root)))
                | ast.Assign(targets=[ast.Attribute(value=root) | ast.Subscript(value=root)])
                | ast.AugAssign(target=ast.Attribute(value=root) | ast.Subscript(value=root))
            ):
                pass
            case _:
                return None
        while isinstance(root, ast.Call | ast.Attribute | ast.Subscript):
            root = root.func if isinstance(root, ast.Call) else root.value
        if not isinstance(root, ast.Name) or root.id not in module.definitions:
            return None
        variable = not hasattr(module.definitions[root.id][0], "body")
        return None if variable and module in self.own.modules else root.id

    # What names stand for.

    def find(self, module: Module, names: Sequence[str], outside: bool = False) -> Reference:
        """Returns what names[0].names[1]... stands for on the top level of a module.

        Args:
          outside: whether another module asks for it: then an unknown name is the whole of this one.
        """
        name, *rest = names
        if name in module.loose or (outside and not self._has(module, name)):
            return Reference(f"@{name}", (module, WHOLE), rest)
        if name in module.definitions:
            return Reference(f"@{name}", (module, name), rest)
        if name in module.imports and not self._is_unread(module, name):
            return self.follow([*module.imports[name].split("."), *rest])
        return Reference(name, None, rest)

    def _is_unread(self, module, name):
        """Whether a package imports a module of its own that is none of Python's, or cannot be read."""
        whole, target = f"{module.name}.{name}", module.imports[name]
        of_it = target == whole or target.startswith(f"{whole}.")  # from .scan import scan
        return of_it and whole not in self.modules and whole not in self.own.named

    def _has(self, module, name):
        return name in module.definitions or name in module.imports or name.startswith("__")

    def follow(self, names: Sequence[str]) -> Reference:
        """Returns what a dotted name stands for; what is a library's, or is APART, takes in nothing."""
        modules = self.modules if names[0] == self._package else self.own.named
        count = len(names) if modules else 0
        while count and ".".join(names[:count]) not in modules:
            count -= 1
        if not count:
            return Reference(f"@{'.'.join(names)}", None, ())
        module, rest = modules[".".join(names[:count])], names[count:]
        if not module:
            return Reference(f"@{rest[0] if rest else WHOLE}", None, rest[1:])
        return self.find(module, rest, outside=True) if rest else Reference(f"@{WHOLE}", (module, WHOLE), ())

    def components(self, field: str, name: str | None) -> list[tuple[Module, str]]:
        """Returns the keys of what is registered so; where that is not found, of all that may be.

        In a user's file `register` may have another name, or be called by another function. A text is mostly no
        component: data.corpus names a folder, or a set of TFDS.
        """
        if found := self._components.get((field, name)):
            return found
        own = [] if name is None or field == "data.corpus" else [(module, WHOLE) for module in self.own.modules]
        return self._unnamed.get(field, []) + own

    def everything(self) -> list[tuple[Module, str]]:
        """Returns the keys of all modules, a user's own among them."""
        return [(module, WHOLE) for module in [*self.modules.values(), *self.own.modules] if module]


def _value(config, field):
    """The name that a configuration has in a field."""
    value = config
    try:
        for part in field.split("."):
            value = value[part]
    except (KeyError, TypeError):
        return _defaults().get(field)
    return value if isinstance(value, str) else None

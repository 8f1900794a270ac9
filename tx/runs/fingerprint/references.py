"""What a definition says and refers to: its statements as words, and the definitions that its names stand for."""

import ast
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from tx.runs.fingerprint.definitions import PROGRAM, WHOLE, Module, bound, first_text, imported, is_idle, path_of

# Fields of a syntax tree that compute nothing; some are not there in every version of Python.
_SILENT = frozenset({"annotation", "returns", "type_comment", "type_params", "kind", "ctx"})


class Reference(NamedTuple):
    """What a name stands for.

    Attributes:
      word: the same wherever the definition lies and however it is imported.
      key: (Module, name) of what it takes in; None for nothing of this project's.
      rest: attributes of it, in the order that they are asked for.
    """

    word: str
    key: tuple[Module, str] | None
    rest: Sequence[str]


class Reader(ast.NodeVisitor):
    """Reads statements into words that are the same for all that computes the same, in every version of Python.

    Left out are docstrings, comments, layout, annotations, imports, what is printed, and the text of a UserError.

    Args:
      module: that the statements are of.
      code: what resolves names (`tx.runs.fingerprint.code.Code`).
      effects: whether they are the module's `effects`: then the names that they bind, and import, are their own.

    Attributes:
      words, references: of all that was read, the latter the keys of each `Reference`.
    """

    def __init__(self, module: Module, code, effects: bool = False):
        self.words, self.references = [], []
        self._module, self._code, self._effects = module, code, effects
        self._imports_count = effects  # elsewhere what is imported counts where its name is used
        # What the names stand for that are bound around what is read, as `bound` has it.
        self._bound = bound(module.effects) if effects else {}
        self._started = set()  # names of modules, in command lines

    def read(self, nodes: Sequence[ast.AST]) -> None:
        """Reads statements, or other nodes."""
        self._several(nodes)

    def generic_visit(self, node: ast.AST) -> None:
        """Reads a node that has no rule of its own."""
        words = self.words
        words.append(f"{type(node).__name__}(")
        for field in node._fields:
            value = getattr(node, field, None)
            if field in _SILENT or value is None:
                continue
            start = len(words) + 1
            words.append(f"{field}=")
            self._several(value if isinstance(value, list) else [value])
            if len(words) == start:
                words.pop()  # nothing that counts
        words.append(")")

    def _several(self, values):
        for value in values:
            if not isinstance(value, ast.AST):
                self.words.append(f"{value!a},")
            elif not (isinstance(value, ast.stmt) and self._counts_for_nothing(value)):
                self.visit(value)
                self.words.append(",")

    def _counts_for_nothing(self, statement):
        return is_idle(statement) or (isinstance(statement, ast.Import | ast.ImportFrom) and not self._imports_count)

    # Names.

    def find(self, node: ast.AST) -> Reference | None:
        """Returns what an expression of names stands for here; None for another kind of expression."""
        if not (names := path_of(node)):
            return None
        name, *rest = names
        if name not in self._bound:
            return self._code.find(self._module, names)
        target = self._bound[name]
        return self._code.follow([*target.split("."), *rest]) if target else Reference(name, None, rest)

    def _take(self, found):
        self.words.append(".".join([found.word, *found.rest]))
        self.references += [found.key] if found.key else []

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self._bound and not self._bound[node.id]:  # as `find` has it; most names are such
            self.words.append(node.id)
        else:
            self._take(self.find(node))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        found = self.find(node)
        self._take(found) if found else self.generic_visit(node)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for target in imported(node).values():
            self._take(self._code.follow(target.split(".")))

    visit_ImportFrom = visit_Import

    # Scopes.

    def _within(self, scope, nodes):
        around = self._bound, self._imports_count
        self._bound, self._imports_count = self._bound | scope, self._effects
        self._several(nodes)
        self._bound, self._imports_count = around

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self.words.append(f"{type(node).__name__} {getattr(node, 'name', '')}")
        self._several(self._decorators(node))
        self.visit(node.args)
        args, body = node.args, node.body if isinstance(node.body, list) else [node.body]
        args = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        self._within(bound(body) | {arg.arg: None for arg in args if arg}, body)
        self.words.append("end")

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """What a class binds is no name in its methods; what it imports is an attribute, as what it defines is."""
        self.words.append(f"class {node.name}")
        self._several([*self._decorators(node), *node.bases, *node.keywords])
        around, self._imports_count = self._imports_count, True
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign):  # a field of a module or a dataclass
                self.words.append(f"field {ast.unparse(statement.target)}")
                self._several([statement.value] if statement.value else [])
            else:
                self._several([statement])
        self._imports_count = around
        self.words.append("end")

    def _decorators(self, node):
        """Those that do more than give a component its name."""
        decorators = getattr(node, "decorator_list", [])
        return [one for one in decorators if not self._code.registration(self._module, one)]

    def _comprehension(self, node):
        self.words.append(type(node).__name__)
        self.visit(node.generators[0].iter)
        targets = [one.target for one in node.generators]
        parts = [part for one in node.generators for part in (one.target, *one.ifs)]
        parts += [one.iter for one in node.generators[1:]]
        parts += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._within(bound(targets), parts)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    # What has another form with the same meaning, or means more than its form.

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(ast.Assign([node.target], node.value))

    def visit_Call(self, node: ast.Call) -> None:
        found = self.find(node.func)
        if found and found.word == "@UserError":
            self.words.append(found.word)
            return
        if found and found.word in ("@importlib.import_module", "__import__"):
            name = first_text(node)
            module = self._code.own.named.get(name)
            self.references += [(module, WHOLE)] if module else [] if name else self._code.everything()
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """A component that is taken from its registry by a name in the code counts whatever the configuration names."""
        found = self.find(node.value)
        field = found and self._code.registries.get(found.key)
        if field and not found.rest and isinstance(node.slice, ast.Constant):
            self.words.append(f"{found.word}[{node.slice.value!a}]")
            self.references += self._code.components(field, node.slice.value)
        else:
            self.generic_visit(node)

    def visit_List(self, node: ast.List | ast.Tuple) -> None:
        """A command line may start a module: `-m NAME`."""
        for option, name in itertools.pairwise(node.elts):
            if isinstance(option, ast.Constant) and option.value == "-m":
                self._started.add(name)
        self.generic_visit(node)

    visit_Tuple = visit_List

    def visit_Constant(self, node: ast.Constant) -> None:
        """The name of a module, in a string, takes it in; where it lies is of no matter."""
        module = self._code.modules.get(node.value) if isinstance(node.value, str) else None
        self.words.append("module" if module else ascii(node.value))
        if module:
            started = node in self._started and PROGRAM in module.definitions
            self.references.append((module, PROGRAM if started else WHOLE))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Versions of Python differ in how they cut the text between fields."""
        text = ""
        self.words.append("JoinedStr(")
        for part in [*node.values, None]:
            if isinstance(part, ast.Constant):
                text += part.value
                continue
            self.words += [ascii(text)] if text else []
            text = ""
            self._several([part] if part else [])
        self.words.append(")")

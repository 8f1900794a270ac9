"""The definitions of a source file, read off its syntax: nothing is imported to find out."""

import ast
from collections.abc import Sequence

# Parts of a module that are no definition: all of it; what it does on being imported; what it does on being started.
WHOLE, EFFECTS, PROGRAM = "*", "+", "__main__"


class Module:
    """The top level of a source file.

    Args:
      name: dotted.
      text: the source.
      package: that it is in, dotted, for relative imports.

    Attributes:
      definitions: {name: the statements that make it}; of a start as a program, PROGRAM.
      imports: {name: what it stands for, dotted}.
      stars: modules of which everything is imported, dotted.
      import_nodes: the statements that `imports` and `stars` are of.
      rest: the statements that define nothing.
      effects: those of `rest` that belong to no definition; `tx.runs.fingerprint.code.Code` tells them.
      loose: the names that `effects` bind.
    """

    def __init__(self, name: str, text: str, package: str = ""):
        self.name, self.definitions, self.imports = name, {}, {}
        self.stars, self.import_nodes, self.rest, self.effects, self.loose = [], [], [], [], set()
        tree = ast.parse(text)
        if "from ." in text:
            _make_absolute(tree, package)
        for node in tree.body:
            self._take(node)

    def _take(self, node):
        match node:
            case ast.ImportFrom(names=[ast.alias(name="*")]):
                self.stars.append(node.module)
                self.import_nodes.append(node)
            case ast.Import() | ast.ImportFrom():
                self.imports |= imported(node)
                self.import_nodes.append(node)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                self._define(name, node)
            case _ if is_idle(node) or type(node).__name__ == "TypeAlias":  # which Python has from 3.12 on
                pass
            case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                pass  # for annotations alone
            case ast.If(test=ast.Compare(left=ast.Name("__name__"), comparators=[ast.Constant("__main__")])):
                self.definitions[PROGRAM] = node.body
            case ast.AnnAssign(target=ast.Name(name)) | ast.AugAssign(target=ast.Name(name)):
                self._define(name, node)
            case ast.Assign(targets=[ast.Tuple(names)], value=ast.Tuple(values)) if _pairs(names, values):
                for name, value in zip(names, values, strict=True):
                    self._define(name.id, ast.Assign([name], value))
            case ast.Assign(targets=targets) if all(map(_names, targets)):
                for name in (name for target in targets for name in _names(target)):
                    self._define(name, node)
            case _:
                self.rest.append(node)

    def _define(self, name, node):
        self.definitions.setdefault(name, []).append(node)


def _names(target):
    """The names that an assignment binds; none where it changes something that is there already."""
    nodes = target.elts if isinstance(target, ast.Tuple) else [target]
    return [node.id for node in nodes] if all(isinstance(node, ast.Name) for node in nodes) else []


def _pairs(names, values):
    plain = all(isinstance(name, ast.Name) for name in names)
    return plain and len(names) == len(values) and not any(isinstance(value, ast.Starred) for value in values)


def _make_absolute(tree, package):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
            node.module, node.level = ".".join([*parents, *([node.module] if node.module else [])]), 0


def is_idle(statement: ast.AST) -> bool:
    """Returns whether a statement does nothing, or only says something."""
    match statement:
        case ast.Pass() | ast.Expr(ast.Constant() | ast.Call(func=ast.Name("print"))) | ast.AnnAssign(value=None):
            return True
    return False


def imported(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Returns {name: what it stands for, dotted} of an absolute import."""
    if isinstance(node, ast.ImportFrom):
        return {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    first = {alias.name.partition(".")[0]: alias.name.partition(".")[0] for alias in node.names if not alias.asname}
    return first | {alias.asname: alias.name for alias in node.names if alias.asname}


def path_of(node: ast.AST) -> list[str]:
    """Returns ["a", "b", "c"] of the expression a.b.c; [] of another kind of expression."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def imported_by_call(node: ast.AST) -> str | None:
    """Returns the dotted name in `importlib.import_module("NAME")` or `__import__("NAME")`; else None."""
    match node:
        case ast.Call(func=ast.Name("import_module" | "__import__") | ast.Attribute(attr="import_module")):
            return first_text(node)
    return None


def first_text(call: ast.Call) -> str | None:
    """Returns the first argument of a call, where it is a constant text; else None."""
    match [*call.args, *(keyword.value for keyword in call.keywords)]:
        case [ast.Constant(str() as text), *_]:
            return text
    return None


def bound(nodes: Sequence[ast.AST]) -> dict[str, str | None]:
    """Returns the names that a function with this body binds: to what is imported, dotted, or to None for a value."""
    names, shared, stack = {}, set(), list(nodes)
    while stack:
        node = stack.pop()
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.setdefault(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.setdefault(name)
            case ast.Import() | ast.ImportFrom():
                names |= imported(node)
            case ast.Global(names=those) | ast.Nonlocal(names=those):
                shared |= set(those)
            case ast.Lambda():
                pass
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                stack += [one.target for one in ast.walk(node) if isinstance(one, ast.NamedExpr)]
            case _:
                if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                    names.setdefault(node.name)
                if isinstance(node, ast.MatchMapping) and node.rest:
                    names.setdefault(node.rest)
                stack += ast.iter_child_nodes(node)
    return {name: target for name, target in names.items() if name not in shared}

"""Functions are short enough to be read at a glance: 60 lines and 15 branches, docstring and inner functions included.

A branch is an if, for, while, except, a conditional expression or an `and` or `or`, and each of those.
"""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINES, BRANCHES = 60, 15
LONGER: dict[str, str] = {}  # and why


def branches(function):
    """How many there are in a function."""
    one = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp)
    nodes = list(ast.walk(function))
    return sum(isinstance(node, one) for node in nodes) + sum(
        len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp)
    )


def functions(node, within=""):
    """Yields (dotted name, node) of every function below a node."""
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        name = f"{within}.{child.name}".lstrip(".") if named else within
        if named and not isinstance(child, ast.ClassDef):
            yield name, child
        yield from functions(child, name)


def too_long(text):
    """The names of a module's functions that are over either limit."""
    return [
        name
        for name, function in functions(ast.parse(text))
        if function.end_lineno - function.lineno + 1 > LINES or branches(function) > BRANCHES
    ]


@pytest.mark.parametrize("package", ["tx", "experiments", "launch"])
def test_functions_are_short(package):
    found = {
        f"{path.relative_to(ROOT).as_posix()}:{name}"
        for path in (ROOT / package).rglob("*.py")
        for name in too_long(path.read_text(encoding="utf-8"))
    }
    assert found == {name for name in LONGER if name.startswith(f"{package}/")}  # none is listed that is short


def test_lines_and_branches_are_counted():
    lines = "class C:\n    def f(self):\n" + "        pass\n"
    assert too_long(lines + "        pass\n" * 58) == []
    assert too_long(lines + "        pass\n" * 59) == ["C.f"]
    some = "def f(x):\n    for y in x:\n        if y and x or 1:\n            x = 2 if y else 3\n"  # 5 branches
    some += "    while x:\n        try:\n            pass\n        except E:\n            pass\n"  # 7
    assert branches(ast.parse(some)) == 7
    assert too_long(some + "    if x: pass\n" * 8) == []
    assert too_long(some + "    if x: pass\n" * 9) == ["f"]
    inner = "def f(x):\n    def g():\n" + "        if x: pass\n" * 16
    assert too_long(inner) == ["f", "f.g"]

"""A fingerprint of the code that results depend on: what was made by other code is told from what was not."""

import ast
import functools
import hashlib
import pathlib

from tx import extensions

# What says, shows, stores or guards, and computes no part of a result.
APART = frozenset(
    f"{name}.py"
    for name in (
        *("commandline", "complexity", "determinism", "digests", "errors", "events", "extensions", "fingerprint"),
        *(
            "flops",
            "interruption",
            "lease",
            "logs",
            "memory",
            "processes",
            "provenance",
            "rehearsal",
            "run",
            "sentinel",
        ),
        *("data/cache", "data/downloads"),
    )
)


@functools.cache
def numerics() -> str:
    """Returns 12 hexadecimal digits; comments, docstrings and layout make no difference to them.

    They cover this project's code and the files that `--import` named.
    """
    root, digest = pathlib.Path(__file__).resolve().parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name not in APART:
            digest.update(f"{name}\n{_bare(path.read_text(encoding='utf-8'))}\n".encode())
    for path in extensions.files():
        digest.update(f"{path.name}\n{_bare(path.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()[:12]


def _bare(source: str) -> str:
    """The program itself: without comments and docstrings, in one layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(ast.Constant()), *rest]:
                node.body = rest or [ast.Pass()]
    return ast.unparse(tree)

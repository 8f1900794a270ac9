"""Python files outside this project that add components and sweeps: `--import FILE.py`, or $TX_IMPORT.

They are imported before anything is looked up by name, in this process and in those that it starts.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import sys
import types

from tx.errors import UserError
from tx.files import expanded, from_json

VARIABLE = "TX_IMPORT"  # the files, separated as in PATH, or as a JSON list: a path may have a colon
OPTION = "--import"
HELP = "a file with components or sweeps of your own; repeatable"


def files() -> list[pathlib.Path]:
    """Returns the files that are imported, in order, each once and by its real path: it is kept beside the runs."""
    text = os.environ.get(VARIABLE, "")
    found = text.split(os.pathsep)
    if text.startswith("["):
        with contextlib.suppress(ValueError):  # else a path begins so
            found = [path for path in from_json(text) if isinstance(path, str)]
    paths = [os.path.realpath(expanded(path)) for path in found if path]
    return [pathlib.Path(path) for path in dict.fromkeys(paths)]


def take(argv: list[str]) -> list[str]:
    """Imports the file of every `--import FILE.py` and returns the other arguments.

    Raises UserError for an option without a file, and where a file is missing or cannot be imported; then none of them
    is among `files`.
    """
    before = os.environ.get(VARIABLE, "")
    rest, arguments, paths = [], iter(argv), list(map(str, files()))
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name != OPTION:
            rest.append(argument)
            continue
        value = value if equals else next(arguments, "")
        if not value:
            raise UserError(f"{OPTION} needs a file, e.g. {OPTION} my_ablation.py")
        path = os.path.realpath(expanded(value))
        paths += [] if path in paths else [path]
    if paths:
        os.environ[VARIABLE] = json.dumps(paths) if os.pathsep in "".join(paths) else os.pathsep.join(paths)
    try:
        load()
    except UserError:
        os.environ[VARIABLE] = before
        raise
    return rest


def load() -> None:
    """Imports every file that has not been; UserError where one is missing or cannot be imported.

    One that Python has imported already, as a script or a notebook does, has added what it adds.
    """
    for path in files():
        name = f"tx_import_{path}"
        if name in sys.modules or _is_imported(path):
            continue
        if not path.is_file() or path.suffix != ".py":
            raise UserError(f"{OPTION}: no Python file {path}")
        try:
            import_file(name, path)
        except (Exception, SystemExit) as error:  # a script may end so
            raise UserError(f"{OPTION}: {path} cannot be imported: {type(error).__name__}: {error}") from error


def import_file(name: str, path: pathlib.Path) -> types.ModuleType:
    """Imports a Python file as the module of a name, which stays only if it comes to its end; raises what it raises."""
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _is_imported(path):
    """Whether a module of this process, the script that it runs among them, is of that file."""
    known = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    files_of = [file for file in known if isinstance(file, str)]
    alike = [file for file in files_of if os.path.basename(file) == path.name or os.path.islink(file)]
    with contextlib.suppress(OSError):
        return any(os.path.exists(file) and os.path.samefile(file, path) for file in alike)
    return False

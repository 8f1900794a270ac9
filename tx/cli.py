"""Command lines: their parser and paths, `--config=FILE.py:NAME` and `--config.FIELD=VALUE`, options of decoding."""

import argparse
import contextlib
import inspect
import pathlib
import re
import sys

from ml_collections import ConfigDict

from tx import components, plugins
from tx import config as config_lib
from tx.errors import UserError
from tx.fields import FIELDS
from tx.files import expanded

_ROOT = pathlib.Path(__file__).resolve().parents[1]  # holds the packages, tx among them
DECODING_OPTIONS = ("beam", "alpha", "length_penalty", "extra_length", "average_last")  # fields of config.decode


class Parser(argparse.ArgumentParser):
    """Parser of a command: options stand anywhere between the other arguments, and what is wrong is a UserError.

    No option may be abbreviated: what is read beside a parser, or handed on to another one, goes by its whole name.
    """

    completed_by = None  # where a shell asks what may follow: what answers it, given the parser, and ends the process
    _intermixed = False

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, allow_abbrev=False, **named)

    def parse_args(self, args=None, namespace=None):
        """Parses a command's arguments; UserError for any that it has not."""
        if self.completed_by:
            self.completed_by(self)
        return super().parse_args(args, namespace)

    def parse_known_args(self, args=None, namespace=None):
        """Parses as argparse does `parse_known_intermixed_args`; each command of several parses its own arguments."""
        if self._intermixed or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        return self.parse_known_intermixed_args(args, namespace)

    def parse_known_intermixed_args(self, args=None, namespace=None):
        """Parses options and other arguments in any order; Python 3.11 calls `parse_known_args` for each of both."""
        self._intermixed = True
        try:
            return super().parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False

    def error(self, message: str):
        """Raises UserError; argparse would print the usage too."""
        raise UserError(f"{message}; {self.prog} --help lists the arguments")


def path(text: str) -> pathlib.Path:
    """Returns the path that an argument gives, "~" replaced; the type of every argument that is one."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"takes a path; got {text!r}")
    try:
        return expanded(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def load_config(spec: str) -> ConfigDict:
    """Returns get_config(NAME) of the Python file FILE for "FILE:NAME" (without ":NAME", get_config()).

    A relative FILE that does not lie in the current folder is one of this project's. Raises UserError where there is
    no such file or function, where it wants a name and gets none, for what it raises, and for what is no ConfigDict.
    """
    file, name = _split_spec(spec)
    path = _config_file(file)
    if path is None:
        there = _ROOT / "experiments" / "config.py"
        raise UserError(f"--config: no Python file {file!r}; give FILE.py:NAME, e.g. {there}:table3/base@smoke")
    module_name = f"tx_config_{path.resolve()}".replace(".", "_")  # a point would say that it lies in a package
    arguments = [name] if name else []
    with _modules_in(path.resolve().parent.parent):  # so that the file can import the package it lies in
        module = _without_traceback(file, lambda: plugins.import_file(module_name, path))
        try:
            inspect.signature(module.get_config).bind(*arguments)
        except AttributeError:
            raise UserError(f"--config: {file} defines no get_config function") from None
        except TypeError:
            takes = "no" if name else "a"
            raise UserError(f"--config: get_config of {file} takes {takes} name; got {spec!r}") from None
        config = _without_traceback(file, lambda: module.get_config(*arguments))
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise UserError(f"--config: get_config of {file} must return an ml_collections.ConfigDict; it gives a {kind}")
    return config


@contextlib.contextmanager
def _modules_in(folder):
    """Lets Python find modules in a folder too while the body runs; what that adds to `sys.path` itself stays."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the body may have taken it out
            sys.path.remove(str(folder))


def _without_traceback(file, call):
    """Returns what a call of a file's code returns; UserError for what that raises."""
    try:
        return call()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a script may end so
        raise UserError(f"--config: {file} gives no configuration: {type(error).__name__}: {error}") from error


def _split_spec(spec):
    """Returns (file, name); a path, too, may have a colon, so that the first part which is a file is taken."""
    ends = [match.end() for match in re.finditer(r"\.py(?=:|$)", spec)]
    end = next((end for end in ends if _config_file(spec[:end])), None)
    if end is None:
        file, _, name = spec.partition(":")
        return file, name
    return spec[:end], spec[end + 1 :]


def _config_file(file):
    """Returns the path of a Python file, None where there is none."""
    with contextlib.suppress(ValueError, OSError):  # a NUL; a name too long
        for path in (expanded(file), _ROOT / file):
            if path.suffix == ".py" and path.is_file():
                return path
    return None


def split_config_arguments(argv: list[str]) -> tuple[str | None, dict[str, str], list[str]]:
    """Returns (the value of --config, {field: value} of every --config.FIELD, all other arguments)."""
    spec, diff, rest = None, {}, []
    arguments = iter(argv)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name != "--config" and not name.startswith("--config."):
            rest.append(argument)
            continue
        if not equals:
            value = next(arguments, None)
            if value is None:
                raise UserError(f"{name} needs a value")
        if name == "--config":
            spec = value
        else:
            diff[name.removeprefix("--config.")] = value
    return spec, diff, rest


def config_from(argv: list[str]) -> tuple[ConfigDict, list[str]]:
    """Returns the validated configuration that the arguments name, and the arguments that are not about it."""
    spec, diff, rest = split_config_arguments(argv)
    if spec is None:
        raise UserError("--config is missing; e.g. --config=experiments/config.py:table3/base@smoke")
    config = _whole(load_config(spec), diff, where=f"--config={spec}")
    config_lib.update(config, diff, where="command line")
    config_lib.validate(config)
    return config, rest


def _whole(config, given, where):
    """Returns a configuration with the fields of one that a file gives, but those that the command line gives.

    A component that it chooses has its defaults where it does not say more. Raises UserError for a field that there is
    not, that is of a component not chosen, or that is missing.
    """
    found = config_lib.fields(config)
    lacking = FIELDS.keys() - found.keys() - given.keys()
    if missing := sorted(name for name in lacking if components.owners(name) is None):
        raise UserError(f"{where}: {missing[0]} is missing; let get_config change what tx.config.get_config gives")
    whole = config_lib.get_config()
    config_lib.update(whole, {name: value for name, value in found.items() if name not in given}, where)
    return whole


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """Adds --beam and the like; left out, the run's own configuration holds."""
    parser.add_argument("run", type=path, help="folder of a trained run, e.g. runs/table3@smoke/base/seed1")
    for name in DECODING_OPTIONS:
        parser.add_argument(f"--{name}", help=f"instead of the run's own decode.{name}")
    parser.add_argument(plugins.OPTION, metavar="FILE", help=plugins.HELP)


def options_of(arguments: argparse.Namespace) -> dict:
    """Returns the decoding options that were given."""
    return {name: getattr(arguments, name) for name in DECODING_OPTIONS}

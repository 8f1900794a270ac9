"""Completion of `tx` in a shell by argcomplete: commands, options, sweeps, variants, scales, fields."""

import argparse
import os
import shlex
from collections.abc import Iterable, Mapping

import argcomplete
from argcomplete.completers import FilesCompleter

from experiments import registry
from experiments.scales import SCALES
from tx import cli, components

_START = "_ARGCOMPLETE"  # which word of the line the parser is of, from 1


def words() -> list[str]:
    """Returns the whole words before the cursor, that of the command first."""
    before = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", 0))]
    try:
        found = shlex.split(before)
    except ValueError:  # a quote is open
        found = before.split()
    return found if before.endswith(" ") else found[:-1]


def prepare(own_words: Mapping[str, bool]) -> list[str]:
    """Has the parser of the command that stands before the cursor complete; returns the arguments of `tx`.

    Where none stands there it writes the commands, and ends the process.

    Args:
      own_words: {command: whether it is a word of the parser that it leads to, too}.
    """
    _, name, *rest = [*words(), "", ""][: max(3, len(words()))]
    if name not in own_words:
        _complete(_of_commands(own_words))
    if not own_words[name]:
        os.environ[_START] = "2"
    cli.Parser.completed_by = staticmethod(_complete)
    return [name, *rest]


def _of_commands(names):
    parser = argparse.ArgumentParser(prog="tx")
    parser.add_argument("command", choices=list(names))
    return parser


def _complete(parser):
    """Writes what the word at the cursor may be, and ends the process."""
    cli.Parser.completed_by = None
    argcomplete.autocomplete(parser, always_complete_options="long", default_completer=_default)


def _default(prefix: str, action: argparse.Action, **others) -> Iterable[str]:
    match action.dest:
        case "sweep" if action.metavar == "SWEEP":  # at all its scales
            return [sweep.name for sweep in registry.sweeps()]
        case "selector" | "sweep":
            return _sweeps(prefix)
        case "only":
            given, comma, _ = prefix.rpartition(",")
            return [given + comma + name for name in _variants()]
        case "settings" | "grid" | "tune":
            name, assigned, given = prefix.partition("=")
            return _values(name, given) if assigned else _fields()
    return FilesCompleter()(prefix, action=action, **others)


def _fields():
    return [f"{name}=" for name in components.known_fields() if name not in ("name", "version")]


def _values(name, given):
    """Returns FIELD=VALUE, or FIELD=V1,VALUE behind others, for each value of a field that takes one of a few."""
    field = components.known_fields().get(name)
    few = components.names(name) or (field.choices if field else ())
    before = "".join(given.rpartition(",")[:2])
    return [f"{name}={before}{value}" for value in few]


def _sweeps(prefix):
    """Returns every SWEEP@SCALE, or, behind a slash, SWEEP/VARIANT@SCALE."""
    name, slash, _ = prefix.partition("/")
    names = [one.name for one in registry.sweeps()]
    if slash:
        names = [f"{name}/{variant.name}" for variant in registry.variants(name)] if name in names else []
    return [f"{name}@{scale}" for name in names for scale in SCALES]


def _variants():
    """Returns the names of the variants of the sweeps that stand before the cursor; of all where none does."""
    named = {word.partition("@")[0].partition("/")[0] for word in words() if "@" in word and not word.startswith("-")}
    found = [sweep for sweep in registry.sweeps() if not named or sweep.name in named]
    return dict.fromkeys(variant.name for sweep in found for variant in sweep.variants)

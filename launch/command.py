"""The installed command `tx`: hands over to the commands that `python -m` runs, with the same arguments.

What a command needs is imported when it is called, so that `tx --help` and completion are quick.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from tx import streams
from tx.errors import one_line_errors, unknown


class Command(NamedTuple):
    """Command of `tx`.

    Attributes:
      module: whose `main` it calls.
      first: arguments that stand before those of the command line.
      summary: what it does, in a line.
    """

    module: str
    first: tuple[str, ...]
    summary: str


COMMANDS = {
    "launch": Command("launch.local", (), "run a sweep on this machine, or go on with one"),
    "status": Command("launch.local", ("--status",), "print the state of every run in a work folder"),
    "list": Command("experiments.__main__", ("list",), "list sweeps and scales, or the variants of one sweep"),
    "report": Command("experiments.__main__", ("report",), "print and write the tables of what was run"),
    "compare": Command("experiments.__main__", ("compare",), "set two sweeps side by side"),
    "transfer": Command("experiments.__main__", ("transfer",), "set a sweep's effects at several scales side by side"),
    "figures": Command("experiments.__main__", ("figures",), "draw a run's attention, sinusoids and learning rate"),
    "table1": Command("experiments.__main__", ("table1",), "measure Table 1: operations, paths and time of each mixer"),
    "plan": Command("launch.plan.__main__", (), "say what a sweep takes on devices that need not be there"),
    "verify": Command("launch.verify", (), "hold a copied work folder against its own checksums"),
    "train": Command("tx.train", (), "make one run"),
    "translate": Command("tx.decode", (), "translate with a trained run"),
    "evaluate": Command("tx.evaluate", (), "score a trained run again"),
    "export": Command("tx.export", (), "write a trained run's parameters to a safetensors file"),
    "check": Command("tx.check", (), "tell rounding from a fault: one step's gradients in several ways"),
    "bench": Command("experiments.bench.__main__", (), "measure speed and memory beside other programs"),
}
_COMPLETING = "_ARGCOMPLETE"  # set by the shell's completion
_LISTING = ("-h", "--help")


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int | None:
    """Calls the command that the first argument names with the others; returns its exit status."""
    if _COMPLETING in os.environ:
        from launch import completion  # sweeps are slow to import

        argv = completion.prepare({name: bool(command.first) for name, command in COMMANDS.items()})
    name, *rest = list(sys.argv[1:] if argv is None else argv) or _LISTING
    if name in _LISTING:
        print(usage())
        return 0
    if name not in COMMANDS:
        raise unknown("no command", name, COMMANDS, "; tx --help lists them")
    if name == "status" and {*rest} & {*_LISTING}:  # the parser of --status, which is quick, takes a folder alone
        print(f"usage: tx status DIR [--import FILE]\n\n{COMMANDS[name].summary}")
        return 0
    command = COMMANDS[name]
    with contextlib.suppress(FileNotFoundError):  # that folder is gone
        if not sys.flags.safe_path and os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # as `python -m` does: what a run is made of is found alike by both
    streams.end_at_once()
    module = importlib.import_module(command.module)
    return module.main([*command.first, *rest])


def usage() -> str:
    """Returns what `tx --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: tx COMMAND ...",
            "",
            "A laboratory for Transformer ablations.",
            "",
            *lines,
            "",
            "tx COMMAND --help lists its arguments. python -m MODULE is the same, for instance of launch.local.",
            'Completion: eval "$(register-python-argcomplete tx)"',
        ]
    )

"""`python -m experiments list|report`: what can be run, and the table of what was."""

import argparse
import os
import pathlib
import sys

import rich.console

from experiments import listing, registry, report
from tx.errors import one_line_errors
from tx.run import to_json


def _parser():
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("list", help="sweeps and scales, or the variants of one sweep")
    one.add_argument("sweep", nargs="?", help="SWEEP[@SCALE], e.g. table3@paper (the default scale)")
    one.add_argument("--format", choices=("text", "json"), default="text")
    one = commands.add_parser("report", help="the tables of a sweep, from its result.json files")
    one.add_argument("dirs", nargs="+", type=pathlib.Path, metavar="DIR", help="a workdir or SWEEP@SCALE folder")
    one.add_argument("--out", type=pathlib.Path, help="write to OUT/SWEEP@SCALE (default: by the runs)")
    one.add_argument("--show", choices=report.TABLES, default="table", help="which to print; all are written")
    one.add_argument("--readme", type=pathlib.Path, help="instead, renew the tables in this file's markers")
    one.add_argument("--check", action="store_true", help="with --readme: only exit 1 if one is stale")
    return parser


def _list(args, console):
    if args.sweep is None:
        if args.format == "json":
            print(to_json(listing.overview()), end="")
        else:
            listing.print_overview(console)
        return
    sweep, scale = registry.parse_sweep(args.sweep if "@" in args.sweep else f"{args.sweep}@paper")
    if args.format == "json":
        print(to_json(listing.entries(sweep, scale)), end="")
    else:
        listing.print_entries(sweep, scale, console)


def _console():
    # Piped output has no width to fit: rich would assume 80 columns and fold the cells.
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 400
    return rich.console.Console(highlight=False, width=wide)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    console = _console()
    if args.command == "list":
        _list(args, console)
        return 0
    if args.check and args.readme is None:
        parser.error("--check needs --readme")
    if args.readme is not None:
        return report.renew_readme(args.readme, args.dirs, check=args.check)
    report.report(args.dirs, args.out, console, args.show)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m experiments COMMAND`: what to run, tables and pictures of it, and the same for other tools."""

import argparse
import sys

from experiments import listing, readme, registry
from experiments.report import compare, tables, transfer, write
from tx import cli, plugins, streams
from tx.errors import UserError, one_line_errors, printable
from tx.files import to_json
from tx.runs import imports
from tx.runs.run_dir import RunDir

_COLUMNS = (
    "of the table printed, in Markdown and LaTeX too: at most N, or titles such as 'PPL*,runs', or all "
    "(default: what fits the terminal; nine or fewer in Markdown)"
)


def _parser():
    parser = cli.Parser(prog="python -m experiments", description=__doc__)
    parser.add_argument(plugins.OPTION, metavar="FILE", help=plugins.HELP)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("list", help="sweeps and scales, or the variants of one sweep")
    one.add_argument("sweep", nargs="?", help="SWEEP[@SCALE], e.g. table3@paper (the default scale)")
    one.add_argument("--fields", action="store_true", help="every field of a configuration instead, with its meaning")
    one.add_argument("--format", choices=("text", "json"), default="text")
    _add_report(commands.add_parser("report", help="the tables of a sweep, from its result.json files"))
    one = commands.add_parser("compare", help="two sweeps side by side, or one sweep made twice")
    one.add_argument("a", type=cli.path, metavar="DIR_A", help="a workdir or SWEEP@SCALE folder")
    one.add_argument("b", type=cli.path, metavar="DIR_B", help="another")
    one.add_argument("--fail-on", choices=("regression",), help="exit 1 where B is worse beyond the noise, or failed")
    _add_only(one)
    one = commands.add_parser("transfer", help="a sweep's effects beside each other at every scale it was run at")
    one.add_argument("sweep", metavar="SWEEP", help="e.g. table3")
    one.add_argument("dirs", nargs="*", type=cli.path, metavar="DIR", help="workdirs (default: runs)")
    one.add_argument("--out", type=cli.path, help="folder for SWEEP.transfer.* (default: the first DIR)")
    one = commands.add_parser("export", help="runs into TensorBoard's HParams or MLflow, from their files")
    one.add_argument("dirs", nargs="+", type=cli.path, metavar="DIR", help="a workdir or SWEEP@SCALE folder")
    one.add_argument("--to", required=True, choices=("tensorboard", "mlflow"))
    one.add_argument("--out", type=_place, help="folder (tensorboard), SQLite file or URI (mlflow); default: in DIR")
    _add_only(one)
    one = commands.add_parser("figures", help="pictures of a trained run: attention, sinusoids, learning rate")
    one.add_argument("run", type=cli.path, metavar="RUN", help="folder of a trained run")
    one.add_argument("--sentence", required=True, help="of the source language; it is translated")
    one.add_argument("--kind", choices=("encoder", "decoder", "cross"), default="encoder", help="whose attention")
    one.add_argument("--layer", type=int, default=-1, help="from 0; -1 is the last (default)")
    one.add_argument("--heads", type=_numbers, metavar="H,H", help="which heads, from 0 (default: all)")
    one.add_argument("--out", type=cli.path, help="folder for the files (default: RUN/figures)")
    one = commands.add_parser("table1", help="Table 1 measured: operations, chains, paths and time of each mixer")
    one.add_argument("--lengths", type=_numbers, metavar="N,N", help="of sentences (default: 16 to 2048, in minutes)")
    one.add_argument("--out", type=cli.path, default=".", help="folder for table1.* (default: this one)")
    for one in commands.choices.values():
        one.epilog = f"{plugins.OPTION} FILE: {plugins.HELP}"
    return parser


def _add_report(parser):
    parser.add_argument("dirs", nargs="+", type=cli.path, metavar="DIR", help="a workdir or SWEEP@SCALE folder")
    parser.add_argument("--out", type=cli.path, help="write to OUT/SWEEP@SCALE (default: by the runs)")
    _add_only(parser, ". The report then goes to --out, or is printed alone")
    parser.add_argument("--show", choices=write.TABLES, default="table", help="which to print; all are written")
    parser.add_argument("--columns", metavar="N|GLOBS|all", help=_COLUMNS)
    parser.add_argument("--pivot", metavar="FIELD", help="of a grid: the field that stands in the columns of its table")
    parser.add_argument("--html", action="store_true", help="write report.html too, a page with pictures and every run")
    port = {"type": int, "nargs": "?", "const": 0, "metavar": "PORT"}
    told = "instead, show that page to this machine's browsers; it follows runs that go on (default: a free PORT)"
    parser.add_argument("--serve", **port, help=told)
    parser.add_argument("--readme", type=cli.path, help="instead, renew the tables in this file's markers")
    parser.add_argument("--check", action="store_true", help="with --readme: only exit 1 if one is stale")


def _add_only(parser, more=""):
    parser.add_argument(
        "--only",
        action="extend",
        default=[],
        type=lambda globs: globs.split(","),  # no name of a variant has a comma; the points of a grid go by theirs
        metavar="GLOB[,GLOB]",
        help=f"only these rows, e.g. 'A/*,big'; repeatable{more}",
    )


def _numbers(text):
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes numbers, e.g. 0,3; got {text!r}") from None


def _place(text):
    return text if "://" in text else cli.path(text)


def _export(args):
    from experiments.export import mlflow, tensorboard, trials

    found, workdir = trials.read(args.dirs, args.only)
    if args.to == "mlflow":
        place = args.out or workdir / mlflow.FILE
        mlflow.write(found, place)
        told = f"mlflow ui --backend-store-uri {mlflow.uri_of(place)}"
    else:
        place = args.out or workdir / tensorboard.FOLDER
        if isinstance(place, str):
            raise UserError(f"--out: TensorBoard reads a folder; got {place}")
        tensorboard.write(found, place)
        told = f"tensorboard --logdir {place}"
    print(printable(f"Written: {len(found)} runs to {place}; to see them: {told}"))


def _list(args, console):
    if args.fields:
        if args.sweep is not None:
            raise UserError(f"list --fields is of every run; leave {args.sweep!r} out")
        if args.format == "json":
            streams.write_utf8()
            print(to_json(listing.fields()), end="")
        else:
            listing.print_fields(console)
        return
    if args.sweep is None:
        if args.format == "json":
            streams.write_utf8()
            print(to_json(listing.overview()), end="")
        else:
            listing.print_overview(console)
        return
    sweep, scale = registry.parse_sweep(args.sweep if "@" in args.sweep else f"{args.sweep}@paper")
    if args.format == "json":
        streams.write_utf8()
        print(to_json(listing.entries(sweep, scale)), end="")
    else:
        listing.print_entries(sweep, scale, console)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(plugins.take(sys.argv[1:] if argv is None else argv))
    console = tables.console()
    if args.command == "list":
        _list(args, console)
        return 0
    if args.command == "table1":
        from experiments.analysis import layer_costs  # JAX is slow to import

        layer_costs.run(args.lengths or layer_costs.LENGTHS, args.out, console)
        return 0
    if args.command == "figures":
        imports.recall([args.run])
        from experiments.analysis import figures  # matplotlib and JAX are slow to import

        for path in figures.draw(RunDir(args.run), args.sentence, args.kind, args.layer, args.heads, args.out):
            print(f"Written: {printable(str(path))}")
        return 0
    if args.command == "compare":
        imports.recall([args.a, args.b])
        return 1 if compare.compare(args.a, args.b, console, args.only, args.fail_on) else 0
    if args.command == "transfer":
        dirs = args.dirs or [cli.path("runs")]
        imports.recall(dirs)
        transfer.transfer(args.sweep, dirs, args.out, console)
        return 0
    if args.command == "export":
        _export(args)
        return 0
    return _report(args, parser, console)


def _report(args, parser, console) -> int:
    imports.recall(args.dirs)
    if args.check and args.readme is None:
        parser.error("--check needs --readme")
    if args.html and args.only and args.out is None:
        parser.error("--html with --only needs --out: beside the runs lies the page of all rows")
    if args.readme is not None:
        return readme.renew_readme(args.readme, args.dirs, check=args.check)
    if args.serve is not None:
        from experiments.page import serve  # slow to import, as below

        serve.forever(args.dirs, args.serve, args.only)
        return 0
    write.report(args.dirs, args.out, console, args.show, args.only, args.columns, args.pivot)
    if args.html:
        from experiments.page import write as page

        for path in page.pages(args.dirs, args.out, args.only):
            print(f"Page: {printable(str(path))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

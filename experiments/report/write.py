"""`python -m experiments report`: prints and writes tables of results, and keeps those of a README fresh."""

import pathlib
from collections.abc import Iterable

import rich.console
import rich.text

from experiments.analysis import layer_costs
from experiments.report import (
    agreement_table,
    costs_table,
    heads_table,
    lengths_table,
    main_table,
    markers,
    results,
    scores_table,
    tables,
    tuned_table,
)
from tx.errors import UserError, printable
from tx.files import from_json, write_atomically

TABLES = {
    "table": main_table.build,
    "agreement": agreement_table.build,
    "tuned": tuned_table.build,
    "scores": scores_table.build,
    "lengths": lengths_table.build,
    "costs": costs_table.build,
    "attention": heads_table.build,
}
MEASURED = "table1@measured"  # between a README's markers: the table of `python -m experiments table1`
FORMS = {"md": tables.to_markdown, "csv": tables.to_csv, "tex": tables.to_latex}


def report(
    dirs: Iterable[pathlib.Path], out: pathlib.Path | None, console: rich.console.Console, show: str = "table"
) -> list[pathlib.Path]:
    """Prints one of the TABLES of every sweep in `dirs`, that called `show`, and writes them all; returns the files.

    After the main table comes that of the rows tuned, if any were.

    They are called table.md, scores.csv and so on, and lie in OUT/SWEEP@SCALE/, or, without `out`, in the first
    SWEEP@SCALE folder that was read.
    """
    written = []
    for found in results.read(dirs):
        folder = found.folders[0] if out is None else out / found.name
        made = {name: table for name, build in TABLES.items() if (table := build(found)).rows}
        if show not in made:
            raise UserError(f"{found.name}: no run says anything of {show}; there are {', '.join(made)}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, table in made.items():
                for form, render in FORMS.items():
                    write_atomically(folder / f"{name}.{form}", render(table))
                    written.append(folder / f"{name}.{form}")
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
        for name in (show, "tuned") if show == "table" and "tuned" in made else (show,):
            tables.print_table(made[name], console)
        files = f"{{{','.join(made)}}}.{{{','.join(FORMS)}}}"
        console.print(rich.text.Text(f"Written: {printable(str(folder))}/{files}\n"))
    return written


def _table1(dirs):
    """The table of `python -m experiments table1`, from the table1.json in one of the folders."""
    for folder in dirs:
        if (file := folder / "table1.json").is_file():
            return layer_costs.build(from_json(file.read_text(encoding="utf-8")))
    raise UserError(f"no table1.json in {', '.join(map(str, dirs))}; make it with python -m experiments table1")


def renew_readme(readme: pathlib.Path, dirs: Iterable[pathlib.Path], check: bool) -> int:
    """Puts the table between every line <!-- table: NAME --> and the next line <!-- end table -->.

    NAME is SWEEP@SCALE, or SWEEP@SCALE/agreement, /tuned, /scores, /lengths, /costs or /attention for another of its
    tables, or table1@measured. With `check`, changes nothing. Returns 1 if `check` found a table other than its results
    give now, else 0. Raises UserError for a marker without its end, for a sweep that is in none of `dirs` and for a
    table that no sweep has.
    """

    def render(names):
        read = {one.name: one for one in results.read(dirs)}
        rendered = {}
        for name in names:
            if name == MEASURED:
                rendered[name] = tables.to_markdown(_table1(dirs))
                continue
            sweep, _, kind = name.partition("/")
            if sweep not in read:
                raise UserError(f"{readme}: no results of {sweep} in {', '.join(map(str, dirs))}")
            if kind not in ("", *TABLES):
                raise UserError(f"{readme}: {name}: a sweep has no table {kind!r}; there are {', '.join(TABLES)}")
            rendered[name] = tables.to_markdown(TABLES[kind or "table"](read[sweep]))
        return rendered

    return markers.renew(readme, lambda name: "@" in name, render, check)

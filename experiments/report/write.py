"""`python -m experiments report`: prints and writes tables of results."""

import functools
import pathlib
from collections.abc import Iterable, Sequence

import rich.console
import rich.text

from experiments.report import (
    agreement_figure,
    agreement_steps,
    agreement_table,
    claims_table,
    costs_table,
    differences_table,
    grid_figure,
    grid_table,
    heads_table,
    lengths_table,
    main_table,
    pictures,
    reading,
    scores_table,
    tables,
    tuned_table,
)
from tx.errors import UserError, printable
from tx.files import write_atomically

TABLES = {
    "table": main_table.build,
    "agreement": agreement_table.build,
    "agreement_steps": agreement_steps.build,
    "differences": differences_table.build,
    "grid": grid_table.build,
    "claims": claims_table.build,
    "tuned": tuned_table.build,
    "scores": scores_table.build,
    "lengths": lengths_table.build,
    "costs": costs_table.build,
    "attention": heads_table.build,
}
FIGURES = {  # name: (whether a sweep has it, what draws it, what it carries to tell a stale one by)
    "agreement": (agreement_figure.points, agreement_figure.figure, agreement_figure.digest),
    "grid": (grid_figure.drawable, grid_figure.draw, lambda found: None),
}
FORMS = {"md": tables.to_markdown, "csv": tables.to_csv, "tex": tables.to_latex, "json": tables.to_json}
SHORTENED = ("md",)  # the forms that have the first of a table's columns where nothing else is asked for


def report(
    dirs: Iterable[pathlib.Path],
    out: pathlib.Path | None,
    console: rich.console.Console,
    show: str = "table",
    only: Sequence[str] = (),
    columns: str | None = None,
    pivot: str | None = None,
) -> list[pathlib.Path]:
    """Prints one of the TABLES of every sweep in `dirs` that has it, that called `show`, and writes them all.

    After the main table comes that of the grids, and that of the rows tuned, if there are any. The files are called
    table.md, scores.csv and so on, and lie in OUT/SWEEP@SCALE/, or, without `out`, in the first SWEEP@SCALE folder that
    was read; where the paper has numbers, and for grids, pictures lie beside them. Tables of some rows, which `only`
    means, are written to `out` alone, not in the place of the whole ones.

    Args:
      dirs: workdirs or SWEEP@SCALE folders.
      out, only: see above.
      console: where to print.
      show: a key of TABLES.
      columns: of the table printed, and of all in Markdown and LaTeX, as `tables.selected` takes them; None: all that
        fit the terminal, nine or fewer in Markdown, all in LaTeX. CSV and JSON have everything always.
      pivot: the field of a grid that stands in the columns of its table, as `grid_table.build` takes it.

    Returns the files; UserError where no sweep has the table, the columns or, for `pivot`, a grid, and, when all others
    are written, for a sweep that cannot be read.
    """
    written, shown, names, left_out = [], 0, {}, []
    for found in reading.read(dirs, only, left_out):
        folder = found.folders[0] if out is None else out / found.name
        builders = TABLES | ({"grid": functools.partial(grid_table.build, pivot=pivot)} if pivot else {})
        made = {name: table for name, build in builders.items() if (table := build(found)).rows}
        names |= made
        printed = [name for name in ((show, "grid", "tuned") if show == "table" else (show,)) if name in made]
        shortened = {name: tables.selected(made[name], columns) for name in printed if columns}
        whole = out is not None or not only
        if whole:
            written += _write(found, made, folder, {name: columns for name in shortened})
        for name in printed:
            tables.print_table(shortened.get(name, made[name]), console)
        if printed and whole:
            files = f"{{{','.join(made)}}}.{{{','.join(FORMS)}}}"
            told = rich.text.Text(f"Written: {printable(str(folder))}/{files}\n")
            console.print(told, soft_wrap=True)  # a path in one piece, to be copied
        shown += bool(printed)
    if not shown:
        raise UserError(f"no run says anything of {show}; there are {', '.join(names)}")
    if pivot and "grid" not in names:
        raise UserError(f"--pivot={pivot}: there is no grid here")
    reading.refuse(left_out)
    return written


def _write(found, made, folder, columns):
    """Writes the tables of a sweep in all forms, some with chosen columns, and its pictures; returns the files."""
    written = {}
    for name, table in made.items():
        for form, render in FORMS.items():
            chosen = columns.get(name, None if form in SHORTENED else "all")
            written[folder / f"{name}.{form}"] = render(tables.selected(table, chosen))
    for name, (has, draw, digest) in FIGURES.items():
        if has(found):
            for form, contents in pictures.rendered(draw(found), digest(found)).items():
                written[folder / f"{name}.{form}"] = contents
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, contents in written.items():
            write_atomically(path, contents)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
    return list(written)

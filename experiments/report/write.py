"""`python -m experiments report`: prints and writes tables of results."""

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
    heads_table,
    lengths_table,
    main_table,
    results,
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
    "claims": claims_table.build,
    "tuned": tuned_table.build,
    "scores": scores_table.build,
    "lengths": lengths_table.build,
    "costs": costs_table.build,
    "attention": heads_table.build,
}
FIGURE = "agreement.svg"
FORMS = {"md": tables.to_markdown, "csv": tables.to_csv, "tex": tables.to_latex}


def report(
    dirs: Iterable[pathlib.Path],
    out: pathlib.Path | None,
    console: rich.console.Console,
    show: str = "table",
    only: Sequence[str] = (),
) -> list[pathlib.Path]:
    """Prints one of the TABLES of every sweep in `dirs` that has it, that called `show`, and writes them all.

    After the main table comes that of the rows tuned, if any were. The files are called table.md, scores.csv and so on,
    and lie in OUT/SWEEP@SCALE/, or, without `out`, in the first SWEEP@SCALE folder that was read; where the paper has
    numbers, a picture lies beside them. Tables of some rows, which `only` means, are written to `out` alone, not in the
    place of the whole ones. Returns the files; UserError where no sweep has the table that was asked for, and, when all
    others are written, for a sweep that cannot be read.
    """
    written, shown, names, left_out = [], 0, {}, []
    for found in results.read(dirs, only, left_out):
        folder = found.folders[0] if out is None else out / found.name
        made = {name: table for name, build in TABLES.items() if (table := build(found)).rows}
        names |= made
        whole = out is not None or not only
        if whole:
            written += _write(found, made, folder)
        printed = [name for name in ((show, "tuned") if show == "table" else (show,)) if name in made]
        for name in printed:
            tables.print_table(made[name], console)
        if printed and whole:
            files = f"{{{','.join(made)}}}.{{{','.join(FORMS)}}}"
            console.print(rich.text.Text(f"Written: {printable(str(folder))}/{files}\n"))
        shown += bool(printed)
    if not shown:
        raise UserError(f"no run says anything of {show}; there are {', '.join(names)}")
    results.refuse(left_out)
    return written


def _write(found, made, folder):
    """Writes the tables of a sweep in all forms, and its picture; returns the files."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in made.items():
            for form, render in FORMS.items():
                write_atomically(folder / f"{name}.{form}", render(table))
                written.append(folder / f"{name}.{form}")
        if agreement_figure.points(found):
            write_atomically(folder / FIGURE, agreement_figure.draw(found))
            written.append(folder / FIGURE)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
    return written

"""`python -m experiments report`: prints and writes tables of results, and keeps those of a README fresh."""

import pathlib
from collections.abc import Iterable

import rich.console
import rich.text

from experiments import markers, results, tables
from experiments.rows import build
from tx.errors import UserError, printable
from tx.run import write_atomically

FORMS = {"md": tables.to_markdown, "csv": tables.to_csv, "tex": tables.to_latex}


def report(dirs: Iterable[pathlib.Path], out: pathlib.Path | None, console: rich.console.Console) -> list[pathlib.Path]:
    """Prints the table of every sweep in `dirs` and writes table.md, .csv and .tex; returns the files.

    They lie in OUT/SWEEP@SCALE/, or, without `out`, in the first SWEEP@SCALE folder that was read.
    """
    written = []
    for found in results.read(dirs):
        table = build(found)
        folder = found.folders[0] if out is None else out / found.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for form, render in FORMS.items():
                write_atomically(folder / f"table.{form}", render(table))
                written.append(folder / f"table.{form}")
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
        tables.print_table(table, console)
        console.print(rich.text.Text(f"Written: {printable(str(folder))}/table.{{{','.join(FORMS)}}}\n"))
    return written


def renew_readme(readme: pathlib.Path, dirs: Iterable[pathlib.Path], check: bool) -> int:
    """Puts the table between every line <!-- table: SWEEP@SCALE --> and the next line <!-- end table -->.

    With `check`, changes nothing. Returns 1 if `check` found a table other than its results give now, else 0.
    Raises UserError for a marker without its end and for a sweep that is in none of `dirs`.
    """

    def render(names):
        rendered = {one.name: tables.to_markdown(build(one)) for one in results.read(dirs) if one.name in names}
        for name in names:
            if name not in rendered:
                raise UserError(f"{readme}: no results of {name} in {', '.join(map(str, dirs))}")
        return rendered

    return markers.renew(readme, lambda name: "@" in name, render, check)

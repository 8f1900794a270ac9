"""Tables and their forms: Markdown, CSV, LaTeX, JSON, and text for a terminal. Every form escapes what it shows."""

import csv
import dataclasses
import fnmatch
import io
import itertools
import math
import os
import re
import sys
import textwrap
from collections.abc import Sequence

import rich.box
import rich.console
import rich.table
import rich.text

from tx import files
from tx.errors import UserError, printable

MOST = 9  # columns of Markdown, where nothing else is asked for: what fits a page


@dataclasses.dataclass(frozen=True)
class Column:
    """Column of a table.

    Attributes:
      head: what is measured ("PPL").
      sub: whose number it is ("paper", "ours"), or "".
      text: left-aligned where true; numbers stand to the right.
      drop: in a terminal too narrow for all, columns of the highest `drop` go first; 0 stays.
    """

    head: str
    sub: str = ""
    text: bool = False
    drop: int = 0

    @property
    def title(self) -> str:
        return f"{self.head} {self.sub}".strip()


@dataclasses.dataclass(frozen=True)
class Table:
    """Table, as a report shows it.

    Attributes:
      title: one line.
      columns, rows: the cells, as text; every row has one for each column.
      groups: one key a row; LaTeX draws a line where it changes.
      caption: how the numbers were obtained: (what, value) pairs.
      notes: footnotes; those that cells refer to begin with "[1] " and so on.
      records: for CSV, one dict a row: unrounded numbers under plain names, None where there is none.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...]
    caption: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    records: tuple[dict[str, object], ...]

    @property
    def caption_text(self) -> str:
        return "; ".join(f"{what}: {value}" for what, value in self.caption) + "."


def selected(table: Table, columns: str | None = None) -> Table:
    """Returns a table with some of its columns, and a note of which are left out.

    Args:
      table: the table; its first column stays.
      columns: a number, the most that there are to be, those of the highest `drop` left out first; or titles with
        commas between them, as globs such as "PPL*,runs"; or "all". None: MOST.

    Raises UserError for a title that is none of the table's.
    """
    titles = [column.title for column in table.columns]
    if columns is None or columns.strip().isdecimal():
        kept = _fewest(table.columns, max(1, int(columns or MOST)))
    elif columns.strip() == "all":
        return table
    else:
        globs = [glob.strip() for glob in columns.split(",") if glob.strip()]
        for glob in globs:
            if not fnmatch.filter(titles, glob):
                raise UserError(f"--columns={glob} is none of: {', '.join(titles)}")
        kept = [i for i, title in enumerate(titles) if not i or any(fnmatch.fnmatchcase(title, g) for g in globs)]
    left_out = [title for i, title in enumerate(titles) if i not in kept]
    notes = (f"Columns left out here: {', '.join(left_out)}.",) if left_out else ()
    made = _with_columns(table, kept)
    return dataclasses.replace(made, notes=(*referred(table.notes, made.rows), *notes))


def _with_columns(table, kept):
    """Returns a table with the columns of some indices."""
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return dataclasses.replace(table, columns=tuple(table.columns[i] for i in kept), rows=rows)


def referred(notes: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Returns notes without the footnotes ("[1] ...") that neither a cell of some rows refers to nor another note."""
    footnotes = {note: note.partition(" ")[0] for note in notes if note.startswith("[")}
    texts = [*(cell for row in rows for cell in row), *(note for note in notes if note not in footnotes)]
    return tuple(note for note in notes if note not in footnotes or any(footnotes[note] in text for text in texts))


def _fewest(columns, most):
    """Returns the indices of the columns that stay, the highest `drop` left out first, all of one `drop` together."""
    kept = list(range(len(columns)))
    while len(kept) > most and (worst := max(columns[i].drop for i in kept)):
        kept = [i for i in kept if columns[i].drop < worst]
    return kept


def to_json(table: Table) -> str:
    """Returns JSON: {"title", "caption", "notes", "rows"}, the rows unrounded as in CSV.

    What no JSON number is, such as an infinite perplexity, stands as a string: "inf", "nan".
    """

    def plain(value):
        if isinstance(value, str):
            return printable(value)
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    return files.to_json(
        {
            "title": printable(table.title),
            "caption": {name: plain(value) for name, value in dict(table.caption).items()},
            "notes": [printable(note) for note in table.notes],
            "rows": [{name: plain(value) for name, value in record.items()} for record in table.records],
        }
    )


def to_markdown(table: Table) -> str:
    """Returns GitHub's Markdown, cells padded so that the source reads as a table too."""
    cells = [[_markdown(c.title) for c in table.columns]]
    cells += [[_markdown(cell) for cell in row] for row in table.rows]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(table.columns))]
    lines = [_pipes(row, widths, table.columns) for row in cells]
    rule = [("-" * w if c.text else "-" * (w - 1) + ":") for w, c in zip(widths, table.columns, strict=True)]
    lines.insert(1, f"| {' | '.join(rule)} |")
    caption = f"**{_markdown(table.title)}** {_markdown(table.caption_text)}"
    return "\n".join([caption, "", *lines, "", *(f"* {_markdown(note)}" for note in table.notes)]) + "\n"


def _pipes(row, widths, columns):
    padded = [cell.ljust(w) if c.text else cell.rjust(w) for cell, w, c in zip(row, widths, columns, strict=True)]
    return f"| {' | '.join(padded)} |"


def _markdown(text: str) -> str:
    text = re.sub(r"[\\`*|<>~$]|\](?=[(\[:])|(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9])", r"\\\g<0>", _line(text))
    return text.replace("&", "&amp;")


def to_csv(table: Table) -> str:
    """Returns CSV: one line a row, with a header; numbers unrounded, an empty field where there is none."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(table.records[0]), lineterminator="\n")
    writer.writeheader()
    for record in table.records:
        writer.writerow({key: printable(value) if isinstance(value, str) else value for key, value in record.items()})
    return out.getvalue()


_TEX = {c: f"\\{c}" for c in "{}$&#%_"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
}
_TEX_SYMBOLS = {
    "N": "$N$",
    "h": "$h$",
    "d_model": r"$d_{\mathrm{model}}$",
    "d_ff": r"$d_{\mathrm{ff}}$",
    "d_k": "$d_k$",
    "d_v": "$d_v$",
    "P_drop": r"$P_{\mathrm{drop}}$",
    "eps_ls": r"$\epsilon_{\mathrm{ls}}$",
}


def to_latex(table: Table) -> str:
    """Returns a LaTeX table float; needs the packages booktabs and graphicx."""
    lines = ["% needs \\usepackage{booktabs,graphicx}", r"\begin{table}", r"\centering"]
    lines.append(rf"\caption{{{_latex(table.title)} {_latex(table.caption_text)}}}")
    lines += [r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{{_letters(table)}}}", r"\toprule"]
    lines += _latex_heads(table.columns)
    previous = None
    for group, row in zip(table.groups, table.rows, strict=True):
        if group != previous:
            lines.append(r"\midrule")
        previous = group
        lines.append(_latex_row(re.sub(r"(?<![\w-])-(?=\d)", "$-$", _latex(cell)) for cell in row))
    lines += [r"\bottomrule", r"\end{tabular}}", r"\par\footnotesize"]
    lines += [rf"{_latex(note)}\par" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_heads(columns):
    """Returns the lines above a table's rows: a head that neighbours share stands once, over a rule across them."""
    heads, rules, start = [], [], 1
    for (head, _), those in itertools.groupby(columns, key=lambda c: (c.head, bool(c.sub))):
        width, text = len(list(those)), _TEX_SYMBOLS.get(head, _latex(head))
        heads.append(rf"\multicolumn{{{width}}}{{c}}{{{text}}}" if width > 1 else text)
        rules += [rf"\cmidrule(lr){{{start}-{start + width - 1}}}"] if width > 1 else []
        start += width
    below = [_latex_row(_latex(c.sub) for c in columns)] if any(c.sub for c in columns) else []
    return [_latex_row(heads), *([" ".join(rules)] if rules else []), *below]


def _letters(table):
    return "".join("l" if c.text else "r" for c in table.columns)


def _latex_row(cells):
    # A row whose first cell began with a bracket would be read as the option of the \\ before it.
    return "{}" + " & ".join(cells) + r" \\"


def _latex(text: str) -> str:
    return re.sub(r'"([^"]*)"', r"``\1''", "".join(_TEX.get(c, c) for c in _line(text)))


def _line(text: str) -> str:
    return printable(" ".join(text.split()))


def fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Returns the indices of the columns that fit beside one another, those of the highest `drop` left out first."""
    widths = []
    for i, column in enumerate(columns):
        wanted = 2 + max(len(column.head), len(column.sub), *(len(row[i]) for row in rows))
        widths.append(min(wanted, 16) if column.text and i else wanted)  # a long text can be folded, if need be
    kept = list(range(len(columns)))
    while sum(widths[i] for i in kept) > width:
        worst = max(columns[i].drop for i in kept)
        if not worst:
            break
        kept = [i for i in kept if columns[i].drop < worst]
    return kept


def print_table(table: Table, console: rich.console.Console) -> None:
    """Prints to a terminal; columns that do not fit are left out and named."""
    once = ()
    if len(fitting(table.columns, table.rows, console.width)) < len(table.columns):
        table, once = said_once(table)
    kept = fitting(table.columns, table.rows, console.width)
    shown = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i in kept:
        column = table.columns[i]
        head = f"{column.head}\n{column.sub}"
        if column.text:
            shown.add_column(rich.text.Text(head), overflow="fold")
        else:
            shown.add_column(rich.text.Text(head), justify="right", no_wrap=True)
    for row in table.rows:
        shown.add_row(*(rich.text.Text(_line(row[i])) for i in kept))
    console.print(rich.text.Text(table.title))
    console.print(shown)
    width = min(console.width, 110)
    left_out = [c.title for i, c in enumerate(table.columns) if i not in kept]
    notes = [table.caption_text, *once, *referred(table.notes, [once, *([row[i] for i in kept] for row in table.rows)])]
    if left_out:
        notes.append(f"Left out at this width: {', '.join(left_out)}.")
    for note in notes:
        console.print(rich.text.Text(textwrap.fill(_line(note), width, break_on_hyphens=False)))


def said_once(table: Table) -> tuple[Table, tuple[str, ...]]:
    """Returns a table without the columns of text that say the same of every row, and a line that says it of each."""
    columns = range(1, len(table.columns) if len(table.rows) > 1 else 1)
    same = [i for i in columns if table.columns[i].text and table.rows[0][i] and len({r[i] for r in table.rows}) == 1]
    lines = tuple(f"{table.columns[i].title} (of every row): {table.rows[0][i]}." for i in same)
    return _with_columns(table, [i for i in range(len(table.columns)) if i not in same]), lines


def console() -> rich.console.Console:
    """Returns where tables are printed: the terminal, or what takes its place."""
    # Piped output has no width to fit: rich would assume 80 columns and fold the cells.
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 400
    return rich.console.Console(highlight=False, width=wide)

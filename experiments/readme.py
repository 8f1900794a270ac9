"""Tables of a README, between markers: renewed, or checked for being stale."""

import pathlib
from collections.abc import Iterable

from experiments.analysis import layer_costs
from experiments.report import findings, markers, reading, reproduction, summary_table, tables, transfer, write
from tx.errors import UserError
from tx.files import from_json, read_text

TABLES = {**write.TABLES, "short": summary_table.build}
TEXTS = {"reproduced": reproduction.to_markdown, "findings": findings.to_markdown}
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError)  # what reading another's JSON raises
EVERY_SCALE = "transfer@"  # before a sweep's name
MEASURED = "table1@measured"  # between a README's markers: the table of `python -m experiments table1`


def _table1(dirs):
    """Returns the table of `python -m experiments table1`, from the table1.json in one of the folders."""
    for folder in dirs:
        if (file := folder / "table1.json").is_file():
            try:
                return layer_costs.build(from_json(read_text(file)))
            except (OSError, *DAMAGED) as error:
                raise UserError(
                    f"{file} is damaged ({error}); make it anew with python -m experiments table1"
                ) from None
    raise UserError(f"no table1.json in {', '.join(map(str, dirs))}; make it with python -m experiments table1")


def _transfer(name, read, readme):
    """Returns the table of a sweep's effects at every scale that it has results at."""
    found = [one for one in read if one.sweep.name == name.removeprefix(EVERY_SCALE)]
    if not found:
        raise UserError(f"{readme}: {name}: no results of such a sweep; a marker is {EVERY_SCALE}SWEEP")
    return transfer.build(found)


def renew_readme(readme: pathlib.Path, dirs: Iterable[pathlib.Path], check: bool) -> int:
    """Puts the table between every line <!-- table: NAME --> and the next line <!-- end table -->.

    NAME is SWEEP@SCALE, or SWEEP@SCALE/short for eight columns of it, SWEEP@SCALE/claims or another name of TABLES for
    another of its tables; in sentences, SWEEP@SCALE/reproduced for what of it reproduces and SWEEP@SCALE/findings for
    what its runs say of each claim; transfer@SWEEP for its effects at every scale; or table1@measured. With `check`,
    changes nothing. Returns 1 if `check` found a table other than its results give now, else 0. Raises UserError for a
    marker without its end, for a sweep that is in none of `dirs` and for a table that no sweep has.
    """

    def render(names):
        read = {one.name: one for one in reading.read(dirs)}
        rendered = {}
        for name in names:
            if name == MEASURED:
                rendered[name] = tables.to_markdown(tables.selected(_table1(dirs)))
                continue
            if name.startswith(EVERY_SCALE):
                rendered[name] = tables.to_markdown(_transfer(name, read.values(), readme))
                continue
            sweep, _, kind = name.partition("/")
            if sweep not in read:
                raise UserError(f"{readme}: no results of {sweep} in {', '.join(map(str, dirs))}")
            if kind in TEXTS:
                rendered[name] = TEXTS[kind](read[sweep])
                continue
            if kind not in ("", *TABLES):
                known = ", ".join((*TABLES, *TEXTS))
                raise UserError(f"{readme}: {name}: a sweep has no table {kind!r}; there are {known}")
            rendered[name] = tables.to_markdown(tables.selected(TABLES[kind or "table"](read[sweep])))
        return rendered

    return markers.renew(readme, lambda name: "@" in name, render, check)

"""Forms of a table: which columns are shown where, JSON, LaTeX's heads, and what is said once."""

import csv
import dataclasses
import json
import math

import pytest
import rich.console
from fabricated import put

from experiments import __main__ as command
from experiments.report import main_table, reading, tables
from experiments.report.tables import Column, Table
from tx.errors import UserError


def made(*columns, rows=(("a", "1", "2", "same"), ("b", "3", "4", "same"))):
    return Table("t", columns, rows, ("x",) * len(rows), (("Scale", "smoke"),), ("n",), ({"row": "a", "y": math.inf},))


COLUMNS = (
    Column("row", text=True),
    Column("PPL", "ours", drop=2),
    Column("BLEU", "ours", drop=1),
    Column("runs", text=True),
)


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        (None, ["row", "PPL ours", "BLEU ours", "runs"]),
        ("3", ["row", "BLEU ours", "runs"]),
        ("1", ["row", "runs"]),  # of drop 0: these stay
        ("all", ["row", "PPL ours", "BLEU ours", "runs"]),
        ("*ours", ["row", "PPL ours", "BLEU ours"]),
        ("runs, PPL*", ["row", "PPL ours", "runs"]),
    ],
)
def test_columns_are_chosen_by_number_or_title(columns, kept):
    found = tables.selected(made(*COLUMNS), columns)
    assert [column.title for column in found.columns] == kept
    assert {len(row) for row in found.rows} == {len(kept)}
    left_out = [c.title for c in COLUMNS if c.title not in kept]
    notes = ("n", f"Columns left out here: {', '.join(left_out)}.") if left_out else ("n",)
    assert found.notes == notes


def test_a_footnote_goes_with_the_columns_that_refer_to_it(capsys):
    rows = (("a [1]", "1", "2 [2]", "done [3]"), ("b", "3", "4", "done [3]"))
    notes = ("n", "[1] of the row", "[2] of the score", "[3] of the runs")
    table = dataclasses.replace(made(*COLUMNS), rows=rows, groups=("a", "b"), notes=notes)
    assert tables.selected(table, "PPL*").notes[:-1] == ("n", "[1] of the row")
    assert tables.selected(table, "BLEU*,runs").notes[:-1] == notes
    tables.print_table(table, rich.console.Console(width=22))  # what all rows say of their runs is said once
    printed = capsys.readouterr().out
    assert "runs (of every row): done [3]." in " ".join(printed.split())
    assert [note in printed for note in notes[1:]] == [True, "BLEU" in printed.partition("Left out")[0], True]


def test_a_title_that_no_column_has_is_refused():
    with pytest.raises(UserError, match=r"--columns=BLUE\* is none of: row, PPL ours, BLEU ours, runs"):
        tables.selected(made(*COLUMNS), "BLUE*")


def test_json_has_what_csv_has_and_is_json():
    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(tables.to_json(made(*COLUMNS)), parse_constant=refuse)
    wanted = {"title": "t", "caption": {"Scale": "smoke"}, "notes": ["n"], "rows": [{"row": "a", "y": "inf"}]}
    assert found == wanted


def test_a_head_of_latex_spans_the_columns_that_share_it():
    columns = (Column("row"), Column("PPL", "paper"), Column("PPL", "ours"), Column("runs"))
    tex = tables.to_latex(made(*columns)).splitlines()
    top = tex.index(r"\toprule")
    assert tex[top + 1 : top + 5] == [
        r"{}row & \multicolumn{2}{c}{PPL} & runs \\",
        r"\cmidrule(lr){2-3}",
        r"{} & paper & ours &  \\",
        r"\midrule",
    ]
    plain = tables.to_latex(made(Column("row"), Column("a"), Column("b"), Column("c"))).splitlines()
    assert plain[plain.index(r"\toprule") + 2] == r"\midrule"


@pytest.fixture
def some(tmp_path):
    """Rows of a sweep, two seeds each; one of them differs from base by more than the seeds do."""
    for name, ppl in {"base": 5.0, "A/h=1": 5.3, "C/d_model=1024": 5.0, "big": 5.0}.items():
        for seed in (1, 2):
            put(tmp_path, f"table3/{name}@smoke", seed, ppl=ppl + 0.01 * seed, bleu=30.0 + seed, exact=0.5)
    return tmp_path


def printed(table, width, log):
    with log.open("w") as file:
        console = rich.console.Console(width=width, record=True, file=file)
        tables.print_table(table, console)
    return console.export_text()


def test_eighty_columns_tell_what_is_inside_the_noise_a_line_a_row(some, tmp_path):
    (found,) = reading.read([some], only=["base", "A/h=1", "C/d_model=1024", "big"])
    text = printed(main_table.build(found), 80, tmp_path / "log")
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip().startswith("base"))
    rows = {line.split()[0]: line for line in lines[first : first + 4]}
    assert list(rows) == ["base", "A/h=1", "C/d_model=1024", "big"]
    assert " +0.30 " in rows["A/h=1"]
    assert " (+0.00) " in rows["C/d_model=1024"]
    assert "runs (of every row): 2 done." in text


def test_what_a_report_writes_has_nine_columns_in_markdown_and_all_elsewhere(some, capsys):
    assert command.main(["report", str(some)]) == 0
    folder = some / "table3@smoke"
    for file in folder.glob("*.md"):
        head = next(line for line in file.read_text().splitlines() if line.startswith("|"))
        assert 2 < head.count("|") - 1 <= 9, file
    markdown = (folder / "table.md").read_text()
    assert "Columns left out here: N, d_model" in markdown
    with (folder / "table.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    told = json.loads((folder / "table.json").read_text())
    ppls = [float(record["ppl"]) if record["ppl"] else None for record in records]
    assert [row["ppl"] for row in told["rows"]] == ppls
    assert r"d_{\mathrm{model}}" in (folder / "table.tex").read_text()
    assert (folder / "agreement.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert command.main(["report", str(some), "--columns=N,d_*,PPL ours"]) == 0
    head = next(line for line in (folder / "table.md").read_text().splitlines() if line.startswith("|"))
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["row", "N", "d_model", "d_ff", "d_k", "d_v", "PPL ours"]
    assert "BLEU" not in capsys.readouterr().out.partition("Scale:")[0]

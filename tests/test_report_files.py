"""`python -m experiments report`: what it reads, prints and writes."""

import csv
import math
import pathlib
import re

import pytest
import rich.console
from fabricated import cells, fail, put, table_of

from experiments import __main__ as command
from experiments import registry
from experiments.report import agreement_figure, pictures, reading, tables
from experiments.report.main_table import build
from launch import local
from tx.errors import UserError


def columns_of(row):
    """How many columns a row of LaTeX fills."""
    spans = map(int, re.findall(r"\\multicolumn\{(\d+)\}", row))
    return 1 + len(re.findall(r"(?<!\\)&", row)) + sum(span - 1 for span in spans)


def test_files_and_escaping(tmp_path, capsys):
    put(tmp_path, "table3/base@smoke", 1, bleu=31.0, device={"kind": "A|B_C & <D>", "count": 1})
    put(tmp_path, "table3/A/h=1@smoke", 1, bleu=30.0)
    fail(tmp_path, "E", 1, r"KeyError: `a_b|c` 100% $x^2$ #1 {d} \e *f* <g> & [h](i) ~")
    assert command.main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert r"KeyError: `a_b|c` 100% $x^2$ #1 {d} \e *f* <g> & [h](i) ~" in " ".join(printed.split())
    folder = tmp_path / "table3@smoke"
    markdown, tex = ((folder / f"table.{form}").read_text() for form in ("md", "tex"))
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == 22
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert r"KeyError: \`a_b\|c\` 100% \$x^2\$ #1 {d} \\e \*f\* \<g\> &amp; [h\](i) \~" in markdown
    assert r"A\|B_C &amp; \<D\>" in markdown
    escaped = (
        r"KeyError: `a\_b\textbar{}c` 100\% \$x\textasciicircum{}2\$ \#1 \{d\} \textbackslash{}e *f* "
        r"\textless{}g\textgreater{} \& [h](i) \textasciitilde{}"
    )
    assert escaped in tex
    body = tex[tex.index(r"\toprule") : tex.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 22
    assert len({columns_of(row) for row in rows}) == 1
    assert body.count(r"\midrule") == 7  # base, A to E, big
    assert "$-$1.0" in tex
    assert r"\caption{table3@smoke: Table 3 of ``Attention Is All You Need'':" in tex
    assert tex.count("{") - tex.count(r"\{") == tex.count("}") - tex.count(r"\}")
    with (folder / "table.csv").open(newline="") as file:
        records = {record["row"]: record for record in csv.DictReader(file)}
    assert (records["base"]["bleu"], records["base"]["bleu_sd"], records["base"]["ppl_paper"]) == (
        "31.0",
        "",
        "4.92",
    )
    assert records["E"]["runs"] == "failed [1]"  # big's note is the second


def test_where_it_is_written(tmp_path):
    put(tmp_path / "runs", "table3/base@smoke", 1)
    put(tmp_path / "runs", "table3/base@multi30k", 1)
    assert command.main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert written == [
        f"table3@{scale}/{name}.{form}"
        for scale in ("multi30k", "smoke")
        for name in ("costs", "scores", "table")
        for form in ("csv", "json", "md", "tex")
    ]
    assert not list((tmp_path / "runs").rglob("table.*"))
    command.main(["report", str(tmp_path / "runs/table3@smoke")])
    assert [p.parent.name for p in (tmp_path / "runs").rglob("table.md")] == ["table3@smoke"]


def test_two_workdirs_make_one_table(tmp_path):
    put(tmp_path / "a", "table3/base@smoke", 1, ppl=4.0)
    put(tmp_path / "b", "table3/base@smoke", 2, ppl=5.0)
    (found,) = reading.read([tmp_path / "a", tmp_path / "b", tmp_path / "a"])
    assert cells(build(found))["base"]["PPL ours"].startswith("4.50 ±")
    put(tmp_path / "b", "table3/base@smoke", 1)
    with pytest.raises(UserError, match=r"base seed 1 is in .* and in .*; leave one out"):
        reading.read([tmp_path / "a", tmp_path / "b"])


def test_wrong_folders(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        reading.read([tmp_path / "none"])
    with pytest.raises(UserError, match="holds no SWEEP@SCALE folder"):
        reading.read([tmp_path])
    (tmp_path / "tabel3@smoke").mkdir()
    with pytest.raises(UserError, match="unknown sweep 'tabel3'; the nearest is 'table3'"):
        reading.read([tmp_path])


def test_a_sweep_that_cannot_be_read_is_left_out_with_a_line(tmp_path, capsys):
    """Its --import was forgotten, for instance: the others have their tables, and the exit status tells."""
    put(tmp_path, "table3/base@smoke", 1)
    (tmp_path / "mine@smoke").mkdir()
    (tmp_path / "table3@huge").mkdir()
    line = "unknown sweep 'mine'"
    for run in (
        lambda: command.main(["report", str(tmp_path)]),
        lambda: command.main(["compare", str(tmp_path), str(tmp_path)]),
        lambda: local.main([f"--status={tmp_path}"]),
    ):
        with pytest.raises(SystemExit) as ended:
            run()
        out, err = capsys.readouterr()
        assert ended.value.code == 2
        assert "base" in out
        assert err.startswith(f"error: left out: {tmp_path / 'mine@smoke'}: {line}")
        assert re.search(r" \(and [13] more\)\n$", err)
        assert err.count("\n") == 1
    assert (tmp_path / "table3@smoke" / "table.md").exists()


@pytest.mark.parametrize("width", [80, 120, 400])
def test_a_terminal_gets_whole_cells(tmp_path, width):
    for seed in (1, 2):
        for name in registry.select("table3@smoke"):
            put(tmp_path, name, seed, ppl=5.0 + seed, bleu=30.0 + seed, exact=0.5)
    console = rich.console.Console(width=width, record=True, file=(tmp_path / "log").open("w"))
    table = table_of(tmp_path)
    tables.print_table(table, console)
    text = console.export_text()
    console.file.close()
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    line = next(line for line in text.splitlines() if line.strip().startswith("A/h=16"))
    assert "6.50 ± 0.71" in line
    assert "31.5 ± 0.71" in line
    assert ("Left out at this width" in text) == (width < 400)


README = """# x
`<!-- table: inline -->` is how it is written
<!-- table: table3@smoke -->
old
<!-- end table -->
between
<!-- table: table3@multi30k/scores -->
<!-- end table -->
after
"""


def test_a_readme_is_renewed_and_checked(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(README)
    put(tmp_path / "r", "table3/base@smoke", 1, ppl=5.5)
    put(tmp_path / "r", "table3/base@multi30k", 1)
    renew = ["report", str(tmp_path / "r"), "--readme", str(readme)]
    assert command.main([*renew, "--check"]) == 1
    assert "is stale: table3@smoke, table3@multi30k/scores" in capsys.readouterr().err
    assert readme.read_text() == README
    assert command.main(renew) == 0
    text = readme.read_text()
    assert "old" not in text
    assert re.fullmatch(
        r"# x\n`<!-- table: inline -->` is.*\n"
        r"<!-- table: table3@smoke -->\n\*\*table3@smoke(.|\n)*\n<!-- end table -->\n"
        r"between\n<!-- table: table3@multi30k/scores -->\n\*\*table3@multi30k: scores(.|\n)*\n"
        r"<!-- end table -->\nafter\n",
        text,
    )
    assert command.main([*renew, "--check"]) == 0
    assert command.main(renew) == 0
    assert readme.read_text() == text
    assert not list((tmp_path / "r").rglob("table.*"))
    readme.write_text(text.replace("5.50", "5.49"))
    assert command.main([*renew, "--check"]) == 1
    assert "is stale: table3@smoke;" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: table3@smoke -->\n", "needs its <!-- end table --> line"),
        ("<!-- end table -->\n", "needs its <!-- end table --> line"),
        ("<!-- table: table3@smoke -->\n<!-- table: table3@smoke -->\n<!-- end table -->\n", "needs its"),
        ("<!-- table: table3@paper -->\n<!-- end table -->\n", "no results of table3@paper in"),
        (
            "<!-- table: table3@smoke/speed -->\n<!-- end table -->\n",
            "has no table 'speed'; there are table, agreement",
        ),
    ],
)
def test_wrong_markers(tmp_path, capsys, text, message):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    put(tmp_path, "table3/base@smoke", 1)
    with pytest.raises(SystemExit):
        command.main(["report", str(tmp_path), "--readme", str(readme)])
    assert message in capsys.readouterr().err
    assert readme.read_text() == text


def test_a_page_shows_eight_columns_with_the_notes_that_they_need(tmp_path):
    for seed in (1, 2):
        put(tmp_path, "table3/base@smoke", seed, ppl=5.0 + seed, exact=40.0)
    put(tmp_path, "table3/big@smoke", 1, ppl=4.0)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table: table3@smoke/short -->\n<!-- end table -->\n")
    assert command.main(["report", str(tmp_path), "--readme", str(readme)]) == 0
    lines = readme.read_text().splitlines()
    head = [cell.strip() for cell in next(line for line in lines if line.startswith("| row"))[1:-1].split("|")]
    assert head == ["row", "PPL paper", "PPL ours", "ΔPPL paper", "ΔPPL ours", "BLEU paper", "BLEU ours", "runs"]
    assert "| base" in readme.read_text()
    assert "6.50 ± 0.71" in readme.read_text()
    assert any(line.startswith("* ± is") for line in lines)
    assert not any("213 million" in line for line in lines)  # of a column that is not shown
    assert lines[1].endswith("Scale: smoke; corpus: numbers en-de; steps: 750 to 2,250; seeds: 1, 2.")


def test_the_picture_of_a_sweep_is_told_from_a_stale_one(tmp_path):
    for name, ppl in (("base", 5.0), ("E", 5.5), ("big", 4.0)):
        put(tmp_path, f"table3/{name}@smoke", 1, ppl=ppl)
    put(tmp_path, "table3/A/h=1@smoke", 1, ppl=math.inf)
    (found,) = reading.read([tmp_path])
    points = {point.row: (point.paper, point.ours) for point in agreement_figure.points(found)}
    assert points == {
        "E": (0.0, pytest.approx(math.log(5.5 / 5.0), abs=1e-6)),
        "big": (pytest.approx(math.log(4.33 / 4.92), abs=1e-6), pytest.approx(math.log(4.0 / 5.0), abs=1e-6)),
    }
    assert command.main(["report", str(tmp_path)]) == 0
    picture = (tmp_path / "table3@smoke" / "agreement.svg").read_text()
    assert agreement_figure.digest(found) in picture
    assert ">big<" in picture
    put(tmp_path, "table3/E@smoke", 2, ppl=5.6)
    assert agreement_figure.digest(reading.read([tmp_path])[0]) not in picture
    put(tmp_path / "other", "positions/rotary@smoke", 1)
    assert command.main(["report", str(tmp_path / "other")]) == 0
    assert not list((tmp_path / "other").rglob("*.svg"))


def test_the_name_of_a_row_is_no_formula(tmp_path, monkeypatch):
    put(tmp_path, "table3/base@smoke", 1)
    (found,) = reading.read([tmp_path])
    drawn = [agreement_figure.Point("$h_1=2$", "A", 0.1, 0.2, None, None)]
    monkeypatch.setattr(agreement_figure, "points", lambda _: drawn)
    assert ">$h_1=2$<" in pictures.svg(agreement_figure.figure(found))


@pytest.mark.parametrize("name", ["table3@multi30k", "table3@smoke"])
def test_this_projects_picture_is_fresh(name):
    folder = pathlib.Path(__file__).parent.parent / "experiments" / "results" / name
    (found,) = reading.read([folder])
    assert agreement_figure.digest(found) in (folder / "agreement.svg").read_text()


def test_a_table_that_some_sweeps_lack_is_printed_of_the_others(tmp_path, capsys):
    put(tmp_path, "table3/base@smoke", 1)
    put(tmp_path, "table3/E@smoke", 1)
    put(tmp_path, "positions/rotary@smoke", 1)
    assert command.main(["report", str(tmp_path), "--show=agreement"]) == 0
    printed = capsys.readouterr().out
    assert "table3@smoke: agreement with the paper." in printed
    assert "positions@smoke" not in printed


@pytest.mark.parametrize("page", ["README.md", "experiments/results/README.md", "experiments/results/FINDINGS.md"])
def test_this_projects_pages_are_fresh(page):
    root = pathlib.Path(__file__).parent.parent
    arguments = ["report", str(root / "experiments/results"), "--readme", str(root / page), "--check"]
    assert command.main(arguments) == 0

"""Findings in sentences: each verdict in the list that it belongs to, and nothing found of what is unfinished."""

import math
import pathlib
import re

import pytest
from fabricated import put

from experiments import readme
from experiments.report import claims_table, findings, reading, verdicts
from tx.errors import UserError

RESULTS = pathlib.Path(__file__).parent.parent / "experiments" / "results"
PAGE = RESULTS / "FINDINGS.md"
LISTS = {  # how a list begins, by (verdict's word, whether there is a reason why it is none)
    ("supported", ""): "Supported",
    ("contradicted", ""): "Not as claimed",
    ("equivalent", ""): "Not as claimed",
    ("undecided", ""): "Inside the noise",
    ("undecided", "unfinished"): "No findings",
}


def lists_of(text):
    """{first words of a list: its bullets}, and the paragraph at the end that counts what was not tested."""
    found, title = {}, None
    for line in text.splitlines():
        if line.startswith("- "):
            found[title].append(line)
        elif line:
            title = next((name for name in set(LISTS.values()) if line.startswith(name)), "rest")
            found.setdefault(title, [])
    return found


@pytest.fixture
def finished(tmp_path):
    """Rows of table3@smoke, none unfinished: three seeds each but of E, which has one."""
    perplexities = {
        "base": (5.00, 5.01, 5.02),
        "A/h=1": (5.30, 5.31, 5.32),  # worse, as in the paper
        "A/h=16": (5.30, 5.31, 5.32),  # worse, and the same in the paper
        "C/N=4": (5.00, 5.01, 5.02),  # the same, and worse in the paper
        "A/h=4": (4.98, 5.01, 5.07),  # within the noise
        "E": (5.0,),
    }
    for row, values in perplexities.items():
        for seed, ppl in enumerate(values, 1):
            put(tmp_path, f"table3/{row}@smoke", seed, ppl=ppl, bleu=30.0 + seed)
    (found,) = reading.read([tmp_path])
    return found


def test_each_verdict_stands_in_its_list(finished):
    lists = lists_of(findings.to_markdown(finished))

    def told(title, row):
        (line,) = [line for line in lists[title] if "perplexity" in line and line.startswith(f"- *{row} ")]
        return line

    difference = math.log(5.30 * 5.31 * 5.32 / (5.00 * 5.01 * 5.02)) / 3
    assert f"A/h=1 less base: {difference:+.4f} [+" in told("Supported", "A/h=1")
    assert told("Not as claimed", "A/h=16").endswith("nats, otherwise.")
    assert told("Not as claimed", "C/N=4").endswith("nats, no difference.")
    assert re.search(r"nats, to be told with (\d+|over 30) seeds\.$", told("Inside the noise", "A/h=4"))
    assert "No findings" not in lists
    text = findings.to_markdown(finished)
    assert "make fresh seeds, and give each row a rate of its own (`--tune`)" in text
    last = text.splitlines()[-1]  # of 38 claims, two are of each of four rows
    assert last.startswith("30 not tested: no result: A/h=32, B/d_k=16, ")
    assert last.endswith(", big; one seed: E.")


@pytest.mark.parametrize("name", sorted(path.name for path in RESULTS.iterdir() if "@" in path.name))
def test_nothing_is_found_of_what_is_unfinished(name):
    (found,) = reading.read([RESULTS / name])
    text, judged = findings.to_markdown(found), claims_table.judged(found)
    if not judged:
        assert text == ""
        return
    lists = lists_of(text)
    for one in judged:
        title = LISTS.get((one.word, one.why))
        pair = f"{one.claim.row} less {one.claim.against}: "
        places = [
            title
            for title, lines in lists.items()
            if any(f"*{one.claim.statement}*" in line and pair in line for line in lines)
        ]
        assert places == ([title] if title else [])
    late = sum(one.why == verdicts.UNFINISHED for one in judged)
    assert ("No findings" in lists) == (late > 0)


def test_the_page_tells_of_every_sweep_that_claims_are_made_of():
    shown = set(re.findall(r"<!-- table: (.*)/findings -->", PAGE.read_text()))
    wanted = {one.name for one in reading.read([RESULTS]) if claims_table.judged(one)}
    assert shown == wanted


def test_effects_at_every_scale_have_a_marker(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table: transfer@table3 -->\n<!-- end table -->\n")
    assert readme.renew_readme(page, [RESULTS / "table3@smoke"], check=True) == 1
    readme.renew_readme(page, [RESULTS / "table3@smoke"], check=False)
    assert "| C/N=2          | +0.2166 |" in page.read_text()
    page.write_text("<!-- table: transfer@table4 -->\n<!-- end table -->\n")
    with pytest.raises(UserError, match="transfer@table4: no results of such a sweep"):
        readme.renew_readme(page, [RESULTS / "table3@smoke"], check=False)

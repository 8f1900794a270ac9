"""report.html in a browser: sorted, filtered, hovered over, switched, printed, and reloaded while runs go on."""

import json
import math
import re
import threading

import browser
import pytest
import test_grid
from fabricated import put, result_of

from experiments import registry
from experiments.page import serve, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.PROGRAM is None, reason="no chromium here: apt-get install chromium"),
]
EVIL = "<img src=x onerror=document.title='taken'>"
CELLS = "[...document.querySelectorAll('#results tbody tr td:first-child')].map(one => one.textContent)"
LINES = "document.querySelectorAll('[data-chart=curves_dev] .mark-line path').length"


@pytest.fixture(scope="module")
def page():
    with browser.opened() as opened:
        yield opened


@pytest.fixture
def opened(page, tmp_path):
    """A tab, without what others have left in it, with the page of a small sweep."""
    fill(tmp_path)
    (path,) = write.pages([tmp_path])
    page.requests.clear()
    page.complaints.clear()
    page.screen(1280, 900)
    page.do("Page.navigate", url="about:blank")
    page.open(path.as_uri())
    yield page
    assert page.requests == []
    assert page.complaints == []


def fill(workdir):
    """Writes a sweep of two seeds with curves, heads, translations and a row whose name is HTML."""
    for place, name in enumerate(("base", "A/h=1", "A/h=4", "C/N=2")):
        for seed in (1, 2):
            one = put(workdir, f"table3/{name}@smoke", seed, 5.0 + place + seed / 9, 30.0 - place - seed / 9)
            enrich(one)
    folder = workdir / "table3@smoke" / EVIL / "seed1"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result_of(registry.get_config("table3/base@smoke").to_dict(), 9.0)))
    enrich(folder)


def enrich(run):
    result = json.loads((run / "result.json").read_text())
    lines = [{"step": step, "loss": 9.0, "nll": 9 / step**0.5} for step in range(10, 400, 10)]
    result["curve"] = lines + [{"step": s, "dev_nll": 9 / s**0.5, "dev_ppl": 1.0} for s in range(50, 400, 50)]
    result["attention"] = [
        {"stack": stack, "layer": layer, "kind": "self", "head": head, "entropy": head / 3}
        | {"distance": layer + head, "variance": 1.0, "loss_without": 2.0}
        for stack in ("encoder", "decoder")
        for layer in (0, 1)
        for head in range(4)
    ]
    result["tests"]["test"]["stats"] = [[4, 4, 4, 3, 2, 1, 4, 3, 2, 1]] * 9
    (run / "result.json").write_text(json.dumps(result))
    (run / "translations.test.txt").write_text(f"{EVIL} &amp; eins\n" * 9)


def test_it_draws_everything_and_asks_for_nothing(opened):
    drawn = opened.run(
        "[...document.querySelectorAll('[data-chart]')].map(e => [e.dataset.chart, !!e.querySelector('svg')])"
    )
    assert dict(drawn) == dict.fromkeys(["PPL", "BLEU", "curves_train", "curves_dev", "rows", "attention"], True)
    assert EVIL in opened.run(CELLS)
    assert opened.run("document.title") == "table3@smoke"
    assert opened.run("document.images.length") == 0


def test_its_policy_refuses_what_it_did_not_bring(page, tmp_path):
    fill(tmp_path)
    (path,) = write.pages([tmp_path])
    page.open(path.as_uri())
    page.complaints.clear()
    page.run(
        "{const s = document.createElement('script'); s.textContent = 'window.taken = 1'; document.body.append(s)}"
    )
    page.run("{const i = document.createElement('img'); i.src = 'http://127.0.0.1:1/x'; document.body.append(i)}")
    page.until("true")
    assert page.run("window.taken") is None
    said = " ".join(map(str, page.complaints))
    assert "Executing inline script violates" in said
    assert "Loading the image 'http://127.0.0.1:1/x' violates" in said


def test_rows_are_sorted_by_mouse_and_by_keyboard(opened):
    column = "[...document.querySelectorAll('#results th')].find(one => one.textContent.trim() === 'BLEU ours')"
    opened.click(column)
    opened.until(f"{CELLS}[0] === 'C/N=2'")
    column_first = "document.querySelector('#results th:first-child')"
    opened.run(f"({column_first}.querySelector('[tabindex]') ?? {column_first}).focus()")
    opened.key("Enter", 13, "\r")
    opened.until(f"{CELLS}[0] !== 'C/N=2'")
    names = opened.run(CELLS)
    assert names.index("A/h=1") < names.index("A/h=4") < names.index("base") < names.index("C/N=2")


def test_rows_are_filtered_and_the_curves_follow(opened):
    opened.run("document.querySelector('input[type=search]').focus()")
    opened.type("A/h")
    opened.until(f"{CELLS}.join() === 'A/h=1,A/h=4,A/h=16,A/h=32'")
    assert opened.run(LINES) == 5
    opened.click("document.querySelector('[data-show=table]')")
    opened.until(f"{LINES} === 2")


@pytest.mark.parametrize("text", ["row-", "tabindex", "noise"])
def test_what_cells_are_made_of_is_no_text_of_theirs(opened, text):
    opened.run("document.querySelector('input[type=search]').focus()")
    opened.type(text)
    opened.until("document.querySelector('#results tbody').textContent === 'No matching records found'")


def test_claims_are_filtered_by_verdict_and_by_what_they_say(opened):
    lines = "[...document.querySelectorAll('#claims-table tbody tr')].filter(one => one.querySelector('.verdict'))"
    every = opened.run(f"{lines}.length")
    words = opened.run("[...document.querySelectorAll('[data-filter] option')].map(one => one.value)")
    counts = []
    for word in words[1:]:
        opened.run("document.querySelector('[data-filter]').focus()")
        opened.run(
            f"{{const s = document.querySelector('[data-filter]'); s.value = '{word}';"
            "s.dispatchEvent(new Event('change'))}"
        )
        opened.until(
            f"{lines}.length && {lines}.every(one => one.querySelector('.verdict').textContent.startsWith('{word}'))"
        )
        counts.append(opened.run(f"{lines}.length"))
    assert len(counts) > 1
    assert sum(counts) == every == 38
    opened.run(
        "{const s = document.querySelector('[data-filter]'); s.value = ''; s.dispatchEvent(new Event('change'))}"
    )
    opened.run("document.querySelector('#claims input[type=search]').focus()")
    opened.type('"A/h=1 has"')  # in quotes, since words are looked for apart
    opened.until(f"{lines}.length === 2")
    assert opened.run(f"{CELLS}.length") == 21  # the other table stays whole


def test_runs_are_listed_by_their_state(opened):
    shown = "[...document.querySelectorAll('tr[data-state]')].filter(one => one.offsetHeight)"
    lines = f"{shown}.map(one => one.dataset.state)"
    every = opened.run(lines)
    opened.run("document.querySelector('[data-list]').focus()")
    opened.key("d", 68, "d")  # as one types into a choice
    opened.until(f"{lines}.length === {every.count('done')}")
    assert set(opened.run(lines)) == {"done"} < set(every)
    assert opened.run("[...document.querySelectorAll('.runs tbody')].filter(one => one.offsetHeight).length") == 5
    opened.run("location.hash = '#row-3'")  # of A/h=16, which has none
    opened.until(f"{lines}.length === {len(every)}")


def test_a_grid_is_pivoted(page, tmp_path):
    test_grid.two_axes(tmp_path)
    (path,) = write.pages([tmp_path])
    page.complaints.clear()
    page.open(path.as_uri())
    assert page.run("document.querySelectorAll('[data-chart^=grid] svg.marks').length") == 2
    tables = "[...document.querySelectorAll('[data-pivoted]')]"
    shown = f"{tables}.filter(one => one.offsetHeight).map(one => one.dataset.pivoted).join()"
    assert page.run(shown) == "P_drop"
    page.run("document.querySelector('[data-pivot]').focus()")
    page.key("ArrowDown", 40)
    page.until(f"{shown} === 'N'")
    assert page.complaints == []


def test_the_curves_of_the_points_that_a_table_shows(page, tmp_path):
    test_grid.two_axes(tmp_path)
    for path in tmp_path.glob("**/result.json"):
        curve = [{"step": step, "dev_nll": 2.0, "dev_ppl": 7.4} for step in (300, 750)]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"curve": curve}))
    (path,) = write.pages([tmp_path])
    page.open(path.as_uri())
    checked = "document.querySelectorAll('input[name=shown]:checked').length"
    page.click("document.querySelector('[data-show=none]')")
    page.until(f"{checked} === 0")
    page.click("document.querySelector('[data-show=table]')")
    page.until(f"{checked} === 6")  # every point
    assert page.run("document.querySelectorAll('input[name=shown]').length") == 6


def test_rows_are_switched_by_keyboard(opened):
    assert opened.run(LINES) == 5
    opened.run("document.querySelector('input[name=shown]').focus()")
    opened.key(" ", 32, " ")
    opened.until(f"{LINES} === 4")
    opened.click("document.querySelector('[data-show=none]')")
    opened.until(f"{LINES} === 0")
    opened.click("document.querySelector('[data-show=all]')")
    opened.until(f"{LINES} === 5")


@pytest.mark.parametrize("axis", ["step", "tokens", "flops", "hours"])
def test_curves_go_by(opened, axis):
    end = (
        "[...document.querySelectorAll('[data-chart=curves_dev] .role-axis-label text')].map(t => t.textContent).join()"
    )
    before = opened.run(end)
    opened.run(
        f"{{const s = document.querySelector('[data-parameter=axis]'); s.value = '{axis}';"
        "s.dispatchEvent(new Event('change'))}"
    )
    assert opened.until(f"({end} !== {json.dumps(before)}) === {json.dumps(axis != 'step')}")
    assert opened.run(LINES) == 5


def test_a_point_says_what_it_is(opened):
    opened.hover("document.querySelector('[data-chart=BLEU] .mark-symbol path')")
    opened.until("document.querySelector('#vg-tooltip-element.visible')?.textContent.includes('A/h=1')")


def test_a_number_leads_to_its_runs(opened):
    opened.click("document.querySelector('#results tbody tr:nth-child(2) td.number a')")
    opened.until("location.hash === '#row-1'")
    listed = opened.run("document.querySelector('tbody:target').textContent")
    assert re.search(r"A/h=1.*done", listed, re.DOTALL)
    assert opened.run("document.querySelector('tbody:target a').href").endswith("/A/h=1/seed1/result.json")


def test_it_has_no_width_beyond_a_phone_s_and_prints_in_black(opened):
    opened.screen(390, 844, mobile=True)
    opened.until("document.documentElement.scrollWidth <= 390")
    opened.screen(1280, 900, dark=True)
    colours = opened.run("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    assert [sum(map(int, re.findall(r"\d+", one)[:3])) > 384 for one in colours] == [True, False]
    cell = opened.run("getComputedStyle(document.querySelector('#results td a')).color")
    assert sum(map(int, re.findall(r"\d+", cell)[:3])) > 384
    opened.screen(1280, 900, media="print")
    assert opened.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert opened.run("getComputedStyle(document.querySelector('.bar rect')).fill") == "rgb(0, 0, 0)"
    assert opened.pdf().startswith(b"%PDF")
    opened.screen(710, 1000, media="print")  # the width of A4 within its margins
    opened.run("new Promise(requestAnimationFrame)")
    ends = "[...document.querySelectorAll('table, .chart svg')].map(one => one.getBoundingClientRect().right)"
    assert max(opened.run(ends)) <= 711


def test_a_served_page_follows_its_runs_and_keeps_what_was_chosen(page, tmp_path):
    fill(tmp_path)
    page.requests.clear()
    page.complaints.clear()
    page.screen(1280, 900)
    with serve.server([tmp_path], 0) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            page.open(f"http://127.0.0.1:{serving.server_port}/table3@smoke/report.html")
            assert page.run("document.querySelector('a[href*=result]').href").endswith(
                "/table3@smoke/0/base/seed1/result.json"
            )
            page.click("document.querySelector('input[name=shown]')")
            page.until(f"{LINES} === 4")
            page.run("document.activeElement.blur()")
            page.until("performance.getEntriesByType('resource').some(one => one.name.endsWith('version'))")
            enrich(put(tmp_path, "table3/E@smoke", 1))
            page.until(
                "document.body && 'ready' in document.body.dataset && !!document.querySelector('[href*=\"E/seed1\"]')"
            )
            page.until(f"{LINES} === 4")
        finally:
            page.do("Page.navigate", url="about:blank")
            serving.shutdown()
            thread.join()
    assert {one.rpartition("/")[2] for one in page.requests} == {"version"}
    assert page.complaints == []


def test_a_thousand_runs_open(page, tmp_path, record_property):
    config = registry.get_config("table3/base@smoke").to_dict()
    for place in range(334):
        for seed in (1, 2, 3):
            folder = (
                tmp_path / "table3@smoke" / (f"base+lr_factor={place / 1000:.3f}" if place else "base") / f"seed{seed}"
            )
            folder.mkdir(parents=True)
            config["train"]["seed"], config["optim"]["lr_factor"] = seed, place / 1000 if place else 0.6
            result = result_of(config, 5 + math.sin(place + seed), 30 + math.cos(place + seed))
            result["curve"] = [{"step": step, "dev_nll": 9 / step**0.5, "dev_ppl": 1.0} for step in range(10, 1000, 10)]
            (folder / "result.json").write_text(json.dumps(result))
    (path,) = write.pages([tmp_path])
    assert path.stat().st_size < 5e6
    page.complaints.clear()
    page.screen(1280, 900)
    record_property("seconds", page.open(path.as_uri()))
    assert page.run(f"{CELLS}.length") >= 334
    assert page.complaints == []

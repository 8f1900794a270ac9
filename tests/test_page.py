"""report.html: what it holds, and what it carries nothing of."""

import contextlib
import html
import html.parser
import http.client
import itertools
import json
import math
import re
import subprocess
import sys
import threading

import pytest
import test_grid
from fabricated import fail, put, result_of

from experiments import __main__ as command
from experiments import registry, tuning
from experiments.page import bundles, cells, curves, differences, labels, pictures, sentences, serve, write
from experiments.report import reading, verdicts
from experiments.report.noise import Interval
from launch import local
from tx import config
from tx.data import corpora
from tx.data.synthetic import generate

EVIL = "<img src=x onerror=alert(1)></script><b>"


@pytest.fixture(scope="module", autouse=True)
def _no_bundling():
    """Scripts of others that take seconds to put together, and which only a browser needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundles, "vega", lambda: "window.vegaEmbed = undefined;")
        yield


class Elements(html.parser.HTMLParser):
    """Elements of a page, as (tag, attributes), and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.scripts, self._inside = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self._inside = None

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def page_of(folder, **options):
    (path,) = write.pages([folder], **options)
    return path, path.read_text()


def data_of(text):
    """What the page's pictures draw."""
    return json.loads(next(one for one in Elements(text).scripts if one.startswith('{"charts"')))["data"]


def test_the_command_writes_and_names_it(tmp_path, capsys):
    put(tmp_path, "table3/base@smoke", 1)
    put(tmp_path, "table3/A/h=1@smoke", 1, bleu=20.0)
    assert command.main(["report", str(tmp_path), "--html"]) == 0
    path = tmp_path / "table3@smoke" / "report.html"
    assert capsys.readouterr().out.endswith(f"Page: {path}\n")
    elements = Elements(path.read_text())
    results_table = [one for one in elements.of("td") if "data-order" in one]
    assert {"A/h=1", "20.0", "-10.0"} <= {one["data-order"] for one in results_table}
    assert "./A/h=1/seed1/result.json" in [one.get("href") for one in elements.of("a")]
    ids = {one["id"] for _, one in elements.found if "id" in one}
    assert {one["href"][1:] for one in elements.of("a") if one["href"].startswith("#")} <= ids


def test_it_asks_for_nothing(tmp_path):
    put(tmp_path, "table3/base@smoke", 1)
    _, text = page_of(tmp_path)
    elements = Elements(text)
    loaded = [one for _, one in elements.found if "src" in one or one.get("rel") or "srcset" in one]
    assert loaded == []
    (policy,) = (one["content"] for one in elements.of("meta") if one.get("http-equiv"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "connect-src" not in policy


def test_names_with_html_in_them_are_text(tmp_path):
    put(tmp_path, "table3/base@smoke", 1, device={"kind": EVIL, "count": 1})
    fail(tmp_path, "E", 1, f"KeyError: {EVIL}")
    folder = tmp_path / "table3@smoke" / EVIL.replace("/", "") / "seed1"
    folder.mkdir(parents=True)
    config = registry.get_config("table3/base@smoke").to_dict()
    curve = [{"step": 5, "nll": 2.0, "loss": 2.0}, {"step": 5, "dev_nll": 2.0, "dev_ppl": 7.4}]
    (folder / "result.json").write_text(json.dumps(result_of(config) | {"curve": curve}))
    _, text = page_of(tmp_path)
    elements = Elements(text)
    assert elements.of("img") == []
    assert elements.of("b") == []
    assert len(elements.of("script")) == 4
    assert data_of(text)["curves_dev"][0]["row"] == EVIL.replace("/", "")


def test_a_page_of_some_rows_does_not_take_the_place_of_the_whole(tmp_path, capsys):
    put(tmp_path, "table3/base@smoke", 1)
    with pytest.raises(SystemExit) as ended:
        command.main(["report", str(tmp_path), "--html", "--only=base"])
    assert ended.value.code == 2
    assert "--out" in capsys.readouterr().err
    assert command.main(["report", str(tmp_path), "--html", "--only=base", f"--out={tmp_path / 'o'}"]) == 0
    assert (tmp_path / "o" / "table3@smoke" / "report.html").exists()


def test_a_launch_names_it_and_outlives_its_failure(tmp_path, capsys, monkeypatch):
    put(tmp_path, "table3/base@smoke", 1)
    local.report([tmp_path / "table3@smoke"])
    assert capsys.readouterr().out.splitlines()[-1] == f"Page: {tmp_path / 'table3@smoke' / 'report.html'}"

    def broken():
        raise ValueError("no\nscripts")

    monkeypatch.setattr(bundles, "vega", broken)
    local.report([tmp_path / "table3@smoke"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("note: no page: ValueError: no")


def cells_of(text, table, column):
    """The text of the cells of one column of a table of the page."""
    one = text[text.index(f'<table id="{table}"') :]
    rows = re.findall(r"<tr>(.*?)</tr>", one[: one.index("</table>")], re.DOTALL)
    heads = re.findall(r"<th[^>]*>(.*?)</th>", rows[0])
    lines = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows[1:]]
    return [html.unescape(re.sub(r"<svg.*?</svg>|<[^>]*>", "", line[heads.index(column)])) for line in lines]


def test_it_has_every_claim_with_its_verdict(tmp_path):
    for seed in (1, 2, 3):
        put(tmp_path, "table3/base@smoke", seed, ppl=5 + seed / 1000, bleu=30 + seed / 100)
        put(tmp_path, "table3/A/h=1@smoke", seed, ppl=6 + seed / 1000, bleu=31 + seed / 100)
    _, text = page_of(tmp_path)
    (found,) = reading.read([tmp_path])
    judged = verdicts.judge(found)
    told = dict(zip(cells_of(text, "claims-table", "claim"), cells_of(text, "claims-table", "verdict"), strict=True))
    assert len(told) == len(judged) == 38
    by_row = {claim: word for claim, word in told.items() if claim.startswith("A/h=1 ")}
    assert list(by_row.values()) == ["supported", "contradicted"]  # a higher perplexity, as the paper's; a higher BLEU
    assert all(claim.endswith("Table 3") for claim in told)
    assert cells_of(text, "claims-table", "row")[:2] == ["A/h=1 > base", "A/h=1 < base"]
    assert cells_of(text, "claims-table", "seeds")[0] == "3, 3"
    assert [one["value"] for one in Elements(text).of("option")][:4] == ["", "supported", "contradicted", "undecided"]
    assert "38 claims: 1 supported, 1 contradicted, 36 undecided." in text


def test_a_sweep_without_claims_to_judge_has_no_table_of_them(tmp_path):
    put(tmp_path, "table3/base@smoke", 1)
    assert "claims-table" not in [one.get("id") for one in Elements(page_of(tmp_path)[1]).of("table")]


def test_a_grid_of_one_field_is_a_curve_with_its_best_point(tmp_path):
    test_grid.one_axis(tmp_path)
    _, text = page_of(tmp_path)
    points = data_of(text)["grid 0 base: PPL"]
    assert [(one["x"], one["best"], one["close"]) for one in points] == [
        *((1, False, False), (2, False, False), (4, True, False), (8, False, True), (16, False, False))
    ]
    assert points[2]["mean"] - points[2]["low"] == pytest.approx(0.02, abs=1e-3)  # a standard deviation
    assert points[2]["from"] < 5.0 < points[2]["to"]
    assert cells_of(text, "grid-0", "h") == ["1", "2", "4", "8", "16"]
    assert 'id="grid-1"' not in text


def test_a_grid_of_two_fields_is_a_heat_map_and_a_table_either_way(tmp_path):
    test_grid.two_axes(tmp_path)
    _, text = page_of(tmp_path)
    cells = {(one["down"], one["across"]): one for one in data_of(text)["grid 0 base: PPL"]}
    assert len(cells) == 6
    assert [place for place, one in cells.items() if one["best"]] == [("4", "0.0")]
    assert cells["4", "0.0"]["value"] == pytest.approx(math.log(4.0), abs=1e-3)
    assert cells_of(text, "grid-0", "N") == ["2", "3", "4"]
    assert cells_of(text, "grid-1", "P_drop") == ["0.0", "0.1"]
    hidden = [one["data-pivoted"] for one in Elements(text).of("div") if "hidden" in one]
    assert hidden == ["N"]  # P_drop, of the fewest values, stands across till another is chosen


def test_what_became_of_the_runs_is_seen_before_the_scores(tmp_path):
    put(tmp_path, "table3/base@smoke", 1, ppl=math.inf)
    _, text = page_of(tmp_path)
    titles = re.findall(r"<th[^>]*>(.*?)</th>", text[text.index('id="results"') :])
    assert titles.index("runs") < titles.index("PPL paper")
    assert re.search(r'class="state done">done</span> <small>diverged</small>', text)


def test_what_became_of_the_runs_is_said_once_where_it_is_the_same(tmp_path):
    test_grid.one_axis(tmp_path)
    _, text = page_of(tmp_path)
    assert "<p>runs (of every row): 3 done.</p>" in text
    assert "runs" not in re.findall(r"<th[^>]*>(.*?)</th>", text[text.index('id="results"') :])[:8]


def test_what_numbers_are_sorted_by():
    texts = {"(+0.04)": "+0.04", "5.00 ± 0.10": "5.00", "300,000 [1]": "300000", "1.0e+05": "1.0e+05", "": "", "x": "x"}
    assert {text: cells.order(text) for text in texts} == texts


def test_bars_have_their_length_and_end_at_the_edge():
    drawn = cells.bar(differences.Difference(-0.5, None, Interval(-0.5, -2.0, 0.25)), 1.0)
    assert (drawn.start, drawn.width) == (cells.BAR / 4, cells.BAR / 4)
    assert (drawn.low, drawn.high) == (0, cells.BAR * 0.625 // 0.1 / 10)
    assert drawn.inside_noise
    assert not cells.bar(differences.Difference(-0.5, None, None), 1.0).inside_noise


def test_differences_are_from_base_in_log_perplexity(tmp_path):
    put(tmp_path, "table3/base@smoke", 1, ppl=4.0)
    put(tmp_path, "table3/A/h=1@smoke", 1, ppl=8.0)
    (found,) = reading.read([tmp_path])
    one = differences.of(found)["PPL"]["A/h=1"]
    assert one.ours == pytest.approx(0.6931, abs=1e-4)
    assert one.paper == pytest.approx(0.0725, abs=1e-4)  # log 5.29 - log 4.92
    assert one.interval is None


def test_rows_that_are_not_shown_are_in_no_picture_and_set_no_length_of_bars(tmp_path):
    for row, ppl in (("base", 4.0), ("A/h=1", 4.4), ("E", 400.0)):
        for seed in (1, 2):
            put(tmp_path, f"table3/{row}@smoke", seed, ppl=ppl + seed / 100)
    (whole,), (found,) = reading.read([tmp_path]), reading.read([tmp_path], ["A/h=1"])
    known = differences.of(found)
    assert [one["row"] for one in pictures.of(found, known)["PPL"].values] == ["A/h=1"]
    assert known["PPL"]["A/h=1"] == differences.of(whole)["PPL"]["A/h=1"]
    table = cells.of(found, known)
    at = [title for title, _ in table.columns].index("ΔPPL ours")
    assert table.rows[0][at].bar.width == pytest.approx(cells.BAR / 2 / 1.3, abs=0.1)


def test_curves_are_means_over_seeds_with_their_range(tmp_path):
    for seed, nll in ((1, 2.0), (2, 4.0)):
        lines = [{"step": step, "dev_nll": nll / step, "dev_ppl": 1.0} for step in (10, 20)]
        put(tmp_path, "table3/base@smoke", seed, curve=lines)
    (found,) = reading.read([tmp_path])
    (curve,) = curves.of(found, "dev")
    steps = registry.get_config("table3/base@smoke").train.steps
    assert (curve["step"], curve["mean"]) == ([10, 20], [0.3, 0.15])
    assert (curve["low"], curve["high"], curve["seeds"]) == ([0.2, 0.1], [0.4, 0.2], 2)
    assert curve["tokens"] == pytest.approx(654_321 / steps, rel=1e-3)


def test_a_run_that_goes_on_has_a_curve_from_its_log(tmp_path):
    folder = tmp_path / "table3@smoke" / "base" / "seed1"
    folder.mkdir(parents=True)
    lines = [{"step": step, "loss": 3.0, "nll": 3.0, "timing": {}} for step in (10, 20)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 30')
    _, text = page_of(tmp_path)
    assert data_of(text)["curves_train"][0]["step"] == [10, 20]
    assert re.search(r'class="number">20</td>', text)


def test_a_curve_keeps_its_ends_when_it_is_thinned():
    steps = list(range(1000))
    thin = curves.thinned(steps)
    assert (len(thin), thin[0], thin[-1]) == (curves.POINTS, 0, 999)
    assert max(b - a for a, b in itertools.pairwise(thin)) <= 18
    assert curves.thinned(steps[:60]) == steps[:60]


def test_names_do_not_lie_on_each_other():
    point = labels.Point
    assert labels.chosen([]) == []
    assert labels.chosen([point("a", 0, 0)]) == ["a"]
    some = [point("base", 0, 0.5), point("near", 0.01, 0.5), point("up", 0, 1), point("far", 1, 0.5), point("d", 0, 0)]
    assert labels.chosen(some) == ["base", "up", "d", "far"]


def test_best_and_worst_translations(tmp_path):
    lines = [f"translation {i}" for i in range(8)]
    good, bad = [4, 4, 4, 3, 2, 1, 4, 3, 2, 1], [4, 4, 0, 0, 0, 0, 4, 3, 2, 1]
    run = put(tmp_path, "table3/base@smoke", 1)
    result = json.loads((run / "result.json").read_text())
    result["tests"]["test"]["stats"] = [good if i in (2, 5) else bad for i in range(8)]
    (run / "result.json").write_text(json.dumps(result))
    (run / "translations.test.txt").write_text("\n".join(lines) + "\n")
    (found,) = reading.read([tmp_path])
    (one,) = sentences.of(found)
    assert [each.number for each in one.best] == [6, 3, 8]
    assert [each.bleu for each in one.best[:2]] == pytest.approx([100, 100])
    assert [(each.number, each.ours) for each in one.worst] == [(1, lines[0]), (2, lines[1]), (4, lines[3])]
    assert one.best[0].source == ""  # the corpus has another fingerprint than this result


@pytest.mark.parametrize("field", sorted(set(config.get_config().data) - {"corpus", "source", "target"}))
def test_sentences_of_a_result_from_before_a_field(tmp_path, field):
    """As of every field that is yet to come: a result without it was made with its default."""
    run = put(tmp_path, "table3/base@smoke", 1)
    result = json.loads((run / "result.json").read_text())
    pairs = generate.read("numbers", "en", "de")["test"]
    result["tests"]["test"]["stats"] = [[4, 4, 4, 3, 2, 1, 4, 3, 2, 1]] * len(pairs)
    c = config.get_config()
    c.data.corpus = "numbers"
    result["data"]["fingerprint"] = corpora.load(c.data).fingerprint
    del result["config"]["data"][field]
    (run / "result.json").write_text(json.dumps(result))
    (run / "translations.test.txt").write_text("x\n" * len(pairs))
    (found,) = reading.read([tmp_path])
    (one,) = sentences.of(found)
    assert [(each.source, each.reference) for each in one.worst] == pairs[:3]


def test_a_head_of_which_a_measure_is_not_finite_leaves_a_page(tmp_path):
    head = {"stack": "encoder", "layer": 0, "kind": "self", "distance": 1.0, "variance": 2.0, "loss_without": math.inf}
    heads = [head | {"head": i, "entropy": entropy} for i, entropy in enumerate((math.nan, 1.5))]
    put(tmp_path, "heads/h=1@smoke", 1, attention=heads)
    (found,) = reading.read([tmp_path])
    _, values = pictures.of(found, {})["attention"]
    assert (values[0]["entropy"], values[0]["loss_without"]) == ([None, 1.5], [None, None])
    (page,) = write.pages([tmp_path])
    assert page.stat().st_size > 0


def test_heads_are_means_over_seeds_as_in_their_table(tmp_path):
    head = {"stack": "encoder", "layer": 0, "kind": "self", "head": 0, "variance": 2.0, "loss_without": 0.1}
    for seed, entropy in ((1, 1.0), (2, 2.0)):
        put(tmp_path, "heads/h=1@smoke", seed, attention=[head | {"entropy": entropy, "distance": 2 * entropy}])
    (found,) = reading.read([tmp_path])
    ((_, values),) = [pictures.of(found, {})["attention"]]
    assert [(one["entropy"], one["distance"]) for one in values] == [([1.5], [3.0])]


def test_the_version_of_a_page_changes_when_a_run_is_killed(tmp_path):
    run = tmp_path / "table3@smoke/base/seed1"
    run.mkdir(parents=True)
    code = (
        "import pathlib, sys, time\nfrom tx.runs.lease import Lease\n"
        "with Lease(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        (found,) = reading.read([tmp_path])
        before = serve.version(found)
        assert serve.version(found) == before
        child.kill()
        child.wait()
        assert serve.version(found) != before


def test_the_version_of_a_page_changes_with_its_files(tmp_path):
    run = put(tmp_path, "table3/base@smoke", 1)
    (found,) = reading.read([tmp_path])
    before = serve.version(found)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "config.json").write_text("{}")
    assert serve.version(found) == before
    (run / "metrics.jsonl").write_text("{}\n")
    assert serve.version(found) != before


def test_addresses_hold_no_html_and_no_protocol():
    assert write.address('a"<b>&:c/d=1,x+y') == "./a%22%3Cb%3E%26%3Ac/d=1,x+y"


def test_a_tuned_sweep_has_its_sensitivity(tmp_path):
    asked = tuning.Asked("base", {}, {"optim.lr_factor": [0.3, 0.6, 1.2]}, (11,))
    losses = dict(zip(asked.points, (1.5, 1.0, 2.0), strict=True))
    for (name, point), loss in zip(asked.points.items(), losses.values(), strict=True):
        put(tmp_path, "table3/base@smoke", 1, ppl=math.exp(loss), overrides=point, folder=name)
    tuning.record(tmp_path / "table3@smoke", [(asked, losses)])
    _, text = page_of(tmp_path)
    told = data_of(text)["sensitivity optim.lr_factor"]
    assert [(one["row"], one["value"], one["chosen"]) for one in told] == [
        ("base", 0.3, False),
        ("base", 0.6, True),
        ("base", 1.2, False),
    ]
    assert [one["loss"] for one in told] == pytest.approx([1.5, 1.0, 2.0])
    assert "./base+lr_factor=0.6/seed1/result.json" in [one.get("href") for one in Elements(text).of("a")]


def test_the_server_gives_pages_and_files_to_this_machine_alone(tmp_path):
    put(tmp_path / "runs", "table3/base@smoke", 1)
    (tmp_path / "secret.txt").write_text("secret")
    with serve.server([tmp_path / "runs"], 0) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()

        def ask(path, host="localhost"):
            connection = http.client.HTTPConnection("127.0.0.1", serving.server_port, timeout=60)
            connection.request("GET", path, headers={"Host": host})
            with contextlib.closing(connection):
                answer = connection.getresponse()
                return answer.status, answer.headers.get_content_type(), answer.read().decode()

        try:
            assert "./table3@smoke/report.html" in ask("/")[2]
            status, kind, page = ask("/table3@smoke/report.html")
            assert (status, kind) == (200, "text/html")
            assert "connect-src 'self'" in html.unescape(page)
            file = "/table3@smoke/0/base/seed1/result.json"
            assert f'href=".{file.removeprefix("/table3@smoke")}"' in page
            assert ask(file)[:2] == (200, "text/plain")
            for outside in (
                "/table3@smoke/0/../../secret.txt",
                "/table3@smoke/0/%2e%2e/%2e%2e/secret.txt",
                "/x",
                "/a/b",
            ):
                assert ask(outside)[0] == 404
            assert ask(file, "evil.example")[0] == 403
        finally:
            serving.shutdown()
            thread.join()


def test_a_port_that_is_taken_is_said(tmp_path, capsys):
    put(tmp_path, "table3/base@smoke", 1)
    with serve.server([tmp_path], 0) as serving, pytest.raises(SystemExit):
        command.main(["report", str(tmp_path), f"--serve={serving.server_port}"])
    assert "choose another port" in capsys.readouterr().err

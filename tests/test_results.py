"""What the committed results say of the embedded corpus, and that their scores follow from their statistics."""

import json
import pathlib
import statistics

import pytest

from experiments.report import flags
from experiments.report.reading import read
from tx.evaluation.scores import bleu_from_stats

RESULTS = pathlib.Path(__file__).parent.parent / "experiments" / "results"
SMOKE = RESULTS / "table3@smoke"


def results(variant):
    return [json.loads(path.read_text()) for path in sorted((SMOKE / variant).glob("seed*/result.json"))]


def exact_match(result):
    return result["tests"]["test"]["exact_match"]


def test_base_is_neither_solved_nor_lost():
    shares = [exact_match(result) for result in results("base")]
    assert len(shares) >= 3
    assert all(0.60 <= share <= 0.95 for share in shares), shares


@pytest.mark.parametrize(
    ("variant", "sign"),
    [("C/N=2", -1), ("C/d_model=256", -1), ("D/P_drop=0.2", -1), ("C/d_model=1024", 1), ("big", 1)],
)
def test_rows_differ_from_base_by_more_than_two_standard_deviations(variant, sign):
    """Fewer layers, a narrow model and more dropout get fewer sentences right, a wide or big model more."""
    base, other = (list(map(exact_match, results(name))) for name in ("base", variant))
    assert len(base) >= 3
    assert len(other) >= 3
    noise = max(statistics.stdev(base), statistics.stdev(other))
    assert sign * (statistics.mean(other) - statistics.mean(base)) > 2 * noise


def test_no_row_is_on_the_plateau():
    (found,) = read([SMOKE])
    assert all(len(row.results) == 3 for row in found.rows)
    assert [row.variant.name for row in found.rows if flags.on_plateau(row, found)] == []


def test_nothing_is_committed_beside_results_that_is_made_of_them():
    """Tables are generated into pages; what lies beside the runs says what they are, and no page links to a copy."""
    records = {"result.json", "error.json", "metrics.jsonl", "launch.json", "tuning.json"}
    pages = "".join(path.read_text() for path in (RESULTS.parent.parent / "README.md", *RESULTS.glob("*.md")))
    for path in RESULTS.glob("*@*/**/*"):
        if path.is_file() and path.name not in records:
            assert f"{path.parent.name}/{path.name}" in pages, path


def test_committed_scores_follow_from_their_statistics():
    paths = list(RESULTS.glob("**/result.json"))
    assert paths
    for path in paths:
        for split, scores in json.loads(path.read_text())["tests"].items():
            assert bleu_from_stats(scores["stats"]) == pytest.approx(scores["bleu"], abs=1e-9), (path, split)

"""Figure of a sweep beside the paper: each row's difference from base in log-perplexity, the paper's and ours."""

import hashlib
import io
import json
import math
from typing import NamedTuple

from experiments.report.metrics import NLL
from experiments.report.results import Results


class Point(NamedTuple):
    """Row in the picture; differences from base are of log-perplexity, in nats a subword.

    Attributes:
      row, group: its name, and what stands before the first slash of it.
      paper, ours: the differences.
      spread: the standard deviation of ours between seeds; 0 where it is not known.
    """

    row: str
    group: str
    paper: float
    ours: float
    spread: float


def points(found: Results) -> list[Point]:
    """Returns the rows that have a perplexity in the paper, and finite results here; none without those of base."""
    base = found.rows[0]
    known = [row for row in found.rows if row.variant.paper and row.variant.paper.ppl and _finite(NLL.mean(row))]
    if base not in known:
        return []
    return [
        Point(
            row.variant.name,
            row.group,
            round(math.log(row.variant.paper.ppl / base.variant.paper.ppl), 6),
            round(NLL.mean(row) - NLL.mean(base), 6),
            round(NLL.sd(row) or 0.0, 6),
        )
        for row in known
        if row is not base
    ]


def _finite(value):
    return value is not None and math.isfinite(value)


def digest(found: Results) -> str:
    """Returns a digest of the results that a picture shows; it carries it, so that a stale one can be told."""
    return hashlib.sha256(json.dumps(points(found)).encode()).hexdigest()


def draw(found: Results) -> str:
    """Draws the picture, and returns it as SVG: the same text for the same results."""
    import matplotlib
    from matplotlib.figure import Figure

    drawn, text = points(found), io.StringIO()
    rows = range(len(drawn), 0, -1)
    with matplotlib.rc_context({"svg.hashsalt": "tx", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 0.8 + 0.23 * len(drawn)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color="0.7", linewidth=0.8)
        axes.hlines(rows, 0, 1, transform=axes.get_yaxis_transform(), color="0.92", linewidth=0.8, zorder=0)
        axes.scatter([point.paper for point in drawn], rows, s=42, facecolors="none", edgecolors="C1", label="paper")
        ours, spread = [point.ours for point in drawn], [point.spread for point in drawn]
        axes.errorbar(ours, rows, xerr=spread, fmt="o", markersize=4, color="C0", elinewidth=1.2, label="ours")
        axes.set_yticks(rows, [point.row for point in drawn])
        axes.set_ylim(0.3, len(drawn) + 0.7)
        axes.set_xlabel("difference from base in log-perplexity: to the left better, to the right worse")
        axes.set_title(f"{found.name} beside the paper; bars: one standard deviation between seeds", fontsize=9)
        axes.legend(loc="lower right")
        figure.savefig(text, format="svg", metadata={"Date": None, "Description": digest(found)})
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())

"""Figure of a sweep beside the paper: each row's difference from base in log-perplexity, the paper's and ours."""

import hashlib
import json
import math
from typing import NamedTuple

from experiments.report import noise, pictures
from experiments.report.metrics import NLL
from experiments.report.noise import LEVEL
from experiments.report.results import Results


class Point(NamedTuple):
    """Row in the picture; differences from base are of log-perplexity, in nats a subword.

    Attributes:
      row, group: its name, and what stands before the first slash of it.
      paper, ours: the differences.
      low, high: the ends of our interval, simultaneous for all rows (`noise.intervals`); None where there is none.
    """

    row: str
    group: str
    paper: float
    ours: float
    low: float | None
    high: float | None


def points(found: Results) -> list[Point]:
    """Returns the rows that have a perplexity in the paper, and finite results here of base's text; none without it."""
    base = found.rows[0]
    printed = [row for row in found.rows if row.variant.paper and row.variant.paper.ppl]
    known = [row for row in printed if _finite(NLL.mean(row)) and noise.of_one_text(NLL, base, row)]
    if base not in known:
        return []
    intervals = noise.intervals(found, NLL)
    ends = {name: (round(one.low, 4), round(one.high, 4)) for name, one in intervals.items()}
    return [
        Point(
            row.variant.name,
            row.group,
            round(math.log(row.variant.paper.ppl / base.variant.paper.ppl), 6),
            round(NLL.mean(row) - NLL.mean(base), 6),
            *ends.get(row.variant.name, (None, None)),
        )
        for row in known
        if row is not base
    ]


def _told(point: Point) -> str:
    """Returns what the noise between seeds says of a row's difference from base."""
    if point.low is None:
        return "ours, noise unknown"
    return "ours, inside the noise" if point.low <= 0 <= point.high else "ours"


def _finite(value):
    return value is not None and math.isfinite(value)


def digest(found: Results) -> str:
    """Returns a digest of the results that a picture shows; it carries it, so that a stale one can be told."""
    return hashlib.sha256(json.dumps(points(found)).encode()).hexdigest()


def figure(found: Results):
    """Returns the picture as a matplotlib figure."""
    import matplotlib
    from matplotlib.figure import Figure

    drawn = points(found)
    rows = range(len(drawn), 0, -1)
    with matplotlib.rc_context(pictures.STYLE):
        drawing = Figure(figsize=(8, 0.8 + 0.23 * max(3, len(drawn))), layout="constrained")  # room for the legend
        axes = drawing.subplots()
        axes.axvline(0, color="0.7", linewidth=0.8)
        axes.hlines(rows, 0, 1, transform=axes.get_yaxis_transform(), color="0.92", linewidth=0.8, zorder=0)
        axes.scatter([point.paper for point in drawn], rows, s=42, facecolors="none", edgecolors="C1", label="paper")
        known = [(row, point) for row, point in zip(rows, drawn, strict=True) if point.low is not None]
        ends = [(point.low, point.high) for _, point in known]
        axes.hlines(
            [row for row, _ in known], *zip(*ends, strict=True) if ends else ((), ()), color="C0", linewidth=1.2
        )
        marks = {"ours": ("o", "C0"), "ours, inside the noise": ("o", "white")}
        if len(known) < len(drawn):
            marks["ours, noise unknown"] = ("x", "C0")
        for label, (marker, face) in marks.items():
            some = [(point.ours, row) for row, point in zip(rows, drawn, strict=True) if _told(point) == label]
            places = zip(*some, strict=True) if some else ((), ())
            axes.plot(*places, marker, markersize=4, color="C0", label=label, mfc=face)
        axes.set_yticks(rows, [point.row for point in drawn])
        axes.set_ylim(0.3, len(drawn) + 0.7)
        axes.set_xlabel("difference from base in log-perplexity: to the left better, to the right worse")
        axes.set_title(f"{found.name} beside the paper; bars: {LEVEL:.0%} intervals of all rows together", fontsize=9)
        axes.legend(loc="lower right")
    return drawing

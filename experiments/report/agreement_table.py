"""Table of how far a sweep agrees with the paper: in the order of its rows, and in which are better than base."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from experiments.claims import NO_DIFFERENCE, direction
from experiments.report.captions import caption
from experiments.report.metrics import BLEU, NLL, Measure, number
from experiments.report.results import Results, Row
from experiments.report.tables import Column, Table

_SCORES = {"ppl": ("PPL", NLL), "bleu": ("BLEU", BLEU)}
_APART = ("D",)  # a group whose rows change two things that have nothing to do with each other
_HOW = ("Scale", "steps", "seeds", "PPL on", "BLEU on", "code")


class Agreement(NamedTuple):
    """Agreement of some rows with the paper in one score.

    Attributes:
      tau: Kendall's tau-b; None where either side has no order.
      same: the rows that differ from base in the paper's direction.
      told: those of which the paper tells a direction, and we have results.
    """

    tau: float | None
    same: int
    told: int


def build(found: Results) -> Table:
    """Makes the table: a line for all rows that the paper has numbers of, and for each group of them with base.

    It has no rows where the paper has no numbers of base, or where fewer than two such rows have results.
    """
    groups = _groups(found)
    measured = {key for key, (_, measure) in _SCORES.items() if any(map(measure.values, groups.get("all", ())))}
    shown = {key: score for key, score in _SCORES.items() if key in measured}
    records = []
    for name, rows in groups.items():
        compared = sum(1 for row in rows if row.results)
        record = {"rows": name, "compared": compared, "left_out": len(rows) - compared}
        for key, (_, measure) in shown.items():
            agreed = agree(rows, key, measure)
            record |= {f"{key}_tau_b": agreed.tau, f"{key}_same": agreed.same, f"{key}_told": agreed.told}
        records.append(record)
    return Table(
        title=f"{found.name}: agreement with the paper.",
        columns=(
            Column("rows", text=True),
            *(Column(head) for head in ("compared", "left out")),
            *(Column(head, sub) for head, _ in shown.values() for sub in ("tau-b", "same direction")),
        ),
        rows=tuple(_cells(record, shown) for record in records),
        groups=tuple(record["rows"] for record in records),
        caption=caption(found, _HOW),
        notes=(
            "tau-b: Kendall's, between our means over the seeds, of BLEU and of the logarithm of PPL, and the paper's "
            "numbers: 1 where rows stand in the paper's order, -1 in the reverse, about 0 in any; of few rows it has "
            "few values. Base is a row of every group. Left out: rows without results.",
            f"same direction: of the rows that differ from base by at least {NO_DIFFERENCE['ppl']:g} PPL or "
            f"{NO_DIFFERENCE['bleu']:g} BLEU in the paper, those that do so in the same direction here, by however "
            "little.",
        ),
        records=tuple(records),
    )


def _groups(found: Results) -> dict[str, list[Row]]:
    """Returns {name: rows, base first}: all that the paper has numbers of, then each group of several."""
    printed = [row for row in found.rows if row.variant.paper]
    if found.rows[0] not in printed or sum(bool(row.results) for row in printed) < 2:
        return {}
    base, *others = printed
    alike: dict[str, list[Row]] = {}
    for row in others:
        name = row.variant.name.partition("=")[0] if row.group in _APART else row.group
        alike.setdefault(name, [base]).append(row)
    return {"all": printed, **{name: rows for name, rows in alike.items() if len(rows) > 2}}


def agree(rows: Sequence[Row], key: str, measure: Measure) -> Agreement:
    """Compares rows, the base first, with the paper's numbers called `key` ("ppl", "bleu")."""
    base = rows[0]
    means = [(row.variant.paper, _mean(row, measure)) for row in rows]
    known = [(paper, mean) for paper, mean in means if mean is not None and getattr(paper, key) is not None]
    same = []
    if (of_base := _mean(base, measure)) is not None:
        printed = [(direction(paper, base.variant.paper, key), mean) for paper, mean in known]
        same = [sign * (mean - of_base) > 0 for sign, mean in printed if sign]
    tau = kendall([mean for _, mean in known], [getattr(paper, key) for paper, _ in known])
    return Agreement(tau, sum(same), len(same))


def _mean(row, measure):
    """Returns the mean over the seeds; a run whose perplexity is no number is worse than any other."""
    mean = measure.mean(row)
    return math.inf if mean is not None and math.isnan(mean) else mean


def kendall(ours: Sequence[float], papers: Sequence[float]) -> float | None:
    """Returns Kendall's tau-b, which allows for ties; None for fewer than two pairs, or where a side is all equal."""
    if min(len(set(ours)), len(set(papers))) < 2:
        return None
    from scipy.stats import kendalltau  # slow to import

    return float(kendalltau(ours, papers).statistic)


def _cells(record, shown):
    cells = [record["rows"], str(record["compared"]), str(record["left_out"] or "")]
    for key in shown:
        same, told = record[f"{key}_same"], record[f"{key}_told"]
        cells += [number(record[f"{key}_tau_b"], "+.2f"), f"{same} of {told}" if told else ""]
    return tuple(cells)

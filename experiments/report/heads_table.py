"""Table of what every head of a sweep's models does: how sharply and how far it looks, and the loss without it."""

import statistics

from experiments.report.captions import caption, seeds_note
from experiments.report.results import Results, Row
from experiments.report.tables import Column, Table
from tx.runs.result import Head

_FIGURES = {
    "entropy": ("entropy", ".2f"),
    "distance": ("distance", ".2f"),
    "variance": ("logit variance", ".2f"),
    "loss_without": ("loss without", "+.4f"),
}
_HOW = ("Scale", "steps", "seeds", "PPL on", "code")


def of_row(row: Row) -> list[dict[str, object]]:
    """Returns {"stack", "layer", "kind", "head"} and the figures of each head of a row, means over its seeds."""
    heads: dict[tuple, list[Head]] = {}
    for result in row.results:
        for one in result.attention or ():
            heads.setdefault((one.stack, one.layer, one.kind, one.head), []).append(one)
    return [
        {"stack": stack, "layer": layer, "kind": kind, "head": head}
        | {figure: statistics.fmean(getattr(one, figure) for one in seeds) for figure in _FIGURES}
        for (stack, layer, kind, head), seeds in heads.items()
    ]


def build(found: Results) -> Table:
    """Makes the table from the runs that were looked into (`probe.attention`): a line a head, means over the seeds."""
    records = [{"row": row.variant.name} | head for row in found.shown for head in of_row(row)]
    return Table(
        title=f"{found.name}: every head.",
        columns=(
            *(Column(name, text=True) for name in ("row", "stack")),
            Column("layer"),
            Column("kind", text=True),
            Column("head"),
            *(Column(title) for title, _ in _FIGURES.values()),
        ),
        rows=tuple(
            (
                *(str(record[name]) for name in ("row", "stack", "layer", "kind", "head")),
                *(format(record[figure], form) for figure, (_, form) in _FIGURES.items()),
            )
            for record in records
        ),
        groups=tuple(record["row"] for record in records),
        caption=caption(found, _HOW),
        notes=(
            "entropy of the weights in nats; distance in tokens between query and key under the weights; variance of a "
            "query's logits over the keys that it sees; loss without: by how many nats a token the dev loss grows if "
            "this head alone gives zeros. Means over all queries of the dev set.",
            *seeds_note(found),
        ),
        records=tuple(records),
    )

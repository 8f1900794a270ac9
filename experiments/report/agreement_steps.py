"""Table of agreement with the paper against training: how early a sweep has the paper's order, from its dev losses."""

from experiments.report import agreement, flags
from experiments.report.agreement_table import printed_rows
from experiments.report.captions import caption
from experiments.report.metrics import NLL, Measure, number
from experiments.report.noise import LEVEL
from experiments.report.results import Results
from experiments.report.tables import Column, Table

_HOW = ("Scale", "steps", "seeds", "PPL on", "code")


def build(found: Results) -> Table:
    """Makes the table, a line for each share of the training at which every run of every row was evaluated."""
    rows = printed_rows(found)
    compared = [row for row in agreement.of_base_s_text(rows, NLL) if row.results]
    records = []
    for share in _shares(compared):
        agreed = agreement.agree(rows, "ppl", Measure(lambda result, share=share: _losses(result).get(share), "", ""))
        records.append(
            {
                "share": share,
                "compared": len(compared),
                "tau_b": agreed.tau,
                "tau_seeds_low": (agreed.tau_seeds or (None,))[0],
                "tau_seeds_high": (agreed.tau_seeds or (None,))[-1],
                "same": agreed.same,
                "told": agreed.told,
                "slope": agreed.slope,
            }
        )
    return Table(
        title=f"{found.name}: agreement with the paper in perplexity, against training.",
        columns=(
            Column("of the", "training"),
            Column("rows", "compared"),
            Column("tau-b"),
            Column("tau-b", "over seeds", drop=1),
            Column("same", "direction"),
            Column("slope"),
        ),
        rows=tuple(map(_cells, records)),
        groups=("",) * len(records),
        caption=caption(found, _HOW),
        notes=(
            "Of the dev losses of the last parameters at each evaluation, which every row has at the same share of its "
            f"own training; columns as in the table of agreement, intervals at {LEVEL:.0%}.",
        ),
        records=tuple(records),
    )


def _losses(result):
    """Returns {share of the training: dev loss}."""
    return {round(step / result.train.steps, 3): loss for step, loss in flags.evaluations(result)}


def _shares(rows):
    shares = [set(_losses(result)) for row in rows for result in row.results]
    return sorted(set.intersection(*shares)) if len(rows) > 1 else []


def _cells(record):
    low, high = record["tau_seeds_low"], record["tau_seeds_high"]
    return (
        f"{record['share']:.0%}",
        str(record["compared"]),
        number(record["tau_b"], "+.2f"),
        "" if low is None else f"[{low:+.2f}, {high:+.2f}]",
        f"{record['same']} of {record['told']}" if record["told"] else "",
        number(record["slope"], "+.2f"),
    )

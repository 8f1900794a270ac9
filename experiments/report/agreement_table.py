"""Table of how far a sweep agrees with the paper: in the order of its rows, and in which are better than base."""

from experiments.claims import MARGINS, NO_DIFFERENCE
from experiments.report import agreement
from experiments.report.captions import caption
from experiments.report.metrics import BLEU, NLL, number
from experiments.report.noise import LEVEL
from experiments.report.results import Results, Row
from experiments.report.tables import Column, Table

_SCORES = {"ppl": ("PPL", NLL), "bleu": ("BLEU", BLEU)}
# Of each score: what stands under it, and how soon it goes where there is no room.
_COLUMNS = {
    "tau-b": 0,
    "over seeds": 1,  # a number without its interval says too much
    "over rows": 3,
    "same direction": 0,
    "same sign": 3,
    "slope": 2,
    "slope over seeds": 3,
}
_APART = ("D",)  # a group whose rows change two things that have nothing to do with each other
_HOW = ("Scale", "steps", "seeds", "PPL on", "BLEU on", "code")


def build(found: Results) -> Table:
    """Makes the table: a line for all rows that the paper has numbers of, and for each group of them with base.

    It has no rows where the paper has no numbers of base, or where fewer than two such rows have results.
    """
    groups = _groups(found)
    measured = {key for key, (_, measure) in _SCORES.items() if any(map(measure.values, groups.get("all", ())))}
    shown = {key: score for key, score in _SCORES.items() if key in measured}
    records = []
    for name, rows in groups.items():
        compared = sum(1 for row in agreement.of_base_s_text(rows, BLEU) if row.results)
        record = {"rows": name, "compared": compared, "left_out": len(rows) - compared}
        for key, (_, measure) in shown.items():
            record |= _record(key, agreement.agree(rows, key, measure))
        records.append(record)
    return Table(
        title=f"{found.name}: agreement with the paper.",
        columns=(
            Column("rows", text=True),
            *(Column(head) for head in ("compared", "left out")),
            *(Column(head, sub, drop=drop) for head, _ in shown.values() for sub, drop in _COLUMNS.items()),
        ),
        rows=tuple(_cells(record, shown) for record in records),
        groups=tuple(record["rows"] for record in records),
        caption=caption(found, _HOW),
        notes=(
            "tau-b: Kendall's, between our means over the seeds, of BLEU and of the logarithm of PPL, and the paper's "
            "numbers: 1 where rows stand in the paper's order, -1 in the reverse, about 0 in any; of few rows it has "
            "few values. Base is a row of every group. Left out: rows without results, or of another text.",
            f"over seeds, over rows: {LEVEL:.0%} intervals of a bootstrap that draws each row's seeds anew, or the "
            f"rows themselves, {agreement.FEW} or more.",
            f"same direction: of the rows that differ from base by at least {NO_DIFFERENCE['ppl']:g} PPL or "
            f"{NO_DIFFERENCE['bleu']:g} BLEU in the paper, those that do so in the same direction here, by however "
            "little. same sign: of all rows, those of which both say better, worse or, within "
            f"{MARGINS['ppl']:.2g} nats or {MARGINS['bleu']:g} BLEU, neither.",
            "slope: of our differences from base on the paper's, in log-perplexity and BLEU, by least squares: 1 where "
            "they are as large.",
            *_references(groups.get("all", ()), shown),
        ),
        records=tuple(records),
    )


def line(found: Results) -> str:
    """Returns how all rows agree with the paper, in one sentence; "" where the paper has no numbers of them."""
    rows = _groups(found).get("all", ())
    said = []
    for key, (head, measure) in _SCORES.items() if rows else ():
        one = agreement.agree(rows, key, measure)
        if one.tau is not None:
            known = {"seeds": one.tau_seeds, "rows": one.tau_rows}
            told = ", ".join(f"{_ends(ends)} over {what}" for what, ends in known.items() if ends)
            directions = f", {one.same} of {one.told} directions" if one.told else ""
            said.append(f"{head} tau-b {one.tau:+.2f}{f' ({told})' if told else ''}{directions}")
    references = _references(rows, _SCORES) if said else ()
    return f"Agreement with the paper: {'; '.join(said)}. {' '.join(references)}" if said else ""


def _references(rows, shown):
    """Yields what the tau-b of all rows is to be seen beside."""
    if (own := agreement.of_paper(rows)) is not None:
        yield f"The paper's own PPL and BLEU have {own:+.2f} with each other."
    noisy = []
    for key, (head, measure) in shown.items():
        if known := agreement.under_noise(rows, key, measure):
            middle, *ends = known
            noisy.append(f"{middle:+.2f} {_ends(ends)} in {head}")
    if noisy:
        yield f"The paper's numbers under our noise between seeds have {', '.join(noisy)} with themselves."


def printed_rows(found: Results) -> list[Row]:
    """Returns the rows that the paper has numbers of, base first; none without base, or fewer than two with results."""
    printed = [row for row in found.rows if row.variant.paper]
    known = found.rows[0] in printed and sum(bool(row.results) for row in printed) > 1
    return printed if known else []


def _groups(found: Results) -> dict[str, list[Row]]:
    """Returns {name: rows, base first}: all that the paper has numbers of, then each group of several."""
    printed = printed_rows(found)
    if not printed:
        return {}
    base, *others = printed
    alike: dict[str, list[Row]] = {}
    for row in others:
        name = row.variant.name.partition("=")[0] if row.group in _APART else row.group
        alike.setdefault(name, [base]).append(row)
    return {"all": printed, **{name: rows for name, rows in alike.items() if len(rows) > 2}}


def _record(key, agreed):
    """Returns the columns of a score, for CSV."""
    ends = {
        name: getattr(agreed, name) or (None, None) for name in ("tau_seeds", "tau_rows", "slope_seeds", "slope_rows")
    }
    one = {"tau_b": agreed.tau, "same": agreed.same, "told": agreed.told, "same_sign": agreed.signs}
    one |= {"compared": agreed.compared, "slope": agreed.slope}
    one |= {
        f"{name}_{end}": value for name, pair in ends.items() for end, value in zip(("low", "high"), pair, strict=True)
    }
    return {f"{key}_{name}": value for name, value in one.items()}


def _ends(pair):
    low, high = pair or (None, None)
    return "" if low is None else f"[{low:+.2f}, {high:+.2f}]"


def _cells(record, shown):
    cells = [record["rows"], str(record["compared"]), str(record["left_out"] or "")]
    for key in shown:
        one = {name: record[f"{key}_{name}"] for name in ("tau_b", "same", "told", "same_sign", "compared", "slope")}
        ends = {
            name: _ends((record[f"{key}_{name}_low"], record[f"{key}_{name}_high"]))
            for name in ("tau_seeds", "tau_rows", "slope_seeds")
        }
        cells += [number(one["tau_b"], "+.2f"), ends["tau_seeds"], ends["tau_rows"]]
        cells += [f"{one['same']} of {one['told']}" if one["told"] else ""]
        cells += [f"{one['same_sign']} of {one['compared']}" if one["compared"] else ""]
        cells += [number(one["slope"], "+.2f"), ends["slope_seeds"]]
    return tuple(cells)

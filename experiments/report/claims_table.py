"""Table of claims: what was expected of a sweep, and whether its runs support it, contradict it or leave it open."""

from collections import Counter

from experiments.claims import NO_DIFFERENCE
from experiments.report import power, tuned_table
from experiments.report.captions import caption, texts_notes
from experiments.report.metrics import number
from experiments.report.noise import LEVEL
from experiments.report.results import Results
from experiments.report.tables import Column, Table
from experiments.report.verdicts import (
    CONTRADICTED,
    EQUIVALENT,
    SUPPORTED,
    UNDECIDED,
    UNFINISHED,
    WORDS,
    Verdict,
    judge,
    measure_of,
    rows_of,
)

_HOW = ("Scale", "steps", "seeds", "PPL on", "BLEU on", "code")
_UNFINISHED = (
    f"{UNFINISHED}: a row is still descending, on the plateau or at the edge of its grid, and nothing is judged by it; "
    "so far: what the numbers would say."
)
_SEED_BY_SEED = "Rows of the same trained models are compared seed by seed: p equal is of the t of these differences."
_PRINTED = (
    f"Of a table of the source's: numbers that differ by less than {NO_DIFFERENCE['ppl']:g} PPL or "
    f"{NO_DIFFERENCE['bleu']:g} BLEU there are said to be the same."
)
_NAMES = {"ppl": "log PPL", "bleu": "BLEU"}


def build(found: Results) -> Table:
    """Makes the table, a line a claim; it has none where no claim's rows both have results."""
    verdicts, claimed = judged(found), _claimed(found)
    return Table(
        title=f"{found.name}: {tally(verdicts)}",
        columns=(
            Column("row", text=True),
            Column("is said", "to be", text=True),
            Column("in"),
            Column("difference"),
            Column("interval", f"{LEVEL:.0%}", drop=1),
            Column("margin", drop=2),
            Column("p", "equal", drop=3),
            Column("verdict", text=True),
            Column("seeds", "needed"),
            Column("source", text=True, drop=4),
            Column("claim", text=True, drop=5),
        ),
        rows=tuple(map(_cells, verdicts)),
        groups=tuple(one.claim.statement if one.claim.printed is None else "printed" for one in verdicts),
        caption=caption(claimed, _HOW),
        notes=(*_notes(verdicts), *texts_notes(claimed.done)),
        records=tuple(map(_record, verdicts)),
    )


def _claimed(found):
    """Returns results whose rows are those that claims may be judged by."""
    return tuned_table.of_rows(found, (row for named in rows_of(found).values() for row in named.values()))


def judged(found: Results) -> list[Verdict]:
    """Returns the verdicts on a sweep's claims; none where no claim's rows both have results."""
    verdicts = found.once(judge)
    done = {row.variant.name for row in _claimed(found).rows if row.results}
    return verdicts if any({one.claim.row, one.claim.against} <= done for one in verdicts) else []


def tally(verdicts: list[Verdict]) -> str:
    """Returns how many claims came out how: "38 claims: 20 supported, 18 undecided, 9 of them for unfinished rows."."""
    counts = Counter(one.word for one in verdicts)
    told = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
    late = sum(one.why == UNFINISHED for one in verdicts)
    more = f", {'all' if late == counts[UNDECIDED] else f'{late} of them'} for unfinished rows" if late else ""
    return f"{len(verdicts)} claim{'' if len(verdicts) == 1 else 's'}{': ' if told else ''}{told}{more}."


def _cells(one: Verdict) -> tuple[str, ...]:
    claim, form, difference, ends = one.claim, measure_of(one.claim).form, "", ""
    if one.interval:
        difference, ends = number(one.interval.difference, f"+z{form}"), one.interval.text(form)
    return (
        claim.row,
        f"{claim.relation} {claim.against}",
        _NAMES.get(claim.measure, claim.measure),
        difference,
        ends,
        number(claim.margin, ".2g") if claim.margin else "",
        number(one.equivalence, ".3f"),
        _verdict(one),
        number(one.seeds, "d") if one.seeds else f"over {power.MOST}" if one.word == UNDECIDED and not one.why else "",
        claim.source,
        claim.statement,
    )


def _verdict(one: Verdict) -> str:
    """Returns "supported", or "undecided: unfinished; so far supported"."""
    so_far = f"; so far {one.stands}" if one.interval and one.stands != UNDECIDED else ""
    return f"{one.word}: {one.why}{so_far}" if one.why else one.word


def _notes(verdicts: list[Verdict]) -> tuple[str, ...]:
    return (
        "difference: of the means over the seeds, the first row's less the other's; log PPL in nats a subword. Its "
        f"interval holds for all rows that are compared with that one at {LEVEL:.0%} together (Dunnett 1955), and "
        "leaves out what is not finite. p equal: of two one-sided tests that it is within the margin (Welch's t), of "
        "<= and >= one.",
        f"{SUPPORTED}: the interval leaves out zero on the side claimed, or, of =, <= and >=, p equal is below "
        f"{1 - LEVEL:.2g}. {CONTRADICTED}: it lies on the other side, of these beyond the margin. "
        f"{EQUIVALENT}: a difference was claimed, and is within the margin. {UNDECIDED}: the rest; seeds needed: of "
        f"each row, to decide it in {power.POWER:.0%} of all cases if difference and spread stay as they are.",
        *((_SEED_BY_SEED,) if any(one.paired for one in verdicts) else ()),
        *((_PRINTED,) if any(one.claim.printed is not None for one in verdicts) else ()),
        *((_UNFINISHED,) if any(one.why == UNFINISHED for one in verdicts) else ()),
        *filter(None, [_scattered(verdicts)]),
    )


def _scattered(verdicts) -> str:
    """Returns which rows share no one spread, and what that asks of a verdict; "" where all do."""
    uneven: dict[str, list[str]] = {}  # what the rows are compared with, by measure
    for measure, against in dict.fromkeys((one.claim.measure, one.claim.against) for one in verdicts if one.uneven):
        uneven.setdefault(_NAMES.get(measure, measure), []).append(against)
    if not uneven:
        return ""
    told = "; ".join(f"{', '.join(others)} in {name}" for name, others in uneven.items())
    return (
        f"Rows scatter unevenly between seeds (Bartlett's test) among those compared with {told}. There a difference "
        "counts only where it is outside the noise by the two rows' own spreads as well (Welch's t)."
    )


def _record(one: Verdict) -> dict[str, object]:
    claim, interval = one.claim, one.interval
    return {
        "row": claim.row,
        "sign": claim.sign,
        "or_equal": claim.or_equal,
        "against": claim.against,
        "measure": claim.measure,
        "statement": claim.statement,
        "source": claim.source,
        "printed": claim.printed,
        "margin": claim.margin,
        "verdict": one.word,
        "why": one.why,
        "so_far": one.stands,
        "difference": interval.difference if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "p_equivalent": one.equivalence,
        "seeds_needed": one.seeds,
        "seeds": one.used[0],
        "seeds_against": one.used[1],
    }

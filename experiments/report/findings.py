"""Findings of a sweep, in sentences: which claims its runs support and which not, and what it would take to be sure.

A claim of a row that is unfinished is no finding: what its numbers would say stands apart from what is found.
"""

from collections.abc import Iterable

from experiments.report import claims_table, power
from experiments.report.captions import texts_notes
from experiments.report.metrics import number
from experiments.report.results import Results
from experiments.report.verdicts import (
    CONTRADICTED,
    EQUIVALENT,
    SUPPORTED,
    UNDECIDED,
    UNFINISHED,
    Verdict,
    measure_of,
    unfinished,
)

_UNITS = {"ppl": "nats", "bleu": "BLEU"}  # of log-perplexity a subword, and of what is translated
_NUMBERS = {  # what the numbers say as they stand
    SUPPORTED: "as claimed",
    CONTRADICTED: "otherwise",
    EQUIVALENT: "no difference",
    UNDECIDED: "inside the noise",
}


def to_markdown(found: Results) -> str:
    """Returns how many claims came out how, then a list for each way in which claims did; "" where no row is there.

    Each verdict is in exactly one list: supported; not so, with what would make that sure; inside the noise, with the
    seeds that would decide; of unfinished rows. The last line counts those that could not be tested, and says why.
    """
    verdicts = claims_table.judged(found)
    if not verdicts:
        return ""
    decided = [one for one in verdicts if not one.why]
    late = [one for one in verdicts if one.why == UNFINISHED]
    rest = [one for one in verdicts if one.why not in ("", UNFINISHED)]
    against = [one for one in decided if one.word in (CONTRADICTED, EQUIVALENT)]
    lists = (
        ("Supported:", _bullets([one for one in decided if one.word == SUPPORTED], _difference)),
        (f"Not as claimed; to be sure of it, {_doubt(against)}:", _bullets(against, _with_outcome)),
        ("Inside the noise:", _bullets([one for one in decided if one.word == UNDECIDED], _with_seeds)),
        (f"No findings, for unfinished rows: {_unfinished(late, found)}. Longer training comes first; their numbers as "
         "they stand:", _bullets(late, _as_it_stands)),
    )  # fmt: skip
    parts = [claims_table.tally(verdicts), *texts_notes(found.done)]
    parts += ["\n".join((title, "", *bullets)) for title, bullets in lists if bullets]
    if rest:
        parts.append(f"{len(rest)} not tested: {_reasons(rest)}.")
    return "\n\n".join(parts) + "\n"


def _bullets(verdicts: Iterable[Verdict], describe) -> list[str]:
    """Returns a bullet for each claim in its own words, behind which its verdicts are described."""
    of_claim: dict[tuple[str, str], list[str]] = {}
    for one in verdicts:
        of_claim.setdefault((one.claim.statement, one.claim.source), []).append(describe(one))
    return [f"- *{said}* ({source}) {'; '.join(these)}." for (said, source), these in of_claim.items()]


def _difference(one: Verdict) -> str:
    """Returns "h=1 less base: +0.0301 [+0.0127, +0.0475] nats"."""
    form, unit = measure_of(one.claim).form, _UNITS.get(one.claim.measure, one.claim.measure)
    size = number(one.interval.difference, f"+z{form}")
    return f"{one.claim.row} less {one.claim.against}: {size} {one.interval.text(form)} {unit}"


def _with_outcome(one: Verdict) -> str:
    return f"{_difference(one)}, {_NUMBERS[one.word]}"


def _with_seeds(one: Verdict) -> str:
    return f"{_difference(one)}, to be told with {one.seeds or f'over {power.MOST}'} seeds"


def _as_it_stands(one: Verdict) -> str:
    return f"{_difference(one)}, {_NUMBERS[one.stands]}"


def _reasons(verdicts: Iterable[Verdict]) -> str:
    """Returns "no result: A/h=1, big; one seed: E"."""
    rows: dict[str, list[str]] = {}
    for one in verdicts:
        reason, _, row = one.why.partition(": ")
        if row not in rows.setdefault(reason, []):
            rows[reason].append(row)
    return "; ".join(f"{reason}: {', '.join(names)}" if any(names) else reason for reason, names in rows.items())


def _doubt(verdicts: Iterable[Verdict]) -> str:
    """Returns what would make sure of what speaks against claims: of tuned rows no more than other seeds."""
    tuned = all(one.claim.tuned for one in verdicts)
    return "make fresh seeds" if tuned else "make fresh seeds, and give each row a rate of its own (`--tune`)"


def _unfinished(verdicts: Iterable[Verdict], found: Results) -> str:
    """Returns the names of the rows that are unfinished; "all of them" where no row that was tested is finished."""
    known = found.once(unfinished)
    both = dict.fromkeys((one.claim.tuned, name) for one in verdicts for name in (one.claim.row, one.claim.against))
    late = [name for tuned, name in both if (tuned, name) in known]
    return "all of them" if len(late) == len(both) else ", ".join(late)

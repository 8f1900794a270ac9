"""Reproduction of a table: what of it does and what does not, a line for each of the paper's groups of rows."""

from collections.abc import Iterable

from experiments.report.results import Results
from experiments.report.verdicts import CONTRADICTED, EQUIVALENT, SUPPORTED, UNDECIDED, Verdict, judge, unfinished

_GROUPS = {
    "A": "Heads (A)",
    "B": "d_k (B)",
    "C": "Size (C)",
    "D": "Dropout, smoothing (D)",
    "E": "Positions (E), big",
}
_LIKE = {"big": "E"}  # on one line with it
_SCORES = {"ppl": "perplexity", "bleu": "BLEU"}
_NAMED = 3  # unfinished rows by name, more of them by their number
_OTHERWISE = {UNDECIDED: "within the noise", EQUIVALENT: "the same", CONTRADICTED: "the other way"}


def to_markdown(found: Results) -> str:
    """Returns a bullet for each group: how many rows differ as in the paper, and which do not or within noise.

    Rows of a sweep that are not named as those of Table 3 have one of their own each.

    Made of the verdicts on the claims that the paper prints: a row counts where it is told from base and its seeds give
    an interval. Where rows are unfinished, that comes first: no claim of theirs is decided.
    """
    told = [one for one in judge(found) if one.claim.printed is not None and one.claim.sign and one.interval]
    groups = dict.fromkeys((*_GROUPS, *(_group(one.claim.row) for one in told)))
    lines = [f"- {_GROUPS.get(group, group)}: {text}." for group in groups if (text := _text(group, told))]
    if not lines:
        return ""
    rows, known = {one.claim.row for one in told}, found.once(unfinished)
    both = dict.fromkeys(name for one in told for name in (one.claim.against, one.claim.row))
    late = [name for name in both if (False, name) in known]
    if late:
        which = "the rows" if rows <= set(late) else ", ".join(late) if len(late) <= _NAMED else f"{len(late)} rows"
        start = f"Undecided: {which} {'is' if which == late[0] else 'are'} unfinished. As they stand"
        return "\n".join([f"{start}, where the paper tells a row from base:", "", *lines]) + "\n"
    return "\n".join([*lines, "", "Rows that the paper does not tell from base are not counted."]) + "\n"


def _text(group: str, told: Iterable[Verdict]) -> str:
    parts = []
    for measure, name in _SCORES.items():
        rows: dict[str, list[str]] = {}
        for one in told:
            if one.claim.measure == measure and _group(one.claim.row) == group:
                rows.setdefault(one.stands, []).append(one.claim.row.rpartition("/")[2])
        if rows:
            text = f"in {name} {len(rows.get(SUPPORTED, ()))} of {sum(map(len, rows.values()))} as in the paper"
            parts.append(
                text + "".join(f", {how} {', '.join(rows[word])}" for word, how in _OTHERWISE.items() if word in rows)
            )
    return "; ".join(parts)


def _group(row):
    group = row.partition("/")[0]
    return _LIKE.get(group, group)

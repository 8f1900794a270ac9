"""Verdicts on claims: what the runs of a sweep say of each expectation that experiments/claims.py has of it."""

import statistics
from typing import NamedTuple

from experiments import claims
from experiments.claims import Claim
from experiments.report import flags, noise, power, tuned_table
from experiments.report.metrics import BLEU, NAMED, NLL, Measure, is_diverged
from experiments.report.noise import LEVEL, Comparison, Interval
from experiments.report.results import Results, Row

SUPPORTED, CONTRADICTED, EQUIVALENT, UNDECIDED = "supported", "contradicted", "equivalent", "undecided"
UNFINISHED, NO_SPREAD, UNTUNED, APART = "unfinished", "no spread between seeds", "not tuned", "seeds too far apart"
WORDS = (SUPPORTED, CONTRADICTED, EQUIVALENT, UNDECIDED)
_RATE = "optim.lr_factor"  # what a claim of tuned rows means to be tuned


class Verdict(NamedTuple):
    """Verdict on a claim.

    Attributes:
      claim: what was claimed.
      word: one of WORDS.
      why: where undecided, why: "unfinished" and so on; "" where the noise could make it either way.
      stands: one of WORDS: what the numbers say as they stand, of finished rows or not.
      interval: of the row's mean less the other's; None where there is none.
      equivalence: p of the two one-sided tests that the difference is within the claim's margin, of a claim that allows
        one side of the test to the other; None where not tested.
      seeds: that each row would need to decide it; None where over power.MOST, or nothing tells.
      used: seeds of the row and of the other that the interval is of.
      uneven: the spreads of the rows compared with the other, where they share none (`Comparison.uneven`).
      paired: whether the two are of the same trainings, and compared seed by seed.
    """

    claim: Claim
    word: str
    why: str
    stands: str
    interval: Interval | None = None
    equivalence: float | None = None
    seeds: int | None = None
    used: tuple[int, int] = (0, 0)
    uneven: tuple[float, float] | None = None
    paired: bool = False


def measure_of(claim: Claim) -> Measure:
    """Returns the measure that a claim is about; log-perplexity for "ppl"."""
    return {"ppl": NLL, "bleu": BLEU}.get(claim.measure) or NAMED[claim.measure]


def judge(found: Results) -> list[Verdict]:
    """Returns the verdict on each claim about a sweep at its scale, in their order.

    Rows are tested together with all others that claims compare with the same row in the same measure; with base, as
    in the table, all rows are. A claim that is meant of tuned rows is judged by these alone. A claim of a row whose
    runs are unfinished (`flags.unfinished`) is undecided.
    """
    said = claims.of_sweep(found.sweep.name, found.scale.name)
    rows = rows_of(found)
    late = found.once(unfinished)
    families: dict[tuple[bool, str, str], Comparison] = {}
    return [_judge(one, rows[one.tuned], _family(one, said, rows, families, found), late) for one in said]


def unfinished(found: Results) -> set[tuple[bool, str]]:
    """Returns (whether tuned, name) of the rows of claims whose runs are unfinished, each beside those of its kind."""
    said, rows = claims.of_sweep(found.sweep.name, found.scale.name), rows_of(found)
    beside = {False: found, True: tuned_table.of_rows(found, rows[True].values())}
    named = {(claim.tuned, name) for claim in said for name in (claim.row, claim.against)}
    done = {(tuned, name) for tuned, name in named if name in rows[tuned] and rows[tuned][name].results}
    return {(tuned, name) for tuned, name in done if flags.unfinished(rows[tuned][name], found, beside[tuned])}


def rows_of(found: Results) -> dict[bool, dict[str, Row]]:
    """Returns {whether tuned: {name: row}} of the rows that claims about a sweep may be judged by."""
    said = claims.of_sweep(found.sweep.name, found.scale.name)
    read = tuned_table.read(found) if any(claim.tuned for claim in said) else ()
    tuned = {one.asked.row: one.fresh for one in read if set(one.asked.grid) == {_RATE}}
    return {False: {row.variant.name: row for row in found.rows}, True: tuned}


def _family(claim, said, rows, families, found) -> Comparison | None:
    """Returns the comparison that a claim is judged in, made once; None where the rows are not there."""
    key, rows = (claim.tuned, claim.against, claim.measure), rows[claim.tuned]
    if not {claim.row, claim.against} <= rows.keys():
        return None
    if key not in families:
        base = claim.against == found.rows[0].variant.name
        claimed = [one.row for one in said if (one.tuned, one.against, one.measure) == key and one.row in rows]
        others = [name for name in rows if name != claim.against] if base else list(dict.fromkeys(claimed))
        named = {name: rows[name] for name in others}
        families[key] = noise.compare_named(rows[claim.against], named, measure_of(claim))
    return families[key]


def _judge(claim, rows, family, late) -> Verdict:
    if family is None:
        return Verdict(claim, UNDECIDED, UNTUNED, UNDECIDED)
    measure, pair = measure_of(claim), (rows[claim.row], rows[claim.against])
    values = [noise.comparable(row, measure) for row in pair]
    used = tuple(map(len, values))
    interval = family.intervals.get(claim.row)
    if interval is None:
        return Verdict(claim, UNDECIDED, _untested(pair, measure, values, 1), UNDECIDED, used=used)
    side, paired = claim.sign if claim.or_equal else 0, noise.paired(measure, *pair)
    equivalence = noise.equivalence(values[1], values[0], claim.margin, side, paired)
    apart = _apart(pair, values, interval, family, paired)
    stands = _word(claim, interval, equivalence, 0 if apart else interval.sign)
    known = {"stands": stands, "interval": interval, "equivalence": equivalence, "used": used, "uneven": family.uneven}
    known["paired"] = paired
    if late & {(claim.tuned, claim.row), (claim.tuned, claim.against)}:
        return Verdict(claim, UNDECIDED, UNFINISHED, **known)
    if stands == UNDECIDED and apart and _word(claim, interval, equivalence, interval.sign) != UNDECIDED:
        return Verdict(claim, UNDECIDED, apart, **known)
    if stands == UNDECIDED and claim.allows_equality and equivalence is None:  # only that they differ could be seen
        return Verdict(claim, UNDECIDED, _untested(pair, measure, values, 2), **known)
    needed = _seeds(claim, interval, family) if stands == UNDECIDED else None
    return Verdict(claim, stands, "", seeds=needed, **known)


def _apart(pair, values, interval, family, paired) -> str:
    """Returns why a difference is not told though its interval tells it; "" where it is, or the interval does not.

    Where rows share no one spread it has to be told by the spreads of the two as well (`noise.of_pair`).
    """
    if not (family.uneven and interval.sign):
        return ""
    if min(map(len, values)) < 2:
        return next(f"one seed: {row.variant.name}" for row, own in zip(pair, values, strict=True) if len(own) < 2)
    own = noise.of_pair(values[1], values[0], paired)
    if own is None or own.sign == interval.sign:
        return ""
    widest = max(zip(values, pair, strict=True), key=lambda each: statistics.stdev(each[0]))[1]
    return f"{APART}: {widest.variant.name}"


def _untested(pair, measure, values, least):
    """Returns why two rows could not be tested, of which the first needs `least` seeds, and the other two."""
    if not noise.of_one_text(measure, *pair):
        return f"of another text: {pair[0].variant.name}"
    for row, own, needed in zip(pair, values, (least, 2), strict=True):
        if len(own) < needed:
            name, done = row.variant.name, measure.values(row)
            lost = "diverged" if any(map(is_diverged, row.results)) else "no finite dev loss"
            apart = lost if len(own) < len(done) else "one seed"
            how = apart if row.results else "no result"
            return f"{how}: {name}" if done or not row.results else f"not measured: {name}"
    return NO_SPREAD


def _word(claim: Claim, interval: Interval, equivalence: float | None, sign: int) -> str:
    """Returns the verdict of finished rows, of which `sign` says how they differ: 0 where that is not told.

    Of a claim of no difference: supported where the rows are equivalent, contradicted where the whole interval lies
    beyond the margin; of one that allows a difference to one side, that side supports it. Of a claim of a difference:
    equivalent where the rows are, else by the interval's side of zero.
    """
    equal = equivalence is not None and equivalence < 1 - LEVEL
    if claim.allows_equality:
        beyond = min(abs(interval.low), abs(interval.high)) > claim.margin and sign
        as_said = equal or (sign and sign == claim.sign)
        return SUPPORTED if as_said else CONTRADICTED if beyond else UNDECIDED
    if equal:
        return EQUIVALENT
    return {claim.sign: SUPPORTED, -claim.sign: CONTRADICTED}.get(sign, UNDECIDED)


def _seeds(claim: Claim, interval: Interval, family: Comparison) -> int | None:
    """Returns how many seeds would decide a claim if the difference stays what it is."""
    rooms = [claim.margin - side * interval.difference for side in (-1, 1) if not claim.or_equal or side != claim.sign]
    as_said = claim.or_equal and interval.difference * claim.sign > 0
    beyond = abs(interval.difference) - (claim.margin if claim.allows_equality and not as_said else 0.0)
    ways = [power.seeds_to_tell(family.spread, beyond, len(family.intervals), family.sources)] if beyond > 0 else []
    ways += [power.seeds_to_equate(family.spread, *rooms)] if min(rooms) > 0 else []
    return min((seeds for seeds in ways if seeds), default=None)

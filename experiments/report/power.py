"""Power of so many seeds: which differences they tell from noise, and how many seeds would tell a given one."""

import functools
import math
import statistics
from collections.abc import Callable

from experiments.report import noise
from experiments.report.metrics import exp
from experiments.report.noise import LEVEL, SCORES
from experiments.report.results import Results

POWER = 0.8  # how often a difference of that size is told from none
MOST = 30  # seeds: of more nobody would think
LISTED = 50  # rows that a note names


def resolution(spread: float, seeds: int, comparisons: int = 1, sources: float | None = None) -> float:
    """Returns the least difference that so many seeds tell from none in POWER of all cases, at LEVEL.

    Args:
      spread: the standard deviation between seeds.
      seeds: of each row, two or more.
      comparisons: with the one other row; their intervals hold together, by Bonferroni, which asks for a little more
        than Dunnett's test does.
      sources: as how many independent rows the spread is of; None for all of them.
    """
    freedom = (comparisons + 1 if sources is None else sources) * (seeds - 1)
    return _resolved(spread, seeds, freedom, (1 - LEVEL) / (2 * comparisons))


@functools.lru_cache(maxsize=256)  # of the rows of a table all but the difference is the same
def _resolved(spread, seeds, freedom, tail):
    from scipy.special import nctdtrinc, stdtrit  # slow to import

    return float(nctdtrinc(freedom, 1 - POWER, stdtrit(freedom, 1 - tail))) * spread * math.sqrt(2 / seeds)


def seeds_to_tell(spread: float, difference: float, comparisons: int = 1, sources: float | None = None) -> int | None:
    """Returns how many seeds a row needs to tell a difference from none (see `resolution`); None for over MOST."""
    return _least(lambda seeds: resolution(spread, seeds, comparisons, sources) <= abs(difference))


def seeds_to_equate(spread: float, *rooms: float) -> int | None:
    """Returns how many seeds a row needs to show that a difference is within its margin; None for over MOST.

    Args:
      spread: the standard deviation between seeds.
      rooms: what the difference leaves of the margin, to each side that it may not exceed. To both it is shown where
        two one-sided tests pass (Schuirmann 1987); one of them fails at most as often as the two do added up.
    """
    return _least(lambda seeds: sum(_missed(spread, seeds, room) for room in rooms) <= 1 - POWER)


def _missed(spread, seeds, room):
    """Returns how often a one-sided test at LEVEL does not show what is so by that much."""
    from scipy.special import nctdtr, stdtrit  # slow to import

    freedom = 2 * (seeds - 1)
    missed = float(nctdtr(freedom, room / (spread * math.sqrt(2 / seeds)), stdtrit(freedom, LEVEL)))
    return 0.0 if math.isnan(missed) else missed  # as of a room that is many standard errors wide


def _least(enough: Callable[[int], bool]) -> int | None:
    """Returns the least number of seeds that is enough, as all greater ones are; None where MOST is not."""
    if not enough(MOST):
        return None
    low, high = 2, MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def sentence(found: Results, seeds: int | None = None) -> str:
    """Returns what so many seeds of each row resolve, from the spread seen so far; "" where nothing is known of it.

    And how many would tell the rows from base that are inside the noise, if they differ by what they do.

    Args:
      found: the results.
      seeds: as many as most rows have, by default.
    """
    base, *others = found.rows
    counts = [len(row.results) for row in others if row.results]
    seeds = seeds or (statistics.mode(counts) if counts else 1)
    told, needs = [], []
    for title, measure in SCORES.items():
        known = noise.compare_rows(base, others, measure)
        if not known.spread:
            continue
        rows = len(known.intervals) or 1
        if seeds > 1:
            told.append(_size(title, resolution(known.spread, seeds, rows, known.sources)))
        inside = [(name, one.difference) for name, one in known.intervals.items() if not one.sign and one.difference]
        needed = {name: seeds_to_tell(known.spread, difference, rows, known.sources) for name, difference in inside}
        listed = [f"{name} {number}" for name, number in needed.items() if number]
        listed = shortened(listed)
        listed += [f"{'others ' if listed else ''}over {MOST}"] * (None in needed.values())
        if listed:
            needs.append(f"in {title} {', '.join(listed)}")
    if not (told or needs):
        return ""
    start = f"{seeds} seeds resolve {' or '.join(told)}" if told else "One seed resolves nothing"
    more = f" Inside the noise, and the seeds that would tell them: {'; '.join(needs)}." if needs else ""
    return f"Power: {start} in {POWER:.0%} of all cases, from the spread seen so far.{more}"


def shortened(names: list[str]) -> list[str]:
    """Returns names for a note, and how many more there are where a note could not hold all."""
    more = len(names) - LISTED
    return names if more <= 0 else [*names[:LISTED], f"and {more:,} more"]


def _size(title, difference):
    """Returns a difference with its unit; one of log-perplexity as per cent of perplexity."""
    return f"{100 * (exp(difference) - 1):.2g}% perplexity" if title == "PPL" else f"{difference:.2g} {title}"

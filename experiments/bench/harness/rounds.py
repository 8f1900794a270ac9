"""Measurement in turns, A B A B ..., and statistics of the rounds: medians and ratios.

A machine's speed drifts over minutes (heat, other tenants). In turns, every contestant meets the same weather, and a
ratio is taken within a round.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence


def take_turns(contestants: Mapping[str, Callable[[], dict]], count: int) -> dict[str, list[dict]]:
    """Calls every contestant once a round, `count` rounds; returns {label: what it returned, by round}."""
    rounds = {label: [] for label in contestants}
    for number in range(1, count + 1):
        for label, call in contestants.items():
            rounds[label].append(call())
        say(f"round {number} of {count}")
    return rounds


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the median over the rounds of every figure that all of them have."""
    shared = set.intersection(*(set(one) for one in rounds))
    return {key: statistics.median(one[key] for one in rounds) for key in sorted(shared)}


def ratio(ours: Sequence[Mapping[str, float]], peer: Sequence[Mapping[str, float]], figure: str) -> dict[str, float]:
    """Returns the median, least and greatest over the rounds of our figure divided by the peer's."""
    each = [one[figure] / other[figure] for one, other in zip(ours, peer, strict=True)]
    return {"median": statistics.median(each), "min": min(each), "max": max(each)}


def say(line: str) -> None:
    """Prints a line of progress; standard output is for results."""
    print(line, file=sys.stderr, flush=True)

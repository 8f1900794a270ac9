"""What fits into the time that is left on a card: an estimate from operations, at a stated rate."""

import dataclasses
import heapq
from collections.abc import Iterable, Mapping


@dataclasses.dataclass(frozen=True)
class Card:
    """A GPU, or whatever takes its place, that several processes share.

    Attributes:
      rate: floating-point operations per second that they make of it together (operations as in `tx.model.flops`).
      overhead: seconds of a process before and after its training: start, compilation, translation.
      jobs: how many processes at once.
    """

    rate: float
    overhead: float
    jobs: int

    def seconds(self, flops: Iterable[float]) -> float:
        """Returns how long processes of so many operations each take, the longest started first.

        As many as run at once have equal shares of the rate, to the end: on the safe side where they end apart.
        """
        longest_first = sorted(flops, reverse=True)
        together = min(self.jobs, len(longest_first))
        ends = [0.0] * together
        for one in longest_first:
            heapq.heapreplace(ends, ends[0] + self.overhead + one * together / self.rate)
        return max(ends, default=0.0)

    def choose(self, rows: Mapping[str, float], seconds: float) -> list[str]:
        """Returns the rows, first come first served, that end within so many seconds together.

        Args:
          rows: {name: operations}, a process each.
        """
        chosen = []
        for name in rows:
            if self.seconds(rows[one] for one in (*chosen, name)) <= seconds:
                chosen.append(name)
        return chosen

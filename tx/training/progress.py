"""Progress of a run: what it resumes from, beside parameters, optimizer state and position in the data."""

import collections
import dataclasses
import math

from tx.training.metrics import SIDES

RECENT = 100  # steps whose losses say what is usual


@dataclasses.dataclass
class Progress:
    """Totals of a run up to a step; a checkpoint holds them as JSON.

    Attributes:
      step: updates so far, as of the checkpoint.
      tokens: {"source", "target"}: tokens trained on up to the last line of the log.
      seconds: its share of the time that earlier processes trained it.
      padding: positions that hold no token, and all positions, of the batches so far.
      unread: what is LOGGED of the steps that came after the last line of the log; see `tx.training.metrics.Window`.
      losses: those of the last line of the log, {} before the first.
      recent: the losses of the last steps.
      log: what `tx.runs.metrics_log.Log.written` says as of the checkpoint; {} where there is no log.
      identity: whose it is (`tx.runs.identity.Identity`), for JSON; {} where that is not known.
      origins: what each stretch of it was computed with, and for how long: {"step": its first, "seconds": its part of
        `seconds`, ...}, as `tx.runs.provenance.describe_computing` says it; [] where that is not known.
      dev: {"last", "best"}: what dev perplexity was at the last evaluation, and at the one with the lowest loss, as
        {"step", "nll", "ppl"}; None before.
    """

    step: int = 0
    tokens: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    seconds: float = 0.0
    padding: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
    unread: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    losses: dict[str, float] = dataclasses.field(default_factory=dict)
    recent: collections.deque[float] = dataclasses.field(default_factory=lambda: collections.deque(maxlen=RECENT))
    log: dict[str, int | str] = dataclasses.field(default_factory=dict)
    identity: dict[str, object] = dataclasses.field(default_factory=dict)
    origins: list[dict[str, object]] = dataclasses.field(default_factory=list)
    dev: dict[str, dict | None] = dataclasses.field(default_factory=lambda: {"last": None, "best": None})

    @classmethod
    def read(cls, saved: dict) -> "Progress":
        """Returns the progress that `saved` gave."""
        return cls(**saved | {"recent": collections.deque(saved["recent"], maxlen=RECENT)})

    def saved(
        self, step: int, tokens: dict[str, int], unread: dict[str, list[float]], seconds: float
    ) -> dict[str, object]:
        """Returns a copy as of a step, for JSON.

        Args:
          step: updates so far.
          tokens, unread: those that came after the last line of the log, and its losses.
          seconds: its share of the time that this process has trained it.
        """
        total = {side: self.tokens[side] + tokens[side] for side in SIDES}
        now = dataclasses.replace(self.timed(seconds), step=step, tokens=total, unread=unread)
        return dataclasses.asdict(now) | {"recent": list(self.recent)}

    def timed(self, seconds: float) -> "Progress":
        """Returns a copy with seconds that this process has trained it, which are of the last stretch."""
        origins = [*self.origins]
        if origins:
            origins[-1] = origins[-1] | {"seconds": origins[-1]["seconds"] + seconds}
        return dataclasses.replace(self, seconds=self.seconds + seconds, origins=origins)

    def computed_with(self, origin: dict[str, object], steps: int) -> None:
        """Records what comes next is computed with, where that is not what the steps before it were.

        After the last of `steps` "program", which is of training alone, does not count.
        """
        apart = {"step", "seconds"} | ({"program"} if self.step >= steps else set())

        def counting(one):
            return {name: value for name, value in one.items() if name not in apart}

        if not self.origins or counting(self.origins[-1]) != counting(origin):
            self.origins.append({"step": self.step + 1, "seconds": 0.0, **origin})

    def evaluated(self, step: int, dev: dict) -> None:
        """Records dev perplexity, {"nll", "ppl", ...}, at a step."""
        best, now = self.dev["best"], {"step": step, "nll": dev["nll"], "ppl": dev["ppl"]}
        self.dev["last"] = now
        if math.isfinite(now["nll"]) and (best is None or now["nll"] < best["nll"]):
            self.dev["best"] = now

"""One run of a group that trains side by side: what it keeps for itself."""

import collections
import math

import jax
import numpy as np
from ml_collections import ConfigDict

from tx.data import tokenized
from tx.data.loader import TrainBatches
from tx.data.packing import Batch
from tx.model.flops import training_flops
from tx.runs.checkpoints import Checkpoints
from tx.runs.lease import Lease
from tx.runs.run_dir import RunDir
from tx.runtime.trees import stack
from tx.training.metrics import SIDES
from tx.training.optimizer import schedule
from tx.training.step import TrainState, init_state

RECENT = 100  # steps whose losses say what is usual


class Member:
    """One run of a group: its own order of the data, checkpoints and totals.

    Args:
      config, run: the run.
      data: its text, as that of all members.
      lease: the right to write the run's folder, if it is to be held.

    Attributes:
      tokens: {"source", "target"}: tokens trained on up to the last line of the log.
      seconds: its share of the time that earlier processes trained it.
      padding: positions that hold no token, and all positions, of the batches so far.
      unread: what is LOGGED of the steps that came after the last line of the log; see `tx.training.metrics.Window`.
      losses: those of the last line of the log, {} before the first.
      dev: {"last", "best"}: what dev perplexity was at the last evaluation, and at the one with the lowest loss, as
        {"step", "nll", "ppl"}; None before.
      recent: the losses of the last steps.
      lost: the error that ended it while the others of its group went on, or None.
    """

    def __init__(self, config: ConfigDict, run: RunDir, data: tokenized.PreparedData, lease: Lease | None = None):
        self.config, self.run, self.data, self._lease = config, run, data, lease
        self.batches = TrainBatches(
            data.splits["train"],
            seed=config.train.seed,
            row_length=config.data.row_length,
            batch_rows=config.data.batch_rows,
            max_length_quantile=config.data.max_length_quantile,
            ahead=jax.default_backend() != "cpu",
        )
        self.rate = schedule(config)
        self.checkpoints = Checkpoints(run.checkpoints, config.train.keep_checkpoints)
        self.tokens, self.seconds = dict.fromkeys(SIDES, 0), 0.0
        self.padding, self.unread, self.losses = [0, 0], {}, {}
        self.dev = {"last": None, "best": None}
        self.recent, self.lost = collections.deque(maxlen=RECENT), None

    @property
    def label(self) -> str:
        """For people: the name, and the seed."""
        return f"{self.config.name} seed {self.config.train.seed}"

    def tell(self, doing: str) -> None:
        """Says what is being done; raises Lost where another process has taken the run over meanwhile."""
        if self._lease:
            self._lease.check()
            self._lease.tell(doing)

    def start(self, step: int | None) -> TrainState:
        """Goes back to the checkpoint of a step, or to the beginning for None, and forgets what came later."""
        state = init_state(self.config)
        self.checkpoints.tidy()
        self.checkpoints.drop_after(step or 0)
        if step is not None:
            state, self.batches.position = self.checkpoints.restore(state, step)
            self.tokens = {side: self.batches.position.pop(f"{side}_tokens", 0) for side in SIDES}
            self.seconds = self.batches.position.pop("seconds", 0.0)
            self.padding = self.batches.position.pop("padding", [0, 0])
            self.unread = self.batches.position.pop("unread", {})
            self.losses = self.batches.position.pop("losses", {})
            self.dev = {which: self.batches.position.pop(f"dev_{which}", None) for which in self.dev}
            self.recent.extend(self.batches.position.pop("recent", ()))
        return state

    def draw(self) -> Batch:
        """Returns the batches of one dispatch."""
        drawn = [next(self.batches) for _ in range(self.config.train.steps_per_dispatch)]
        for batch in drawn:
            for side in SIDES.values():
                self.padding[0] += int(np.count_nonzero(batch[side] == 0))
                self.padding[1] += batch[side].size
        return stack(drawn, np.stack)

    def evaluated(self, step: int, dev: dict) -> None:
        """Takes note of dev perplexity, {"nll", "ppl", ...}, at a step."""
        best, now = self.dev["best"], {"step": step, "nll": dev["nll"], "ppl": dev["ppl"]}
        self.dev["last"] = now
        if math.isfinite(now["nll"]) and (best is None or now["nll"] < best["nll"]):
            self.dev["best"] = now

    def save(
        self, step: int, state: TrainState, tokens: dict[str, int], unread: dict[str, list[float]], share: float
    ) -> None:
        """Saves a checkpoint.

        Args:
          step, state: this member's.
          tokens, unread: those that came after the last line of the log, and its losses.
          share: its share of the seconds that this process has trained.
        """
        seen = {f"{side}_tokens": self.tokens[side] + tokens[side] for side in SIDES}
        seen |= {"padding": list(self.padding), "unread": unread, "losses": self.losses, "recent": list(self.recent)}
        seen |= {f"dev_{which}": dev for which, dev in self.dev.items()} | {"seconds": self.seconds + share}
        self.checkpoints.save(step, state, self.batches.position | seen)

    def told(self, share: float) -> dict:
        """Returns what result.json says of the training, "seconds" and "dev" among it."""
        return {
            "steps": self.config.train.steps,
            "epochs": self.batches.epochs(),
            "source_tokens": self.tokens["source"],
            "target_tokens": self.tokens["target"],
            "padding_share": self.padding[0] / self.padding[1] if self.padding[1] else None,
            "flops": training_flops(self.config),
            "final_loss": self.losses.get("loss"),
            "too_long": self.batches.too_long,
            "longest": self.batches.longest,
            "dev": self.dev,
            "seconds": self.seconds + share,
        }

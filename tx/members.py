"""The runs of a group that trains side by side: what each keeps for itself, and what a step leaves of them all."""

import time

import jax
import numpy as np
from ml_collections import ConfigDict

from tx.checkpoint import Checkpoints
from tx.data import tokens
from tx.data.packing import Batch, TrainBatches, padding_share
from tx.flops import training_flops
from tx.optim import schedule
from tx.run import RunDir
from tx.step import TrainState, init_state, stack

SIDES = {"source": "src", "target": "tgt"}


class Window:
    """Losses and tokens of a group since the last line of its logs; losses stay on the device until they are read."""

    def __init__(self, members: int):
        self.members, self.metrics, self.start = members, [], time.monotonic()
        self.tokens = {side: np.zeros(members, int) for side in SIDES}

    def add(self, metrics: dict, batch: Batch) -> None:
        """Takes what a step was given and gave, for one member or for a stack of all."""
        self.metrics.append(metrics)
        for side, name in SIDES.items():
            self.tokens[side] += np.count_nonzero(batch[name].reshape(self.members, -1), axis=1)

    def read(self) -> list[tuple[dict, dict]]:
        """Returns each member's (mean loss and nll, tokens per second of its share); waits for the last step."""
        host = jax.device_get(self.metrics)
        share = (time.monotonic() - self.start) / self.members
        steps = {key: np.concatenate([np.reshape(m[key], (self.members, -1)) for m in host], axis=1) for key in host[0]}
        return [
            (
                {key: float(np.mean(steps[key][i])) for key in steps},
                {
                    "target_tokens_per_s": float(self.tokens["target"][i] / share),
                    "tokens_per_s": float((self.tokens["source"][i] + self.tokens["target"][i]) / share),
                },
            )
            for i in range(self.members)
        ]


class Member:
    """One run of a group: its own order of the data, checkpoints and totals.

    Args:
      config, run: the run.
      data: its text, as that of all members.

    Attributes:
      tokens: {"source", "target"}: tokens trained on up to the last line of the log.
      seconds: its share of the time that earlier processes trained it.
      padding: the share of padding in each batch.
      losses: of the last line of the log, {} before the first.
    """

    def __init__(self, config: ConfigDict, run: RunDir, data: tokens.PreparedData):
        self.config, self.run, self.data = config, run, data
        self.batches = TrainBatches(
            data.splits["train"],
            seed=config.train.seed,
            row_length=config.data.row_length,
            batch_rows=config.data.batch_rows,
        )
        self.rate = schedule(config.optim, config.model.d_model)
        self.checkpoints = Checkpoints(run.checkpoints, config.train.keep_checkpoints)
        self.tokens, self.seconds = dict.fromkeys(SIDES, 0), 0.0
        self.padding, self.losses = [], {}

    @property
    def label(self) -> str:
        """For people: the name, and the seed."""
        return f"{self.config.name} seed {self.config.train.seed}"

    def start(self, step: int | None) -> TrainState:
        """Goes back to the checkpoint of a step, or to the beginning for None, and forgets what came later."""
        state = init_state(self.config)
        self.checkpoints.drop_after(step or 0)
        if step is not None:
            state, self.batches.position = self.checkpoints.restore(state, step)
            self.tokens = {side: self.batches.position.pop(f"{side}_tokens", 0) for side in SIDES}
            self.seconds = self.batches.position.pop("seconds", 0.0)
        return state

    def draw(self) -> Batch:
        """Returns the batches of one dispatch."""
        drawn = [next(self.batches) for _ in range(self.config.train.steps_per_dispatch)]
        self.padding += map(padding_share, drawn)
        return stack(drawn, np.stack)

    def save(self, step: int, state: TrainState, unread: dict[str, int], share: float) -> None:
        """Saves a checkpoint.

        Args:
          step, state: this member's.
          unread: tokens that came after the last line of the log.
          share: its share of the seconds that this process has trained.
        """
        seen = {f"{side}_tokens": self.tokens[side] + unread[side] for side in SIDES}
        self.checkpoints.save(step, state, self.batches.position | seen | {"seconds": self.seconds + share})

    def told(self, dev: dict, share: float) -> dict:
        """Returns what result.json says of the training."""
        return {
            "steps": self.config.train.steps,
            "epochs": self.batches.epochs(),
            "source_tokens": self.tokens["source"],
            "target_tokens": self.tokens["target"],
            "padding_share": float(np.mean(self.padding)) if self.padding else None,
            "flops": training_flops(self.config),
            "final_loss": self.losses.get("loss"),
            "too_long": self.batches.too_long,
            "dev": {"split": "validation", **dev},
            "seconds": self.seconds + share,
        }

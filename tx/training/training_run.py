"""Training run: what each run of a group that trains side by side has of its own."""

import dataclasses

import jax
import numpy as np
from ml_collections import ConfigDict

from tx.data import tokenized
from tx.data.loader import TrainBatches
from tx.model.flops import training_flops
from tx.runs.checkpoints import Checkpoint, Checkpoints
from tx.runs.identity import Identity
from tx.runs.lease import Lease
from tx.runs.run_dir import RunDir
from tx.runtime import distributed
from tx.runtime.backend import plans_ahead
from tx.runtime.trees import stack
from tx.training.drawn import Drawn
from tx.training.optimizer import schedule
from tx.training.progress import Progress
from tx.training.step import TrainState, init_state


class TrainingRun:
    """Run of a group: its own order of the data, checkpoints and totals.

    Args:
      config, run: the run.
      data: its text, as that of all members.
      lease: the right to write the run's folder, if it is to be held.
      identity: what its checkpoints are to say of whose they are.

    Attributes:
      origin: what this process computes with (`tx.runs.provenance.describe_computing`), where that is to be recorded.
      progress: its totals, those of earlier processes among them.
      lost: the error that ended it while the others of its group went on, or None.
    """

    def __init__(
        self,
        config: ConfigDict,
        run: RunDir,
        data: tokenized.PreparedData,
        lease: Lease | None = None,
        identity: Identity | None = None,
    ):
        self.config, self.run, self.data, self._lease = config, run, data, lease
        self.batches = TrainBatches(
            data.splits["train"],
            seed=config.train.seed,
            row_length=config.data.row_length,
            batch_rows=config.data.batch_rows,
            max_length_quantile=config.data.max_length_quantile,
            ahead=plans_ahead(),
            share=distributed.share(),
        )
        self.rate = schedule(config)
        self.checkpoints = Checkpoints(run.checkpoints, config.train.keep_checkpoints, config.train.checkpoint_every)
        self._identity = dataclasses.asdict(identity) if identity else {}
        self.origin: dict[str, object] | None = None
        self.progress, self.lost = Progress(identity=self._identity), None

    @property
    def label(self) -> str:
        """The name and the seed, for people."""
        return f"{self.config.name} seed {self.config.train.seed}"

    def set_status(self, doing: str) -> None:
        """Sets what others see that is being done; raises Lost where another process has taken the run over."""
        if self._lease:
            self._lease.check()
            self._lease.set_status(doing)

    def start(self, step: int | None) -> TrainState:
        """Restores the checkpoint of a step, or begins anew for None; deletes the later ones, and returns the state."""
        self.checkpoints.tidy()
        self.checkpoints.drop_after(step or 0)
        state = init_state(self.config) if step is None else self._restore(step)
        if self.origin:
            self.progress.computed_with(self.origin, self.config.train.steps)
        return state

    def _restore(self, step):
        like = jax.eval_shape(lambda: init_state(self.config))
        found = self.checkpoints.restore(like.params, like.opt_state, step, like.ema)
        self.batches.position = found.data
        self.progress = dataclasses.replace(Progress.read(found.progress), identity=self._identity)
        updates = jax.device_put(np.int32(step), jax.local_devices()[0])  # where the others lie: one more compilation
        return TrainState(updates, found.params, found.opt_state, found.ema)

    def draw(self) -> Drawn:
        """Returns the batches of one dispatch."""
        batches, sentences = [], []
        for _ in range(self.config.train.steps_per_dispatch):
            batches.append(next(self.batches))
            sentences.append(self.batches.sentences)
        tokens = self.batches.split.count_tokens(np.concatenate(sentences))
        positions = len(batches) * self.config.data.batch_rows * self.config.data.row_length
        self.progress.padding[0] += sum(positions - count for count in tokens.values())
        self.progress.padding[1] += positions * len(tokens)
        return Drawn(stack(batches, np.stack), [sentences], {side: np.array([n]) for side, n in tokens.items()})

    def save(
        self, step: int, state: TrainState, tokens: dict[str, int], unread: dict[str, list[float]], share: float
    ) -> None:
        """Saves a checkpoint.

        Args:
          step, state: this member's.
          tokens, unread: those that came after the last line of the log, and its losses.
          share: its share of the seconds that this process has trained.
        """
        progress = self.progress.saved(step, tokens, unread, share)
        self.checkpoints.save(Checkpoint(state.params, state.opt_state, self.batches.position, progress, state.ema))

    def training_summary(self, share: float) -> dict:
        """Returns what result.json says of the training, "seconds", "origins" and "dev" among it.

        Args:
          share: its share of the seconds that this process has trained.
        """
        (empty, positions), timed = self.progress.padding, self.progress.timed(share)
        return {
            "steps": self.config.train.steps,
            "epochs": self.batches.epochs(),
            "source_tokens": self.progress.tokens["source"],
            "target_tokens": self.progress.tokens["target"],
            "padding_share": empty / positions if positions else None,
            "flops": training_flops(self.config),
            "final_loss": self.progress.losses.get("loss"),
            "too_long": self.batches.num_skipped,
            "empty": self.batches.num_empty,
            "longest": self.batches.longest,
            "dev": self.progress.dev,
            "seconds": timed.seconds,
            "origins": timed.origins,
        }

"""Runs that train side by side in one program, behind the face of a single run: what stacking means is all here."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from tx.data.packing import Batch
from tx.errors import Diverged
from tx.runs.metrics_log import Log, progress_bar
from tx.runs.state import record
from tx.runtime.trees import member, stack
from tx.training.hooks import StepEnd
from tx.training.loss_monitor import Sentinel
from tx.training.metrics import SIDES, Window
from tx.training.sharding import gather
from tx.training.step import TrainState
from tx.training.training_run import Member


class RunGroup:
    """A group of runs that a loop trains as if it were one; a run alone is a group of one.

    A batch is the members' batches, a state their states, in one `stack`; a line of the log is a line in each member's
    log, a checkpoint one of each. A member that diverges is `lost`: it is computed on, and nothing more is written of
    it.

    Args:
      members: of one `program`.

    Attributes:
      config, data: of the first; what the others have otherwise is of no matter to the loop.
    """

    def __init__(self, members: Sequence[Member]):
        self.members, self.config, self.data = members, members[0].config, members[0].data
        self._logs, self._window, self._monitor, self._began = [], None, None, 0.0

    def start(self) -> tuple[TrainState, int]:
        """Returns (state, its step) of the newest checkpoint that all members have; of the beginning without one."""
        common = self._newest_checkpoint()
        state = stack([m.start(common) for m in self.members])
        self._began = time.monotonic()
        return state, common or 0

    def _newest_checkpoint(self):
        """The step of the newest sound checkpoint that all members have, or None."""
        while common := set.intersection(*(set(m.checkpoints.steps()) for m in self.members)):
            if all([m.checkpoints.sound(max(common)) for m in self.members]):
                return max(common)
        return None

    @contextlib.contextmanager
    def recording(self, first: int, params: dict) -> Iterator[None]:
        """Inside, logs are open and the loss is watched; after it nothing is being saved or planned.

        Args:
          first: the step that training starts from.
          params: the model's, for the names of its layers.
        """
        with contextlib.ExitStack() as closing:
            for m in self.members:
                closing.callback(m.checkpoints.close)
                closing.callback(m.batches.close)
            bar, last, several = progress_bar(), self.config.train.steps, len(self.members) > 1
            for m in self.members:
                log = Log(m.run, last, first, m.label if several else "", bar)
                self._logs.append(closing.enter_context(log))
            self._window = Window(len(self.members), [m.progress.unread for m in self.members])
            self._monitor = Sentinel(self.members, params)
            yield

    def say(self, doing: str) -> None:
        """Says what is being done; raises Lost where another process has taken a run over meanwhile."""
        for m in self.members:
            m.tell(doing)

    def draw(self) -> Batch:
        """Returns the batches of one dispatch."""
        return stack([m.draw() for m in self.members], np.stack)

    # What hooks do.

    def add(self, end: StepEnd) -> None:
        """Takes losses and tokens for the next line of the log."""
        self._window.add(end.metrics, end.batch)

    def watch_loss(self, end: StepEnd) -> None:
        """Looks at the losses and gradients that have come far enough; raises Diverged where every member is lost."""
        self._note(self._monitor.look(end.step, end.metrics, end.batch))

    def settle_loss(self, end: StepEnd) -> None:
        """Looks at all that are left, as `watch_loss` does."""
        self._note(self._monitor.settle())

    def log(self, end: StepEnd) -> None:
        """Writes a line of losses and speed since the one before."""
        lines = self._window.read()
        for i, m in self._alive():
            values, timing = lines[i]
            self._logs[i].write(end.step, values | {"lr": float(m.rate(end.step - 1))}, timing)
            m.progress.losses = values
            for side in SIDES:
                m.progress.tokens[side] += int(self._window.tokens[side][i])
        self._window = Window(len(self.members))

    def measure_dev(self, evaluate: Callable[[dict], list[dict]], end: StepEnd) -> None:
        """Measures dev perplexity and logs it.

        Args:
          evaluate: gives {"nll", "ppl"} of each member, for a `stack` of their parameters.
        """
        jax.block_until_ready(end.state)  # steps under way are training's time
        paused = time.monotonic()
        self.say(f"evaluating after step {end.step}")
        devs = evaluate(gather(end.state.params))
        for i, m in self._alive():
            m.progress.evaluated(end.step, devs[i])
            self._logs[i].write(end.step, {"dev_ppl": devs[i]["ppl"], "dev_nll": devs[i]["nll"]}, {})
        self._window.start += time.monotonic() - paused

    def save(self, end: StepEnd) -> None:
        """Saves a checkpoint."""
        whole, unread = gather(end.state), self._window.losses()
        for i, m in self._alive():
            seen = {side: int(self._window.tokens[side][i]) for side in SIDES}
            m.save(end.step, member(whole, i, len(self.members)), seen, unread[i], self._share())
        self.say(f"training after step {end.step}")

    # What it all comes to.

    def told(self) -> list[dict | None]:
        """Returns what each one's result.json says of the training; None for one that was lost."""
        seconds = self._share()
        return [None if m.lost else m.told(seconds) for m in self.members]

    def _share(self):
        """A member's share of the seconds that this process has trained."""
        return (time.monotonic() - self._began) / len(self.members)

    def _alive(self) -> list[tuple[int, Member]]:
        return [(i, m) for i, m in enumerate(self.members) if not m.lost]

    def _note(self, findings: Iterable[tuple[int, int, Diverged | dict[str, float]]]) -> None:
        """Takes what the monitor found: a spike is logged, divergence recorded in error.json."""
        for i, step, found in findings:
            m = self.members[i]
            if not isinstance(found, Diverged):
                self._logs[i].write(step, found, {})
            elif not m.lost:
                m.lost = found
                record(m.config, m.run, found)
        if not self._alive():
            raise self.members[0].lost

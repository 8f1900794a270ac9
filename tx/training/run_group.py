"""Group of runs that train side by side in one compiled step, with the interface of a single run."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax

from tx.errors import Diverged
from tx.runs.metrics_log import Log, progress_bar
from tx.runs.state import record
from tx.runtime.backend import fetches_stacks
from tx.runtime.clock import running_time
from tx.runtime.trees import member, stack
from tx.training.common_start import newest_common
from tx.training.drawn import Drawn, side_by_side
from tx.training.hooks import StepEnd
from tx.training.loss_monitor import LossMonitor
from tx.training.metrics import SIDES, Window
from tx.training.sharding import gather
from tx.training.step import TrainState
from tx.training.training_run import TrainingRun


class RunGroup:
    """Group of runs that the loop trains as if it were one; a run alone is a group of one.

    A batch is the members' batches, a state their states, in one `stack`; a line of the log is a line in each member's
    log, a checkpoint one of each. A member that diverges is `lost`: it is computed on, and nothing more is written of
    it.

    Args:
      members: of one `compile_key`.

    Attributes:
      config, data: of the first; what the others have otherwise is of no matter to the loop.
    """

    def __init__(self, members: Sequence[TrainingRun]):
        self.members, self.config, self.data = members, members[0].config, members[0].data
        self._logs, self._window, self._monitor, self._began = [], None, None, 0.0

    def start(self) -> tuple[TrainState, int]:
        """Returns (state, its step) of the newest checkpoint that all members have; of the beginning without one."""
        common = self._newest_checkpoint()
        for m in self.members if len(self.members) > 1 else ():
            if (later := max(m.checkpoints.steps(), default=0)) > (common or 0):
                print(f"note: {m.label} goes back from step {later} to {common or 0}, the newest that its group has")
        state = stack([m.start(common) for m in self.members])
        self._began = running_time()
        return state, common or 0

    def _newest_checkpoint(self):
        """Returns the step of the newest intact checkpoint that all members have, or None.

        One that whole dispatches do not lead to, as of a run that was stopped under another train.steps_per_dispatch,
        is not taken.
        """
        each = self.config.train.steps_per_dispatch
        while common := set.intersection(*(set(m.checkpoints.steps()) for m in self.members)):
            newest = newest_common(self.members)
            if newest is None or all([m.checkpoints.verify(newest) for m in self.members]):
                if newest != max(common):
                    whole = f"step {max(common)} is no multiple of train.steps_per_dispatch={each}"
                    print(f"note: {whole}: training goes on from step {newest or 0}")
                return newest
        return None

    @contextlib.contextmanager
    def recording(self, first: int, params: dict) -> Iterator[None]:
        """Opens the logs and the loss monitor for the body; after it nothing is being saved or planned.

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
                log = Log(m.run, last, first, m.label if several else "", bar, m.progress.log.get("lines"))
                self._logs.append(closing.enter_context(log))
            self._window = Window(len(self.members), [m.progress.unread for m in self.members])
            self._monitor = LossMonitor(self.members, params)
            yield

    def set_status(self, doing: str) -> None:
        """Sets what others see that is being done; raises Lost where another process has taken a run over."""
        for m in self.members:
            m.set_status(doing)

    def draw(self) -> Drawn:
        """Returns the batches of one dispatch."""
        return side_by_side([m.draw() for m in self.members])

    # What hooks do.

    def add(self, end: StepEnd) -> None:
        """Adds losses and tokens to the next line of the log."""
        self._window.add(end.metrics, end.drawn.tokens)

    def observe_loss(self, end: StepEnd) -> None:
        """Hands a step to the loss monitor, which reads those that are computed by now.

        Raises Diverged where every member is lost.
        """
        self._note(self._monitor.observe(end.step, end.metrics, end.drawn.sentences))

    def flush_loss(self, end: StepEnd) -> None:
        """Has the loss monitor read all steps that are left; Diverged, as `observe_loss`."""
        self._note(self._monitor.flush())

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
        paused = running_time()
        self.set_status(f"evaluating after step {end.step}")
        devs = evaluate(gather(end.state.eval_params))
        for i, m in self._alive():
            m.progress.evaluated(end.step, devs[i])
            if not math.isfinite(nll := devs[i]["nll"]):  # a training loss that is not finite ends the run
                print(f"note: {m.label}: the dev loss is {nll} after step {end.step}, the training loss is finite")
            self._logs[i].write(end.step, {"dev_ppl": devs[i]["ppl"], "dev_nll": devs[i]["nll"]}, {})
        self._window.start += running_time() - paused

    def save(self, end: StepEnd) -> None:
        """Saves a checkpoint."""
        whole, unread = gather(end.state), self._window.losses()
        if len(self.members) > 1 and fetches_stacks():
            whole = jax.device_get(whole)
        for i, m in self._alive():
            m.progress.log = self._logs[i].written()
            seen = {side: int(self._window.tokens[side][i]) for side in SIDES}
            m.save(end.step, member(whole, i, len(self.members)), seen, unread[i], self._share())
        self.set_status(f"training after step {end.step}")

    # What it all comes to.

    def training_summaries(self) -> list[dict | None]:
        """Returns the `training_summary` of each member; None for one that was lost."""
        seconds = self._share()
        return [None if m.lost else m.training_summary(seconds) for m in self.members]

    def _share(self):
        """Returns a member's share of the seconds that this process has trained."""
        return (running_time() - self._began) / len(self.members)

    def _alive(self) -> list[tuple[int, TrainingRun]]:
        return [(i, m) for i, m in enumerate(self.members) if not m.lost]

    def _note(self, findings: Iterable[tuple[int, int, Diverged | dict[str, float]]]) -> None:
        """Logs the spikes that the monitor found, and records divergence in error.json."""
        for i, step, found in findings:
            m = self.members[i]
            if not isinstance(found, Diverged):
                self._logs[i].write(step, found, {})
            elif not m.lost:
                m.lost = found
                record(m.config, m.run, found)
        if not self._alive():
            raise self.members[0].lost

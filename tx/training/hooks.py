"""Hooks of the training loop: what is done between two steps, and how often."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tx.training.drawn import Drawn
from tx.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class StepEnd:
    """State of the training when a call of the step has returned; an accelerator may still compute it.

    Attributes:
      step: the number of the last update.
      state: after it; the next call of the step takes its memory.
      metrics: what the call gave, with axes for runs and updates where there are several.
      drawn: what it was given.
      last: whether no step comes after it.
      asked: whether the process was asked to end.
    """

    step: int
    state: TrainState
    metrics: dict[str, Any]
    drawn: Drawn
    last: bool
    asked: bool


@dataclasses.dataclass(frozen=True)
class Hook:
    """Action between two steps.

    Attributes:
      act: the action.
      every: steps from one time to the next; after the last step it is always done.
      when_asked: whether it is also done when the process was asked to end.
    """

    act: Callable[[StepEnd], None]
    every: int
    when_asked: bool = False

    def due(self, end: StepEnd) -> bool:
        """Returns whether it is to be done now."""
        return end.step % self.every == 0 or end.last or (self.when_asked and end.asked)

"""Time budget on a card: what fits into the time that is left, estimated from the sizes of what is trained."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ml_collections import ConfigDict

from launch.forecast import REMAT
from tx.model import flops

# Seconds of a training step, for each layer (half of both stacks', and one more) and for each byte of
# `flops.step_bytes` of all that train side by side. Predicted by compiling for an H100, not measured: twelve steps of
# Table 3 at the scales multi30k (five seeds) and tatoeba (three), float32, fifty a dispatch, among them base, big,
# h=32, N=2 and d_model=1024, went through JAX 0.10.2's compiler for CUDA with the description of that GPU that
# `jax.experimental.topologies` takes: no device, so no autotuning. Counted in the compiled program, loops by their
# trips, a kernel takes the larger of its bytes at 3.35 TB/s and its operations at 989 TFLOP/s, and 1.5 us. The two
# numbers meet all twelve within 7%; a constant and a rate of operations miss some by half.
LAYER = 3.3e-4
BYTE = 1.83e-12
# Measured on an H100 with 16 cores and JAX 0.11.2, four stacked programs of recipe@multi30k side by side by NVIDIA's
# Multi-Process Service: steps took 0.7 to 1.2 times what is predicted for one after the other; one alone would take
# longer. Compiling took 180 s a process, on one thread each and eight processes at once; then a second for every
# checkpoint of every member, fifteen each, and half a minute of translations.
SLOWDOWN = 1.2
OVERHEAD = 240.0


def training_seconds(configs: Sequence[ConfigDict]) -> float:
    """Returns the seconds that training takes where it has an H100 to itself, each kernel at the limit of the hardware.

    Args:
      configs: of one program, trained side by side; none take no time.
    """
    if not configs:
        return 0.0
    train, layers = configs[0].train, sum(flops.stack_depths(configs[0].model).values()) / 2 + 1
    step = LAYER * layers + BYTE * sum(map(flops.step_bytes, configs))
    return train.steps * train.micro_batches * step * (REMAT if train.remat else 1)


@dataclasses.dataclass(frozen=True)
class Card:
    """GPU, or whatever takes its place, that several processes share.

    Attributes:
      slowdown: how many times `training_seconds` training takes on it.
      overhead: seconds of a process before its training, and after it: start, compilation, translation.
      jobs: how many processes at once.
    """

    slowdown: float
    overhead: float
    jobs: int

    def seconds(self, rows: Iterable[float]) -> float:
        """Returns how long rows take, one process each, the longest started first.

        A process first takes its overhead, while others train; those that train have equal shares of the card.

        Args:
          rows: the `training_seconds` of each.
        """
        waiting, running, total = sorted(rows), [], 0.0
        while waiting or running:
            while waiting and len(running) < self.jobs:
                running.append([self.overhead, self.slowdown * waiting.pop()])
            share = 1 / max(1, sum(not before for before, _ in running))
            lasts = [before or training / share for before, training in running]
            passed = min(lasts)  # until one begins to train, or ends
            total += passed
            for one, last in zip(running, lasts, strict=True):
                part, speed = (0, 1.0) if one[0] else (1, share)
                one[part] = one[part] - passed * speed if last > passed else 0.0
            running = [one for one in running if any(one)]
        return total

    def choose(self, rows: Mapping[str, float], seconds: float) -> list[str]:
        """Returns the rows that end within so many seconds together, the longest chosen first, equal ones in order.

        Args:
          rows: {name: its `training_seconds`}, a process each.
        """
        chosen = []
        for name in sorted(rows, key=rows.__getitem__, reverse=True):
            if self.seconds(rows[one] for one in (*chosen, name)) <= seconds:
                chosen.append(name)
        return chosen

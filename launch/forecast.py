"""Forecast of a sweep on devices that need not be there: FLOPs, tokens, hours, memory and cost, a row and in all.

Hours are those of training alone, from the FLOPs of `tx.model.flops` and the share of the devices' peak that a training
was measured at: start, compilation, evaluation and translation come on top.
"""

import dataclasses
import functools
import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from experiments.bench.harness.targets import TARGETS
from experiments.bench.step_memory import step_memory
from launch import devices
from launch.devices import Device, Measured
from launch.plan import PlannedRun
from tx.errors import UserError
from tx.model import flops
from tx.runtime.backend import LOSS_LOGITS

# Of what `flops.step_bytes` counts a layer to leave for the backward pass, what was there at once on an H100 in
# bfloat16 with cuDNN's attention, beside parameters, gradients, moments and a chunk of logits: base at 96 x 256 took
# 6.8 GiB, big 13.6 GiB (experiments/bench/results/train-*-h100.json); 0.57 and 0.56.
KEPT = 0.57
REMAT = 4 / 3  # of the time: beside a forward pass and a backward one, which is two, another forward pass
PARAMETER_BYTES = 16  # parameter, gradient and two moments, in float32
AVERAGE_BYTES = 4  # of each, with train.ema
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
LOGIT_BYTES = {"xla": 4, "pallas": 2}  # by model.kernels
SMALL = 1 / 4  # of a measured step's FLOPs: what has fewer waits for its host, and takes longer than this says


class Memory(NamedTuple):
    """Memory that a run takes on each of its devices.

    Attributes:
      bytes: None where a compiler refuses the program without saying how many.
      fits: whether a device has as many.
      compiler: whose analysis it is; "" for an estimate.
      missing: why it is an estimate.
    """

    bytes: float | None
    fits: bool
    compiler: str = ""
    missing: str = ""


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Forecast of the runs of a row that are not done.

    Attributes:
      name: of the row.
      runs: how many there are to make, and how many are `done`.
      flops, tokens: of one run: its training's FLOPs, and its tokens on each side, padding included.
      hours: of one run on the devices that it takes; None where no training was measured on such.
      memory: what it takes on each of its devices.
      measured: where its hours come from, or None.
      config: of the row.
    """

    name: str
    runs: int
    done: int
    flops: float
    tokens: float
    hours: float | None
    memory: Memory
    measured: Measured | None
    config: ConfigDict

    @property
    def small(self) -> bool:
        """Whether its steps are far smaller than those of what was measured."""
        step = self.measured and self.measured.step_flops
        return bool(self.flops and step and self.flops / self.config.train.steps < SMALL * step)


def forecasts(
    runs: Iterable[PlannedRun],
    device: Device,
    per_run: int,
    mfu: float | None = None,
    memory: Callable[[ConfigDict], Memory] | None = None,
) -> list[Forecast]:
    """Returns the forecast of every row, in the order of the runs.

    Args:
      per_run: devices that a run takes.
      mfu: share of the peak; None for what was measured.
      memory: says what a row's run takes; None for estimates.
    """
    memory = memory or functools.partial(estimated, device=device, per_run=per_run)
    rows: dict[str, list[PlannedRun]] = {}
    for run in runs:
        rows.setdefault(run.name, []).append(run)
    return [_forecast(name, those, device, per_run, mfu, memory) for name, those in rows.items()]


def _forecast(name, runs, device, per_run, mfu, memory):
    config, operations = runs[0].config, runs[0].flops
    measured = None
    if mfu is not None or devices.measured(device):
        measured = devices.nearest(device, flops.training_flops(config) / config.train.steps, mfu)
    done = sum(run.state.finished for run in runs)
    computed = operations * (REMAT if config.train.remat else 1)
    return Forecast(
        name,
        len(runs) - done,
        done,
        operations,
        float(config.train.steps * config.data.batch_rows * config.data.row_length if operations else 0),
        computed / (device.peak * measured.mfu * per_run) / 3600 if measured else None,
        memory(config),
        measured,
        config,
    )


def hours(rows: Sequence[Forecast], slots: int) -> float:
    """Returns the hours of all runs on so many slots, each of the devices of one run; the longest start first."""
    ends = [0.0] * slots
    for length in sorted((row.hours for row in rows for _ in range(row.runs)), reverse=True):
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def analysed(config: ConfigDict, *, device: Device, per_run: int, tell: Callable[[str], None]) -> Memory:
    """Returns the memory that a run takes by the analysis of the device's compiler; an estimate where there is none.

    Args:
      tell: takes a line before something is compiled.
    """
    if device.name not in TARGETS:
        why = f"nothing here compiles for {device.name}, only for {', '.join(TARGETS)}"
        return estimated(config, device, per_run, why)
    try:
        found = step_memory(config, target=device.name, devices=per_run, tell=tell)
    except UserError as error:
        return estimated(config, device, per_run, str(error))
    return Memory(found.bytes, found.fits, found.compiler)


def estimated(config: ConfigDict, device: Device, per_run: int, missing: str = "") -> Memory:
    """Returns the memory that a run takes by `memory_bytes`."""
    size = memory_bytes(config, per_run)
    return Memory(size, size <= device.memory, missing=missing)


def memory_bytes(config: ConfigDict, per_run: int) -> float:
    """Returns an estimate of the bytes that a training step takes on each of `per_run` devices.

    Each has an equal part of the batch, and of what `parallel.fsdp_shards` cuts; within a tenth of the two trainings
    that were measured (see KEPT).
    """
    model, depths = config.model, flops.stack_depths(config.model)
    positions = config.data.batch_rows * config.data.row_length / config.train.micro_batches / per_run
    layer, weights = flops.kept_numbers(model, config.data.row_length)
    kept = KEPT * layer + (0 if model.attention_backend == "cudnn" else weights)
    layers = depths.get("encoder", 0.5 * depths["decoder"]) + 1.5 * depths["decoder"]
    if config.train.remat:
        kept = model.d_model + kept / layers  # each layer's input, and the whole of the one that is computed again
    each = PARAMETER_BYTES + (AVERAGE_BYTES if config.train.ema else 0)
    parameters = each * flops.parameter_count(model) / config.parallel.fsdp_shards
    logits = LOGIT_BYTES[model.kernels] * min(LOSS_LOGITS[model.kernels], positions * model.vocab_size)  # of a chunk
    return parameters + logits + BYTES[model.dtype] * positions * layers * kept

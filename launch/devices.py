"""Devices that a sweep can be planned for: what makers print of them, and the share of it that trainings reached."""

import dataclasses
import functools
import json
import math
import pathlib
import re

import tx.config
from experiments.bench.harness.machine import DENSE_PEAKS, is_called
from tx.errors import UserError, unknown
from tx.model import flops
from tx.renamed_fields import with_new_names

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "experiments" / "bench" / "results"


@dataclasses.dataclass(frozen=True)
class Device:
    """Device, as its maker describes it.

    Attributes:
      name: as --device takes it.
      kind: a part of what JAX calls it.
      peak: dense bfloat16 products, FLOPs a second.
      memory: bytes.
      tpu: whether a run takes all of them together, as TPUs are used; of GPUs each run takes one.
    """

    name: str
    kind: str
    peak: float
    memory: float
    tpu: bool = False


# Data sheets of NVIDIA (dense, without sparsity) and of Google Cloud (per chip).
DEVICES = {
    device.name: device
    for device in (
        Device("l4", "L4", DENSE_PEAKS["L4"], 24e9),
        Device("a100", "A100", DENSE_PEAKS["A100"], 80e9),
        Device("h100", "H100", DENSE_PEAKS["H100"], 80e9),
        Device("h200", "H200", DENSE_PEAKS["H200"], 141e9),
        Device("v4", "TPU v4", 275e12, 32e9, tpu=True),
        Device("v5e", "TPU v5 lite", 197e12, 16e9, tpu=True),
        Device("v5p", "TPU v5p", 459e12, 95e9, tpu=True),
        Device("v6e", "TPU v6 lite", 918e12, 32e9, tpu=True),
    )
}


def parse(text: str) -> tuple[Device, int | None]:
    """Reads "h100", or "v5e-8" for eight of them; (device, how many, None where that is not said). UserError else."""
    name, count = re.fullmatch(r"(.*?)(?:-(\d+))?", text.lower(), re.DOTALL).groups()
    if name not in DEVICES or count == "0":
        raise unknown("--device: unknown device", text, DEVICES, f" (there are {', '.join(DEVICES)}; v5e-8 is eight)")
    return DEVICES[name], int(count) if count else None


@dataclasses.dataclass(frozen=True)
class Measured:
    """Share of a device's peak at which a training ran (MFU), and where that is from.

    Attributes:
      mfu: by `tx.model.flops.training_flops`, of the dense bfloat16 peak.
      what: which training.
      source: the file of the measurement, or "--mfu".
      step_flops: of one of its steps; None where it is given for all sizes.
      dtype: of its arithmetic; "" where it is given.
    """

    mfu: float
    what: str
    source: str
    step_flops: float | None = None
    dtype: str = ""


@functools.cache
def measured(device: Device) -> tuple[Measured, ...]:
    """Returns what `experiments.bench` measured of trainings on a device, as this checkout's results say."""
    found = []
    for path in sorted(RESULTS.glob("train-*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        mfu = told["contestants"].get("tx", {}).get("median", {}).get("mfu")
        if mfu is not None and is_called(told["machine"]["processor"], device.kind):
            config = tx.config.get_config()
            tx.config.update(config, tx.config.fields(with_new_names(told["config"])), path.name)
            step = flops.training_flops(config) / config.train.steps
            found.append(Measured(mfu, told["what"], path.name, step, config.model.dtype))
    return tuple(found)


def nearest(device: Device, step_flops: float, given: float | None = None) -> Measured:
    """Returns the measurement on a device of the training whose steps are the most alike in FLOPs.

    Raises UserError where nothing was measured and nothing is given.
    """
    if given is not None:
        return Measured(given, "all", "--mfu")
    if not (known := measured(device)):
        there = [name for name, one in DEVICES.items() if measured(one)]
        other = f", only on {', '.join(there)}" if there else ""
        raise UserError(f"no training was measured on {device.name}{other}; give --mfu, 0.3 for instance")
    return min(known, key=lambda one: abs(math.log(one.step_flops / step_flops)))

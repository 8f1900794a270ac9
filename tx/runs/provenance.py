"""Provenance of a result: revision of the code, library versions, device."""

import importlib.metadata
import pathlib
import platform
import subprocess

from ml_collections import ConfigDict

from tx.runs import fingerprint
from tx.runtime import determinism

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece", "sacrebleu")


def describe(config: ConfigDict | None = None) -> dict:
    """Returns {"code", "numerics", "versions", "device"} for config.json and result.json.

    Args:
      config: of the run, whose components "numerics" goes by; the paper's base where it is left out.
    """
    import jax

    devices = jax.devices()
    return {
        "code": revision(),
        "numerics": fingerprint.numerics(config or {}),
        "versions": {"python": platform.python_version()}
        | {library: importlib.metadata.version(library) for library in LIBRARIES},
        "device": {
            "platform": devices[0].platform,
            "kind": _processor() if devices[0].platform == "cpu" else devices[0].device_kind,
            "count": len(devices),
            "threads": determinism.threads(),
        },
    }


def describe_computing(config: ConfigDict, described: dict, side_by_side: int) -> dict:
    """Returns {"device", "versions", "program"}: what decides the last digits of a training's numbers, and no more.

    Args:
      config: of the run.
      described: as `describe` gave it.
      side_by_side: how many runs train in one program.
    """
    device, parallel = dict(described["device"]), config.parallel
    device["count"] = parallel.devices or device["count"]  # those that are used
    if device["platform"] != "cpu":
        del device["threads"]
    program = {name: parallel[name] for name in ("mode", "fsdp_shards", "deterministic")}
    program |= {"steps_per_dispatch": config.train.steps_per_dispatch, "side_by_side": side_by_side}
    return {"device": device, "versions": described["versions"], "program": program}


def revision() -> str:
    """Returns the git commit of this code, with "+" where files differ from it; "" outside a checkout."""
    root = pathlib.Path(__file__).resolve().parents[2]

    def git(*arguments):
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        commit = git("rev-parse", "--short=12", "HEAD").strip()
        return commit + ("+" if git("status", "--porcelain", "--", "tx", "experiments") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

"""Provenance of a result: revision of the code, library versions, device, what of the environment changes numbers."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess

from ml_collections import ConfigDict

from tx.runs import fingerprint
from tx.runtime import determinism, environment
from tx.runtime.processor import processor

DECIDING = ("device", "versions", "environment")  # of what `describe` tells, what decides last digits
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece", "sacrebleu")


def describe(config: ConfigDict | None = None) -> dict:
    """Returns {"code", "numerics", "versions", "device"} for config.json and result.json.

    Beside them "environment" where any of it is set that `tx.runtime.environment` records.

    Args:
      config: of the run, whose components "numerics" goes by, and whose devices are counted; the paper's base, and all
        devices, where it is left out.
    """
    import jax

    devices = jax.devices()
    used = config.parallel.devices if config else 0
    beyond = environment.recorded(deterministic=bool(config) and config.parallel.deterministic)
    return {
        "code": revision(),
        "numerics": fingerprint.numerics(config or {}),
        "versions": {"python": platform.python_version()}
        | {library: importlib.metadata.version(library) for library in LIBRARIES},
        "device": {
            "platform": devices[0].platform,
            "kind": processor() if devices[0].platform == "cpu" else devices[0].device_kind,
            "count": used or len(devices),
            "threads": determinism.threads(),
        },
    } | ({"environment": beyond} if beyond else {})


def describe_computing(config: ConfigDict, described: dict, side_by_side: int) -> dict:
    """Returns {"device", "versions", "program"}: what decides the last digits of a training's numbers, and no more.

    Beside them "environment" where any of it is set.

    Args:
      config: of the run.
      described: as `describe` gave it.
      side_by_side: how many runs train in one program.
    """
    device, parallel = dict(described["device"]), config.parallel
    device["count"] = parallel.devices or device["count"]  # those that are used
    if device["platform"] != "cpu":
        device.pop("threads", None)
    program = {name: parallel[name] for name in ("mode", "fsdp_shards", "deterministic")}
    program |= {"steps_per_dispatch": config.train.steps_per_dispatch, "side_by_side": side_by_side}
    program |= {"remat": True} if config.train.remat else {}  # which records without it did not know
    return {name: described[name] for name in DECIDING if name in described} | {"device": device, "program": program}


def revision() -> str:
    """Returns the git commit of this code, with "+" where files differ from it; "" outside a checkout.

    A repository that does not track this code, such as one that it is installed within, says nothing of it.
    """
    here = pathlib.Path(__file__).resolve()
    root = here.parents[2]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # GIT_DIR names another

    def git(*arguments):
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, env=plain, capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", "--", str(here.relative_to(root)))
        commit = git("rev-parse", "--short=12", "HEAD").strip()
        return commit + ("+" if git("status", "--porcelain", "--", "tx", "experiments") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""

"""Memory of a training step on an accelerator that need not be there, by its compiler's own analysis, cached."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

import tx.config
from experiments.bench.harness import compilers
from experiments.bench.harness.contestant import ROOT, Contestant, cores
from experiments.bench.harness.targets import TARGETS
from tx import plugins
from tx.data import cache
from tx.errors import UserError
from tx.files import digest, from_json, read_text, to_json, write_atomically

NAME = "figures.json"  # in an entry of the cache


class StepMemory(NamedTuple):
    """Memory of a training step.

    Attributes:
      bytes: on each device; None where the compiler refuses it without saying.
      fits: whether a device has as many.
      program: SHA-256 of the program: configurations that differ in numbers alone have one.
      compiler: its name and version.
    """

    bytes: float | None
    fits: bool
    program: str
    compiler: str


def step_memory(
    config: ConfigDict, *, target: str, devices: int, tell: Callable[[str], None] = lambda line: None
) -> StepMemory:
    """Returns the memory that a configuration's training step takes on each of so many devices of a target.

    A program is compiled once (key: its digest, the versions of what compiles it, the target), in a process of its own;
    of a configuration that was asked for before even the digest is known.

    Args:
      config: whose step it is; its `parallel.devices` is taken for `devices`.
      target: of `targets.TARGETS`.
      devices: of one run.
      tell: takes a line before the first look at a configuration, and before each compilation, which takes minutes.

    Raises UserError, with the reason, where there is no compiler for the target, or it cannot compile this.
    """
    python = compilers.python(target)
    flags = [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    tools = [compilers.toolchain(python), flags, target, devices]
    whole = config.to_dict()
    whole["parallel"]["devices"] = devices
    with contextlib.ExitStack() as closing:

        @functools.cache
        def compiler():
            arguments = {"target": target, "config": whole, "devices": devices}
            served, all_cores = "contestants.tx_compiled:Compiled", len(cores())
            return closing.enter_context(
                Contestant(f"the compiler for {target}", served, arguments, all_cores, python=python)
            )

        def asked(method, line):
            tell(line)
            try:
                return compiler()(method)
            except RuntimeError as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                raise UserError(f"the compiler for {target} broke off: {lines[-1].strip()}") from None

        told = f"{config.name} for {devices} {target}"
        key = cache.fingerprint(_training_fields(whole), _code(), *tools)
        program = _kept("lowered", key, lambda: asked("program", f"tracing {told}"))["digest"]
        key = cache.fingerprint(program, *tools)
        found = _kept("compiled", key, lambda: asked("memory", f"compiling {told}"))
    goal, versions = TARGETS[target], compilers.versions(python)
    # A compiler for TPUs refuses what does not fit; one for GPUs leaves that to the allocator.
    fits = not found["refused"] and (goal.platform == "tpu" or found["bytes"] <= goal.memory)
    name = next(name for name in versions if ("tpu" in name) == (goal.platform == "tpu"))
    return StepMemory(found["bytes"], fits, program, f"{name} {versions[name]}")


def _kept(kind, key, make):
    """Returns the figures of an entry of the cache, which `make` makes where it is missing."""
    path = cache.entry(kind, key, lambda folder: write_atomically(folder / NAME, to_json(make())))
    return from_json(read_text(path / NAME))


def _training_fields(config):
    """Returns the fields that a training step's program may depend on; some of them are but its numbers."""
    fields = tx.config.fields(config)
    how = {name: fields[name] for name in ("train.remat", "train.steps_per_dispatch")}
    return tx.config.training_fields(config) | {"train.seed": 0} | how


@functools.cache
def _code() -> list[str]:
    """Returns the digests of all code that a step may be made of: this project's, and files of the user's own."""
    own = sorted(pathlib.Path(ROOT, "tx").rglob("*.py"))
    return [digest(path) for path in (*own, *plugins.files())]

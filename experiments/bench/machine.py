"""The machine of a measurement: what it is, what is installed, and how fast it multiplies matrices."""

import importlib.metadata
import pathlib
import resource
import sys
import time

from experiments.bench.contestant import Contestant, cores
from experiments.bench.rounds import say
from tx import provenance

LIBRARIES = ("torch", "ctranslate2", "transformers")
PEAK_SIZE = 2048  # rows and columns of the matrices whose product is timed


def describe(threads: int) -> dict:
    """Returns {"machine", "versions", "revision"} of a measurement on `threads` threads."""
    record = provenance.describe()
    versions = record["versions"]
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    kind = record["device"]["kind"]
    machine = {"processor": kind, "cores": record["device"]["threads"], "threads": threads, "bound_to": cores(threads)}
    return {"machine": machine, "versions": versions, "revision": record["code"]}


def matmul_peak(libraries: tuple[str, ...], threads: int, size: int = PEAK_SIZE, repeats: int = 5) -> dict:
    """Returns the greatest float32 rate that a plain matrix product reaches here, in any of the libraries.

    {"flops": the greatest, operations per second; "by_library": {name: its greatest}; "size": of the matrices}.
    """
    rates = {}
    for library in libraries:
        with Contestant(
            f"the matrix product of {library}", "machine:Product", {"library": library}, threads
        ) as product:
            rates[library] = product("rate", size=size, repeats=repeats)["flops"]
        say(f"matrix product, {library}: {rates[library] / 1e9:.0f} GFLOP/s")
    return {"flops": max(rates.values()), "by_library": rates, "size": size}


class Product:
    """A square float32 matrix product in one library ("jax", "numpy" or "torch")."""

    def __init__(self, library: str):
        if library == "torch":
            import torch

            self._random = lambda n: torch.rand(n, n)
            self._multiply = lambda a, b: a @ b
        elif library == "jax":
            import jax

            self._random = lambda n: jax.random.uniform(jax.random.key(0), (n, n))
            product = jax.jit(lambda a, b: a @ b)
            self._multiply = lambda a, b: product(a, b).block_until_ready()
        else:
            import numpy as np

            self._random = lambda n: np.random.default_rng(0).random((n, n), np.float32)
            self._multiply = lambda a, b: a @ b

    def rate(self, size: int, repeats: int) -> dict:
        a, b = self._random(size), self._random(size)
        self._multiply(a, b)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            self._multiply(a, b)
            seconds.append(time.perf_counter() - start)
        return {"flops": 2 * size**3 / min(seconds)}


def peak_memory() -> float:
    """Returns the greatest resident memory of this process so far, in MiB."""
    try:
        # getrusage's figure would include what the parent had in memory when it started this process.
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
    except (OSError, StopIteration):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

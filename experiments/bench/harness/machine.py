"""Machine of a measurement: what it is, what is installed, and how fast it multiplies matrices."""

import importlib.metadata
import pathlib
import re
import resource
import sys
import time

from experiments.bench.harness.contestant import Contestant, cores
from experiments.bench.harness.rounds import say
from tx.runs import provenance

LIBRARIES = ("torch", "ctranslate2", "transformers")
REPEATS = 5  # of that product: the fastest counts
PEAK_SIZE = {"cpu": 2048, "gpu": 8192}  # rows and columns of the matrices whose product is timed
# What makers print for dense bfloat16 products, operations per second, by a word of the device's name.
DENSE_PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12}
_SLOWER = re.compile(r"\b(H100|H200)\b.*\b(PCIe|NVL)\b")  # cards of a name with those, of another peak


def is_called(kind: str, name: str) -> bool:
    """Returns whether a device is of a kind that is called by a name: as a whole word, and not a slower card of it."""
    return bool(re.search(rf"\b{re.escape(name)}\b", kind)) and not _SLOWER.search(kind)


class Provenance:
    """Provenance of a measurement, as a process on the platform reports it."""

    def describe(self) -> dict:
        """As tx.runs.provenance.describe."""
        return provenance.describe()


def describe(threads: int, platform: str) -> dict:
    """Returns {"machine", "versions", "revision"} of a measurement on `threads` threads."""
    with Contestant("the device", "harness.machine:Provenance", {}, threads, platform) as asked:
        record = asked("describe")
    versions = record["versions"]
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    kind = record["device"]["kind"]
    machine = {"processor": kind, "cores": len(cores()), "threads": threads, "bound_to": cores(threads)}
    return {"machine": machine, "versions": versions, "revision": record["code"]}


def matmul_peak(libraries: tuple[str, ...], threads: int, *, platform: str = "cpu", dtype: str = "float32") -> dict:
    """Returns the greatest rate that a plain matrix product reaches here, in any of the libraries.

    {"flops": the greatest, operations per second; "by_library": {name: its greatest}; "size": of the matrices; "dtype";
    "dense": what the device's maker prints, None where that is not known}.
    """
    size, rates, dense = PEAK_SIZE[platform], {}, None
    for library in libraries:
        arguments = {"library": library, "platform": platform, "dtype": dtype}
        label = f"the matrix product of {library}"
        with Contestant(label, "harness.machine:Product", arguments, threads, platform) as product:
            measured = product("rate", size=size, repeats=REPEATS)
        rates[library], dense = measured["flops"], measured.get("dense") or dense
        say(f"matrix product, {library}, {dtype}: {rates[library] / 1e9:.0f} GFLOP/s")
    return {"flops": max(rates.values()), "by_library": rates, "size": size, "dtype": dtype, "dense": dense}


class Product:
    """A square matrix product in one library ("jax", "numpy" or "torch"); numpy has float32 on a CPU alone."""

    def __init__(self, library: str, platform: str = "cpu", dtype: str = "float32"):
        self._dense = None
        if library == "torch":
            import torch

            device = "cuda" if platform == "gpu" else "cpu"
            if platform == "gpu":
                torch.set_float32_matmul_precision("high")  # of float32: TF32, as JAX's default is
            self._random = lambda n: torch.rand(n, n, device=device).to(getattr(torch, dtype))
            self._multiply = lambda a, b: a @ b
            self._wait = torch.cuda.synchronize if platform == "gpu" else lambda: None
        elif library == "jax":
            import jax

            self._random = lambda n: jax.random.uniform(jax.random.key(0), (n, n)).astype(dtype)
            product = jax.jit(lambda a, b: a @ b)
            self._multiply = lambda a, b: product(a, b).block_until_ready()
            self._wait = lambda: None
            kind = jax.devices()[0].device_kind
            if dtype == "bfloat16":
                self._dense = next((peak for name, peak in DENSE_PEAKS.items() if is_called(kind, name)), None)
        else:
            import numpy as np

            self._random = lambda n: np.random.default_rng(0).random((n, n), np.float32)
            self._multiply = lambda a, b: a @ b
            self._wait = lambda: None

    def rate(self, size: int, repeats: int) -> dict:
        """Returns {"flops": the greatest rate of `repeats` products, "dense": see `matmul_peak`}."""
        a, b = self._random(size), self._random(size)
        self._multiply(a, b)
        self._wait()
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            self._multiply(a, b)
            self._wait()
            seconds.append(time.perf_counter() - start)
        return {"flops": 2 * size**3 / min(seconds), "dense": self._dense}


def device_memory() -> float | None:
    """Returns the greatest memory of JAX's first device so far, in MiB; None on a CPU."""
    import jax

    kept = jax.local_devices()[0].memory_stats()
    return kept["peak_bytes_in_use"] / 2**20 if kept else None


def peak_memory() -> float:
    """Returns the greatest resident memory of this process so far, in MiB."""
    try:
        # getrusage's figure would include what the parent had in memory when it started this process.
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
    except (OSError, StopIteration):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

"""Resources of this machine, cores, GPUs and memory, and the share of them that each process gets."""

import dataclasses
import os
from collections.abc import Mapping

from tx.runtime.backend import gpus, tpus

RAY_PARTS = 10_000  # of a core or a GPU: what Ray counts in

# Threads for a core: one process's threads wait for each other at every small operation, and another's use the core
# meanwhile. Two runs of two threads at scale multi30k, on two cores: 1.15 times as many steps as one after the other.
THREADS_PER_CORE = 2


@dataclasses.dataclass(frozen=True)
class Slot:
    """Slot: a process's share of the machine.

    Attributes:
      cores: logical cores by number (none if they cannot be chosen).
      variables: of the environment, which choose a GPU.
    """

    cores: tuple[int, ...]
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)


def slots(jobs: int, threads: int = 1) -> list[Slot]:
    """Cuts this machine into equal slots: disjoint ones, unless there are fewer GPUs than jobs, or cores than threads.

    Args:
      jobs: how many slots.
      threads: the most in a job; a slot has as many cores if the machine does, so that the last job is not left on one.
    """
    cores, devices = _cores(), gpus()
    share = max(1, len(cores) // jobs)
    size = min(len(cores), max(share, threads))
    made = []
    for i in range(jobs):
        mine = tuple(sorted(cores[(i * share + k) % len(cores)] for k in range(size)))
        variables = {}
        if devices:
            variables["CUDA_VISIBLE_DEVICES"] = devices[i % len(devices)]
            if (together := -(-jobs // len(devices))) > 1:
                variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / together:.2f}"  # JAX takes it at its start
        made.append(Slot(mine if hasattr(os, "sched_setaffinity") else (), variables))
    return made


def default_jobs(jobs: int, need: float = 0.0, threads: int = 1) -> int:
    """Returns how many jobs to run at once: one a GPU, one on all TPUs, else by cores and memory.

    A core gets at most one job and two threads.

    Args:
      jobs: how many there are to do.
      need: the most memory that one takes, in bytes.
      threads: the most in one.
    """
    if there := gpus():
        return max(1, min(jobs, len(there)))
    if tpus():
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fit = min(len(_cores()), THREADS_PER_CORE * len(_cores()) // threads)
    return int(max(1, min(jobs, fit, memory // need if need else jobs)))


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))

"""Resources of this machine, cores, GPUs and memory, and the share of them that each process gets."""

import dataclasses
import os
from collections.abc import Iterable, Mapping

from tx.errors import UserError
from tx.runtime.backend import gpus, tpus

RAY_PARTS = 10_000  # of a core or a GPU: what Ray counts in
MEMORY_SHARE = 0.9  # of a GPU that processes which share it take together
# JAX takes it at its start, under its new name or its old one, and refuses both at once.
_MEMORY_FRACTION = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")

# Threads for a core: one process's threads wait for each other at every small operation, and another's use the core
# meanwhile. Two runs of two threads at scale multi30k, on two cores: 1.15 times as many steps as one after the other.
THREADS_PER_CORE = 2


@dataclasses.dataclass(frozen=True)
class Slot:
    """Slot: a process's share of the machine.

    Attributes:
      cores: logical cores by number (none if they cannot be chosen).
      variables: of the environment, which choose its GPUs.
    """

    cores: tuple[int, ...]
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)


def slots(jobs: int, threads: int = 1, devices: int = 1) -> list[Slot]:
    """Cuts this machine into equal slots: disjoint ones, unless there are fewer GPUs than jobs, or cores than threads.

    Args:
      jobs: how many slots.
      threads: the most in a job; a slot has as many cores if the machine does, so that the last job is not left on one.
      devices: GPUs of a slot, where there are any (`devices_per_process`).
    """
    cores, cards = _cores(), _cut(gpus(), devices)
    share = max(1, len(cores) // jobs)
    size = min(len(cores), max(share, threads))
    made = []
    for i in range(jobs):
        mine = tuple(sorted(cores[(i * share + k) % len(cores)] for k in range(size)))
        variables = {}
        if cards:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(cards[i % len(cards)])
            if (together := -(-jobs // len(cards))) > 1:
                variables |= memory_fraction(1 / together)
        made.append(Slot(mine if hasattr(os, "sched_setaffinity") else (), variables))
    return made


def memory_fraction(share: float) -> dict[str, str]:
    """Returns the environment that keeps a process to its share of a GPU's memory; {} where the user says how much."""
    if any(os.environ.get(name) for name in _MEMORY_FRACTION):
        return {}
    return {_MEMORY_FRACTION[-1]: f"{MEMORY_SHARE * share:.2f}"}


def default_jobs(jobs: int, need: float = 0.0, threads: int = 1, devices: int = 1) -> int:
    """Returns how many jobs to run at once: one for each `devices` GPUs, one on all TPUs, else by cores and memory.

    A core gets at most one job and two threads.

    Args:
      jobs: how many there are to do.
      need: the most memory that one takes, in bytes.
      threads: the most in one.
      devices: GPUs of one, where there are any.
    """
    if there := gpus():
        return max(1, min(jobs, len(_cut(there, devices))))
    if tpus():
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fit = min(len(_cores()), THREADS_PER_CORE * len(_cores()) // threads)
    return int(max(1, min(jobs, fit, memory // need if need else jobs)))


def devices_per_process(asked: Iterable[int], there: int | None = None) -> int:
    """Returns how many GPUs each process gets: the most that any run asks for; 1 where there are none to share out.

    Args:
      asked: `parallel.devices` of the runs; 0 is all.
      there: how many GPUs a worker has on another machine; None for those of this one.

    Raises UserError where a run asks for more.
    """
    asked = set(asked)
    here = there is None
    if here:
        there = _most(gpus())
    if not there:
        return 1
    if (wanted := max(asked, default=1)) > there:
        has = f"{'this machine' if here else 'a worker'} has {there} GPU{'' if there == 1 else 's'} for a process"
        others = "or to 0 for all" if here else f"to 0 for all, or --gpus to {wanted}"
        raise UserError(f"parallel.devices={wanted}, but {has}; set it to at most {there}, {others}")
    return there if 0 in asked else wanted


def _most(cards: list[str]) -> int:
    """Returns how many of some GPUs one process can compute on: CUDA shows it no more than one instance of MIG."""
    return 1 if any(card.startswith("MIG-") for card in cards) else len(cards)


def _cut(cards: list[str], size: int) -> list[list[str]]:
    """Cuts GPUs into consecutive groups of a size; those at the end that are too few for another are left out."""
    return [cards[k : k + size] for k in range(0, len(cards) - size + 1, size)]


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))

"""Hosts of one run on a Ray cluster: a node for each of its processes, which find one another by `TX_COORDINATOR`.

Ray's environment does not say which of several processes one is, nor where the first is: nothing there could be
detected. So who asks for the nodes says it. Process 0 is made as any run is (`launch.ray_pool.make_on_node`), and alone
writes the run's folder; the others end with it, or with their node.
"""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from launch.plan import PlannedRun
from launch.pool import GRACE, Command, log_path
from launch.resources import RAY_PARTS, slots
from tx.runtime.environment import COORDINATOR, PROCESS, PROCESSES
from tx.runtime.signals import PARENT


class Hosts:
    """Nodes that a run's processes are to be on, one on each.

    Args:
      count: how many.
      needs: {"CPU", "GPU"}: of each.
    """

    def __init__(self, count: int, needs: Mapping[str, float]):
        self.count, self._needs = count, {name: number for name, number in needs.items() if number}

    def reserve(self) -> PlacementGroup | None:
        """Returns nodes for a run, which it may have to wait for; None where any one will do."""
        if self.count == 1:
            return None
        return ray.util.placement_group([self._needs] * self.count, strategy="STRICT_SPREAD")

    def room(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Returns how many runs fit at once on nodes that have so much of each."""
        needs = {name: _parts(number) for name, number in self._needs.items()}
        fits = [min(_parts(node.get(name, 0)) // parts for name, parts in needs.items()) for node in nodes]
        runs = sum(fits) // self.count
        while sum(min(fit, runs) for fit in fits) < runs * self.count:  # a node has one process of a run at most
            runs -= 1
        return runs


def _parts(number):
    """Returns a number of cores or GPUs in the parts that Ray counts in: of floats 1 // 0.1 is 9."""
    return round(number * RAY_PARTS)


def on(group: PlacementGroup, index: int) -> PlacementGroupSchedulingStrategy:
    """Returns what has a task run on one of the nodes."""
    return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)


def first_variables(count: int) -> dict[str, str]:
    """Returns the environment of process 0 of so many, which is to be on this node."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    return {COORDINATOR: f"{ray.util.get_node_ip_address()}:{port}", PROCESSES: str(count), PROCESS: "0"}


@contextlib.contextmanager
def others(
    group: PlacementGroup,
    runs: Sequence[PlannedRun],
    folder: str,
    command: Command,
    variables: Mapping[str, str],
    threads: int,
) -> Iterator[None]:
    """Has the processes from 1 on run beside the body; they are ended after it, as a launch ends its runs.

    Args:
      folder: that the launch was started in, as `enter` takes it.
      variables: of the environment of process 0.
    """
    needs = [{"num_cpus": one.get("CPU", 0), "num_gpus": one.get("GPU", 0)} for one in group.bundle_specs]
    tasks = [
        ray.remote(**needs[k], max_retries=0, scheduling_strategy=on(group, k))(_accompany).remote(
            runs, folder, command, {**variables, PROCESS: str(k)}, threads
        )
        for k in range(1, len(needs))
    ]
    try:
        yield
    finally:
        for task in tasks:
            ray.cancel(task)  # of one that has ended nothing comes
        ray.wait(tasks, num_returns=len(tasks), timeout=GRACE + 5)


def enter(folder: str) -> None:
    """Makes the folder that a launch was started in the current one, where this node has it.

    Ray starts tasks in the folder that the node was started in, while $TX_DATA_DIR, $TX_CACHE_DIR, $PYTHONPATH and
    data.dir may hold paths that are relative to the launch's.
    """
    with contextlib.suppress(OSError):
        os.chdir(folder)


def _accompany(
    runs: Sequence[PlannedRun], folder: str, command: Command, variables: Mapping[str, str], threads: int
) -> int:
    """Runs a process on this node until it ends; what it says lies beside the log of process 0."""
    enter(folder)
    os.environ.update(variables)
    own = {"PYTHONUNBUFFERED": "1", PARENT: str(os.getpid())}
    log = log_path(runs[0])
    with open(log.with_stem(f"{log.stem}.{variables[PROCESS]}"), "a", encoding="utf-8") as said:
        process = subprocess.Popen(
            command(runs),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=os.environ | own,
            start_new_session=True,
        )
    with contextlib.suppress(OSError):
        os.sched_setaffinity(process.pid, slots(1, threads)[0].cores)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

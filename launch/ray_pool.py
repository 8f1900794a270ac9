"""Pool of tasks on a Ray cluster: each makes one group of runs in a process on its node."""

import contextlib
import dataclasses
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence

import ray
from ray import exceptions
from ray.util.placement_group import PlacementGroup

from launch import ray_hosts
from launch.plan import PlannedRun
from launch.pool import GRACE, Command, Job, Outcome, Pool, log_path, of_result
from launch.ray_hosts import Hosts
from launch.resources import Slot, memory_fraction
from launch.worker import POLL
from tx.errors import UserError
from tx.runs import lease
from tx.runtime.clock import running_time

RETRIES = 3  # how often Ray starts a task again whose node has died
PASSED_ON = ("TX_", "JAX_", "XLA_", "PYTHONPATH")  # beginnings of the variables that nodes get from here
PATIENCE = 10.0  # seconds that the head of a cluster has to answer


def join(address: str | None) -> None:
    """Joins the cluster at an address, at $RAY_ADDRESS or on this machine; starts one here where there is none.

    Raises UserError where the cluster cannot be reached.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
    where = address or os.environ.get("RAY_ADDRESS") or "this machine"
    try:
        if match := re.fullmatch(r"([^:/]+):(\d+)", where):  # Ray would go on trying for minutes
            socket.create_connection((match[1], int(match[2])), PATIENCE).close()
        ray.init(address=address, log_to_driver=False, logging_level="warning", include_dashboard=None)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"no Ray cluster at {where}: {' '.join(str(error).split())}") from None


@dataclasses.dataclass
class RayJob(Job):
    """Task, and the runs that it makes.

    Attributes:
      task: the reference to what it returns.
      group: the nodes that are reserved for it, where it has several.
      outcomes: of its runs, in their order, once it has ended.
    """

    task: object = None
    group: object = None
    outcomes: Sequence[Outcome] = ()

    def outcome(self, run: PlannedRun) -> Outcome:
        return self.outcomes[[one.folder.path for one in self.runs].index(run.folder.path)]


class RayPool:
    """Pool of tasks on the cluster that this process has joined; a context manager, which ends what still runs.

    Raises UserError where no node has what a task needs.

    Args:
      jobs: how many tasks at once; None for as many as there is room for.
      command: the command line of a process.
      defaults: environment variables for the processes where nodes have none of that name.
      threads: the most in a process.
      stalled: seconds without progress after which a process is ended.
      cpus: cores of a task.
      gpus: GPUs of a task, or the share of one.
      hosts: nodes of a run, each with a process, and so much for it.
    """

    def __init__(
        self,
        jobs: int | None,
        command: Command,
        defaults: dict[str, str],
        threads: int,
        stalled: float,
        *,
        cpus: float,
        gpus: float,
        hosts: int = 1,
    ):
        self.running: list[RayJob] = []
        needs = {"CPU": cpus, "GPU": gpus}
        self._jobs, self._hosts = jobs, Hosts(hosts, needs)
        variables = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        if 0 < gpus < 1:
            defaults = defaults | memory_fraction(gpus)
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(make_on_node)
        asked = os.getcwd(), command, variables, defaults, threads, stalled

        def make(runs, group):
            chosen = task if group is None else task.options(scheduling_strategy=ray_hosts.on(group, 0))
            return chosen.remote(runs, *asked, group)

        self._make = make
        if not jobs and not self._room():
            each = " and ".join(f"{number:g} {name}" for name, number in needs.items() if number)
            short = f"no node of the Ray cluster has {each}" if hosts == 1 else f"no {hosts} nodes have {each} each"
            raise UserError(f"{short}; with --jobs=N runs wait for {'one that has' if hosts == 1 else 'them'}")

    @property
    def free(self) -> bool:
        """Whether there is room for another task."""
        return len(self.running) < (self._jobs or max(1, self._room()))

    def start(self, runs: Sequence[PlannedRun]) -> RayJob:
        """Hands runs over to a task."""
        trains = runs[0].trained_in is None  # what translates alone has no use for several
        group = self._hosts.reserve() if trains else None
        job = RayJob(runs, None, None, task=self._make(runs, group), group=group)
        with contextlib.suppress(OSError):
            job.noted_until = job.log_start = log_path(runs[0]).stat().st_size
        self.running.append(job)
        return job

    def finished(self) -> list[RayJob]:
        """Returns the jobs that have ended since the last call."""
        if not self.running:
            return []
        ended, _ = ray.wait([job.task for job in self.running], num_returns=len(self.running), timeout=0)
        jobs = [job for job in self.running if job.task in ended]
        for job in jobs:
            job.ended = running_time()
            job.outcomes = _outcomes(job)
            _release(job)
            self.running.remove(job)
        return jobs

    def _room(self) -> int:
        """Returns how many runs fit on the nodes that are alive."""
        return self._hosts.room([node["Resources"] for node in ray.nodes() if node["Alive"]])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        tasks = [job.task for job in self.running]
        for task in tasks:
            ray.cancel(task)  # which ends its process as a launch does that is interrupted
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=GRACE + 5)
        for job in self.running:
            _release(job)
        self.running.clear()


def _release(job):
    """Gives the nodes back that were reserved for a job."""
    if job.group is not None:
        ray.util.remove_placement_group(job.group)


def make_on_node(
    runs: Sequence[PlannedRun],
    folder: str,
    command: Command,
    variables: Mapping[str, str],
    defaults: dict[str, str],
    threads: int,
    stalled: float,
    group: PlacementGroup | None,
) -> list[Outcome]:
    """Makes runs side by side in a process on this node, and returns what became of each.

    Args:
      folder: that the launch was started in, as `ray_hosts.enter` takes it.
      variables: of the environment, which the process is to have.
      group: nodes of one run on several, of which this is the first.
    """
    ray_hosts.enter(folder)
    context = ray.get_runtime_context()
    engine = {lease.ENGINE: f"ray job {context.get_job_id()} node {context.get_node_id()[:8]}"}
    several = {} if group is None else ray_hosts.first_variables(len(group.bundle_specs))
    os.environ.update({**variables, **engine, **several})
    with contextlib.ExitStack() as ending, Pool(1, command, defaults, threads, stalled) as pool:
        if os.environ.get("CUDA_VISIBLE_DEVICES"):  # Ray has chosen them, all for this task
            pool.free = [Slot(slot.cores) for slot in pool.free]
        job = pool.start(runs)  # which hands over what the others read
        if group is not None:
            variables = {**defaults, **variables, **engine, **several}
            ending.enter_context(ray_hosts.others(group, runs, folder, command, variables, threads))
        while not pool.finished():
            time.sleep(POLL)
    return [job.outcome(run) for run in runs]


def _outcomes(job: RayJob) -> list[Outcome]:
    """Returns what became of the runs of a task that has ended, or of whose nodes none has survived it."""
    try:
        outcomes = ray.get(job.task)
    except exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        failed = Outcome("failed", f"{type(error).__name__}: {lines[0] if lines else 'no more is known'}")
        return [of_result(run) if run.folder.result.exists() else failed for run in job.runs]
    # What was interrupted was so by others, as a node that is taken away does: it goes on elsewhere.
    return [Outcome("held") if one.name == "interrupted" else one for one in outcomes]

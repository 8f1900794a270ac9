"""Distributed training: several processes that train one run (jax.distributed), of which the first alone writes.

Every process is started with the same command line and three environment variables:

    TX_COORDINATOR=HOST:PORT TX_PROCESSES=N TX_PROCESS=K

HOST is where process 0 runs and K counts from 0. TX_COORDINATOR=auto alone leaves all three to JAX, which finds them
under Slurm, Open MPI, Kubernetes and on TPU pods. Without these variables a process is on its own, and everything here
does nothing.

All processes read the same data, plan the same batches, of which each makes its own rows (`share`), and compute the
same things. Process 0 alone reads and writes the run's folder, so no file system need be shared. SIGTERM to any of them
has all save the same step and end (`asked_to_end`).
"""

import contextlib
import itertools
import json
import os
import pathlib
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from tx.errors import UserError
from tx.runtime.environment import COORDINATOR, PROCESS, PROCESSES, VARIABLES
from tx.runtime.signals import Interrupted

PATIENCE = 30  # seconds that a process which fails waits for the others; then all of them are ended
# Of `asked_to_end`: before the first one JAX takes every process for one at 0, whatever step its training goes on from.
_times = itertools.count(1)


def join() -> None:
    """Joins the other processes where the environment says that there are some; call it before JAX starts.

    Raises UserError where the environment says it by halves, or the coordinator cannot be reached.
    """
    given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if not given:
        return
    settings = {} if given == {COORDINATOR: "auto"} else _settings(given)
    # It takes SIGTERM for the notice that a machine is withdrawn: no process ends by it before all have saved.
    jax.config.update("jax_enable_preemption_service", True)
    try:
        jax.distributed.initialize(**settings, shutdown_timeout_seconds=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"no joining by {COORDINATOR}={given[COORDINATOR]}: {error}") from None


def _settings(given):
    if missing := [name for name in VARIABLES if name not in given]:
        raise UserError(f"{' and '.join(given)} set, but not {' and '.join(missing)}; set all three or none")
    if not re.fullmatch(r".+:\d+", given[COORDINATOR]):
        raise UserError(f"{COORDINATOR} must be HOST:PORT, or auto and nothing else; got {given[COORDINATOR]!r}")
    numbers = [given[PROCESSES], given[PROCESS]]
    if not all(re.fullmatch(r"\d+", number) for number in numbers) or int(numbers[1]) >= int(numbers[0]):
        raise UserError(f"{PROCESS} must be one of 0 to {PROCESSES} - 1; got {numbers[1]!r} of {numbers[0]!r}")
    return {
        "coordinator_address": given[COORDINATOR],
        "num_processes": int(numbers[0]),
        "process_id": int(numbers[1]),
        "cluster_detection_method": "deactivate",  # what Slurm knows of this process is not asked for
    }


def is_primary() -> bool:
    """Returns whether this is process 0, the one that reads and writes the run's folder."""
    return jax.process_index() == 0


def share() -> tuple[int, int]:
    """Returns (this process's number, from 0; how many there are), for what each makes a part of."""
    return jax.process_index(), jax.process_count()


@contextlib.contextmanager
def one_voice(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives the first process the run's folder; the others write to one that is thrown away, and print nowhere."""
    if is_primary():
        yield folder
        return
    with (
        tempfile.TemporaryDirectory() as scratch,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        yield pathlib.Path(scratch)


def broadcast_value(decide: Callable[[], Any]) -> Any:
    """Returns what `decide` returns on the first process; the others do not call it. It must be JSON's.

    Raises UserError everywhere, with its text and status, where `decide` raises one.
    """
    if jax.process_count() == 1:
        return decide()
    answer = None
    if is_primary():
        try:
            answer = {"value": decide()}
        except UserError as error:
            answer = {"error": str(error), "status": error.status}
    text = json.dumps(answer).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.zeros(length, np.uint8)
    if is_primary():
        padded[:] = np.frombuffer(text, np.uint8)
    answer = json.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())
    if "error" in answer:
        error = UserError(answer["error"])
        error.status = answer["status"]
        raise error
    return answer["value"]


def asked_to_end() -> bool:
    """Returns whether this is the time for all processes to save and end, since one of them got SIGTERM.

    Every process has to ask equally often: after each step, and once more before they part. They agree on the first
    time that none of them has asked yet; a SIGTERM in the second before the last time finds none.
    """
    return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(next(_times))


def shared(tree: Any) -> Any:
    """Returns the first process's arrays on every process; the others give arrays of the same shapes and types."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def part() -> bool:
    """Parts from the other processes, once all are here; returns whether this is the first, which goes on alone."""
    alone = is_primary()
    if jax.distributed.is_initialized():
        multihost_utils.sync_global_devices("part")  # the first may still be writing a checkpoint
        jax.distributed.shutdown()
        signal.signal(signal.SIGTERM, _interrupt)  # nobody is left to agree with
    return alone


def _interrupt(number, _frame):
    raise Interrupted(signal.Signals(number).name)

"""Worker in a job of Slurm: a launch on the job's node, which saves and has its job requeued before the time limit."""

import os
import signal
import sys
from collections.abc import Sequence

import submitit

from launch import local
from launch.worker import Place
from tx.errors import INTERRUPTED_STATUS
from tx.runs import lease

PASSED_ON = "TX_"  # beginning of the variables that a node gets from here: files of --import, folders
MARGIN = 30.0  # seconds of the notice that the runs do not get: asking for the requeue takes some


class SlurmWorker:
    """One of several workers that make a sweep; submitit calls it in a job, and again when the job was requeued.

    Args:
      arguments: of `launch.local`.
      number: of the worker, from 0.
      since: when the launch was asked for, in seconds since 1970.
      notice: seconds before the time limit at which Slurm sends its signal.

    It has the variables of `PASSED_ON` from where it is made, since sbatch may be told to pass none on.
    """

    def __init__(self, arguments: Sequence[str], number: int, since: float, notice: float):
        self.arguments = list(arguments)
        self.variables = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        self.place = Place(number, stays=False, since=since, grace=max(notice - MARGIN, notice / 2))

    def __call__(self) -> None:
        """Makes runs until none is left; exits with the status of `launch.local` where that is not 0."""
        for name, value in self.variables.items():
            os.environ.setdefault(name, value)  # what the job's own shell sets stays
        os.environ[lease.ENGINE] = f"slurm job {submitit.JobEnvironment().job_id}"
        number = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")
        requeue = signal.getsignal(number)  # submitit's: asks for it, and ends this process
        noticed = []

        def stop(*_):
            signal.signal(number, signal.SIG_IGN)  # another one must not cut the saving short
            noticed.append(True)
            raise KeyboardInterrupt

        signal.signal(number, stop)
        try:
            status = local.main(self.arguments, place=self.place)
        except KeyboardInterrupt:
            status = INTERRUPTED_STATUS
        except SystemExit as ended:  # an interruption before the first run, or after the last, is one
            status = ended.code
        if noticed:
            requeue(number, None)
        if status:
            sys.exit(status)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Returns what the requeued job is to call: the same, since all that was made is in the runs' folders."""
        return submitit.helpers.DelayedSubmission(self)

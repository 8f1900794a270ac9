"""Contestant: a process of its own, so that thread pools and memory do not mix, that works when it is told to."""

import contextlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from tx.errors import UserError

_THREAD_VARIABLES = ("PJRT_NPROC", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ROOT = pathlib.Path(__file__).resolve().parents[3]
PLATFORMS = {"cpu": "cpu", "gpu": "cuda"}  # as commands name them: as JAX does


def variables(threads: int, platform: str) -> dict[str, str]:
    """Returns the environment of a process that computes with so many threads on a platform."""
    on_platform = {"JAX_PLATFORMS": PLATFORMS[platform]}
    if platform == "gpu":
        on_platform["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # contestants share the card
    return dict.fromkeys(_THREAD_VARIABLES, str(threads)) | on_platform


class Contestant:
    """One process of `worker.py`; a method call is a line to it and a line back.

    Args:
      label: its name in messages and results.
      served: "MODULE:CLASS" of experiments.bench, what it makes one of.
      arguments: of that class; anything that JSON can hold.
      threads: its libraries use so many, and it is bound to so many cores.
      platform: of JAX, "cpu" or "gpu".
      python: the interpreter; it need not have this project installed.

    Raises UserError where its work does so with one, RuntimeError with the end of its log where it breaks off.
    """

    def __init__(
        self,
        label: str,
        served: str,
        arguments: dict,
        threads: int,
        platform: str = "cpu",
        python: str = sys.executable,
    ):
        self.label = label
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [python, "-m", "experiments.bench.harness.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            env=os.environ | variables(threads, platform) | {"PYTHONPATH": _path()},
        )
        try:
            self._exchange({"served": served, "arguments": arguments, "cores": cores(threads)})
        except BaseException:
            self.close()
            raise

    def __call__(self, method: str, **arguments) -> dict:
        """Returns what the method of the served object returns."""
        return self._exchange({"method": method, "arguments": arguments})

    def _exchange(self, message):
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._log.seek(0)
            tail = self._log.read()[-4000:].decode("utf-8", "replace")
            raise RuntimeError(f"{self.label} broke off with status {self._process.returncode}:\n{tail}")
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"{self.label}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _path():
    """Returns the module path of a contestant: before all others the folder that this project is in."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def cores(threads: int | None = None) -> list[int]:
    """Returns the cores to bind `threads` threads to (None: all there are); UserError where there are fewer."""
    there = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if threads is None:
        return there
    if not 1 <= threads <= len(there):
        raise UserError(f"--threads must lie between 1 and the {len(there)} cores of this machine; got {threads}")
    return there[:threads]


def need(module: str, what: str) -> None:
    """Raises UserError where a peer's library is not installed."""
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{what} needs {module}, which is not installed: pip install -e '.[bench]'")

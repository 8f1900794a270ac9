"""Our whole training loop as a contestant, with all or some of what guards a run; it advances when told to."""

import contextlib
import pathlib
import queue
import tempfile
import threading
import time
from unittest import mock

import numpy as np
from ml_collections import ConfigDict

from tx import plugins
from tx.runtime import determinism
from tx.runtime.backend import keep_freed_memory, one_step_at_a_time


class Loop:
    """Trains a run in a thread that waits before every step until it may make it.

    Args:
      config: a whole configuration as nested dicts, whose steps are never all made.
      kept: logs and checkpoints are written with "files"; with "checks", too, these have digests and say whose they
        are, gradients are measured and watched, and the folder is held by a lease.
    """

    def __init__(self, config: dict, kept: list[str]):
        self._config, self._kept = ConfigDict(config), kept
        keep_freed_memory()
        determinism.fix(self._config.parallel)
        one_step_at_a_time()
        plugins.load()
        self._allowed, self._asked = queue.Queue(), queue.Queue()
        self._tokens, self._failed = 0, None
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()
        self._await()

    def advance(self, steps: int) -> dict:
        """Makes so many steps; returns their seconds and target_tokens."""
        self._tokens, began = 0, time.perf_counter()
        for _ in range(steps):
            self._allowed.put(True)
            self._await()
        return {"seconds": time.perf_counter() - began, "target_tokens": self._tokens}

    def close(self) -> None:
        """Ends the training."""
        self._allowed.put(False)
        self._thread.join()

    def _await(self):
        """Waits until the loop has come to its next step."""
        if not self._asked.get():
            raise RuntimeError("the training broke off") from self._failed

    def _train(self):
        try:
            with contextlib.ExitStack() as stack:
                self._begin(stack)
        except _Enough:
            pass
        except BaseException as error:
            self._failed = error
            self._asked.put(False)

    def _begin(self, stack):
        from tx.data import tokenized
        from tx.runs import provenance
        from tx.runs.identity import Identity
        from tx.runs.lease import Lease
        from tx.runs.run_dir import RunDir
        from tx.training import loop
        from tx.training.outcome import described
        from tx.training.training_run import TrainingRun

        make = loop.make_step_over_devices

        def waiting(*configs):
            step = make(*configs)

            def wait(state, batch):
                self._asked.put(True)
                if not self._allowed.get():
                    raise _Enough
                self._tokens += int(np.count_nonzero(batch["tgt"]))
                return step(state, batch)

            return wait

        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(mock.patch.object(loop, "make_step_over_devices", waiting))
        checked = "checks" in self._kept
        lease = stack.enter_context(Lease(folder)) if checked else None
        for kind in {"files", "checks"}.difference(self._kept):
            _remove(kind, stack)
        data = tokenized.prepare(self._config.data, self._config.model.vocab_size)
        known = provenance.describe(self._config)
        identity = Identity.of(self._config, known | {"data": described(data)}) if checked else None
        run = TrainingRun(self._config, RunDir(folder), data, lease, identity)
        run.origin = provenance.describe_computing(self._config, known, 1) if checked else None
        loop.train([run])


class _Enough(BaseException):
    """The loop is no longer wanted."""


def _remove(kind, stack):
    import jax.numpy as jnp

    from tx.runs.checkpoints import Checkpoints
    from tx.runs.metrics_log import Log
    from tx.training import run_group, step
    from tx.training.training_run import TrainingRun

    blind = mock.Mock(observe=mock.Mock(return_value=()), flush=mock.Mock(return_value=()))
    guards = {
        "files": [(TrainingRun, "save", None), (Log, "write", None)],
        "checks": [
            (run_group, "LossMonitor", blind),
            (step.optax.tree, "norm", jnp.zeros(())),
            (Checkpoints, "_write_checksums", None),
            (Checkpoints, "_try", None),
            (Log, "_note", None),
        ],
    }
    for target, name, value in guards[kind]:
        stack.enter_context(mock.patch.object(target, name, return_value=value))

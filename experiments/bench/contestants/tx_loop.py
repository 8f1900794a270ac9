"""Our whole training loop as a contestant, with everything that guards a run or without; it advances when told to."""

import contextlib
import pathlib
import queue
import tempfile
import threading
import time
from unittest import mock

import numpy as np
from ml_collections import ConfigDict

from tx.runtime import determinism
from tx.runtime.backend import keep_freed_memory, one_step_at_a_time


class Loop:
    """Trains a run in a thread that waits before every step until it may make it.

    Args:
      config: a whole configuration as nested dicts, whose steps are never all made.
      guarded: whether gradients are measured and watched, logs and checkpoints written and the folder held by a lease.
    """

    def __init__(self, config: dict, guarded: bool):
        self._config, self._guarded = ConfigDict(config), guarded
        keep_freed_memory()
        determinism.fix(self._config.parallel)
        one_step_at_a_time()
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
        from tx.runs.lease import Lease
        from tx.runs.run_dir import RunDir
        from tx.training import loop
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
        lease = stack.enter_context(Lease(folder)) if self._guarded else None
        if not self._guarded:
            _remove_guards(stack)
        data = tokenized.prepare(self._config.data, self._config.model.vocab_size)
        loop.train([TrainingRun(self._config, RunDir(folder), data, lease)])


class _Enough(BaseException):
    """The loop is no longer wanted."""


def _remove_guards(stack):
    import jax.numpy as jnp

    from tx.runs.metrics_log import Log
    from tx.training import run_group, step
    from tx.training.training_run import TrainingRun

    blind = mock.Mock(observe=mock.Mock(return_value=()), flush=mock.Mock(return_value=()))
    for target, name, value in (
        (run_group, "LossMonitor", blind),
        (step.optax.tree, "norm", jnp.zeros(())),
        (TrainingRun, "save", None),
        (Log, "write", None),
    ):
        stack.enter_context(mock.patch.object(target, name, return_value=value))

"""Our start of a run that was stopped, as a contestant: from its folder to the state that training goes on with."""

import contextlib
import pathlib
import tempfile
import time
from unittest import mock

from ml_collections import ConfigDict

from tx import plugins
from tx.runtime import determinism


class Start:
    """Run that was stopped after some checkpoints, which is started as often as it is asked.

    Args:
      config: a whole configuration as nested dicts.
    """

    def __init__(self, config: dict):
        self._config = ConfigDict(config)
        determinism.fix(self._config.parallel)
        plugins.load()
        self._folder = tempfile.TemporaryDirectory()
        self._save()

    def start(self, checked: bool) -> dict:
        """Returns {"start_s": seconds}.

        Args:
          checked: whether what is there is looked at for whose it is, and the text for what the model cannot take.
        """
        from tx.training import experiment
        from tx.training.run_group import RunGroup

        began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            if not checked:
                for name in ("check_corpus", "set_aside_others"):
                    stack.enter_context(mock.patch.object(experiment, name))
            members, _ = experiment.claim_runs([(self._config, self._run)], stack)
            if checked:
                (members,) = experiment.split_by_start(members)
            _, first = RunGroup(members).start()
            seconds = time.perf_counter() - began
            if not first:
                raise RuntimeError("it begins anew")
            for m in members:
                m.batches.close()
                m.checkpoints.close()
        return {"start_s": seconds}

    def close(self) -> None:
        """Deletes the run."""
        self._folder.cleanup()

    def _save(self):
        """Saves the checkpoints and the log that such a run has shortly before its last step."""
        from tx.runs.metrics_log import Log
        from tx.runs.run_dir import RunDir
        from tx.training import experiment
        from tx.training.step import init_state

        recipe, self._run = self._config.train, RunDir(pathlib.Path(self._folder.name))
        with contextlib.ExitStack() as held:
            ((m,), _) = experiment.claim_runs([(self._config, self._run)], held)
            state = init_state(self._config)
            log = held.enter_context(Log(self._run, recipe.steps))
            for step in range(1, recipe.steps):
                if step % recipe.log_every == 0:
                    log.write(step, {"lr": 1.0}, {})
                if step % recipe.checkpoint_every == 0:
                    m.progress.log = log.written()
                    m.save(step, state, {"source": 0, "target": 0}, {}, 0.0)
            m.checkpoints.close()
            m.batches.close()

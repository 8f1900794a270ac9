"""Trials for MLflow: an experiment for each SWEEP@SCALE, a run for each seed, in a SQLite file or on a server."""

import pathlib
import re
from collections.abc import Sequence

from experiments.export.trials import Trial
from tx.errors import UserError

FILE = "mlflow.db"  # in a workdir
_STATES = {"done": "FINISHED", "failed": "FAILED", "begun": "RUNNING"}
_PARAMS, _METRICS = 100, 1000  # the most that one call may log
_LONGEST = 500  # letters of a tag or parameter; older servers take no more
_RUN, _DIGEST = "tx.path", "tx.digest"  # tags: which run it is, and what was exported of it


def uri_of(place: str | pathlib.Path) -> str:
    """Returns the tracking URI of a place: what is none is a SQLite file."""
    return place if isinstance(place, str) else f"sqlite:///{place.absolute()}"


def write(trials: Sequence[Trial], place: str | pathlib.Path) -> None:
    """Logs trials; a run that was exported before is left alone, or, if it has gone on since, logged anew.

    Raises UserError where MLflow is not installed or the place cannot be written.
    """
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise UserError("MLflow is not installed: pip install mlflow, in an environment of its own") from None
    if isinstance(place, pathlib.Path) and not place.parent.is_dir():
        raise UserError(f"no folder {place.parent}; choose another --out")
    try:
        client = mlflow.MlflowClient(tracking_uri=uri_of(place))
        for sweep in dict.fromkeys(trial.sweep for trial in trials):
            experiment = client.get_experiment_by_name(sweep)
            number = experiment.experiment_id if experiment else client.create_experiment(sweep)
            known = _known(client, number)
            for trial in trials:
                if trial.sweep == sweep:
                    _log(client, number, trial, known.get(str(trial.path.resolve())))
    except MlflowException as error:
        raise UserError(f"MLflow at {uri_of(place)}: {error}") from None


def _known(client, experiment):
    """Returns {path: run} of what was exported before."""
    found, token = {}, None
    while True:
        page = client.search_runs([experiment], page_token=token)
        found |= {run.data.tags[_RUN]: run for run in page if _RUN in run.data.tags}
        token = page.token
        if not token:
            return found


def _log(client, experiment, trial, known):
    from mlflow.entities import Metric, Param, RunTag

    if known is not None:
        if known.data.tags.get(_DIGEST) == trial.digest:
            return
        client.delete_run(known.info.run_id)
    name = f"{trial.row}/seed{trial.seed}"
    tags = {_RUN: str(trial.path.resolve()), "row": trial.group, "state": trial.state}
    tags |= {what: text[:_LONGEST] for what, text in (("diff", trial.diff), ("error", trial.error)) if text}
    run = client.create_run(experiment, start_time=_ms(trial.began), tags=tags, run_name=name).info.run_id
    params = [Param(field, str(value)[:_LONGEST]) for field, value in trial.config.items()]
    metrics = [
        Metric(_allowed(name), value, _ms(when), step)
        for step, when, values in (*trial.curve, (int(trial.metrics.get("steps", 0)), trial.ended, trial.metrics))
        for name, value in values.items()
    ]
    for start in range(0, len(params), _PARAMS):
        client.log_batch(run, params=params[start : start + _PARAMS])
    for start in range(0, len(metrics), _METRICS):
        client.log_batch(run, metrics=metrics[start : start + _METRICS])
    client.log_batch(run, tags=[RunTag(_DIGEST, trial.digest)])  # last: what was cut off is logged anew
    if trial.state != "begun":
        client.set_terminated(run, _STATES[trial.state], end_time=_ms(trial.ended))


def _ms(seconds):
    return int(seconds * 1000)


def _allowed(name):
    """Returns a name in the letters that MLflow takes."""
    return re.sub(r"[^\w./ -]", "_", name.replace("%", "percent"))

"""Trials for TensorBoard: the table of its HParams plugin, a line a row with its seeds, and every run's curves."""

import contextlib
import pathlib
from collections.abc import Sequence

from experiments.export.trials import Trial
from tx.errors import UserError
from tx.runs import tensorboard

FOLDER = "tensorboard"  # in a workdir
_STATES = {"done": "STATUS_SUCCESS", "failed": "STATUS_FAILURE", "begun": "STATUS_UNKNOWN"}


def write(trials: Sequence[Trial], folder: pathlib.Path) -> None:
    """Writes event files, in the place of those of an earlier export: SWEEP@SCALE/VARIANT/seedK, and what they share.

    The seeds of a row are the sessions of one group. Raises UserError where the folder cannot be written.
    """
    from tensorboard.plugins.hparams import summary_v2 as hparams  # slow to import; the other module imports TensorFlow

    fields = list(dict.fromkeys(field for trial in trials for field in trial.varied))
    names = list(dict.fromkeys(name for trial in trials for name in trial.metrics))
    kinds = {field: _kind([trial.varied[field] for trial in trials if field in trial.varied]) for field in fields}
    told = [{"sweep": t.sweep, "row": t.row} | {f: kinds[f](v) for f, v in t.varied.items()} for t in trials]
    params = [
        hparams.HParam(name, hparams.Discrete(sorted({one[name] for one in told if name in one})))
        for name in ("sweep", "row", *fields)
    ]
    try:
        with _events(folder) as events:
            config = hparams.hparams_config_pb(params, [hparams.Metric(name) for name in names])
            events.add_summary(config, min((trial.began for trial in trials), default=0.0))
        for old in filter(pathlib.Path.is_dir, folder.glob("*@*/**/seed*")):
            tensorboard.delete(old)  # also of runs that are gone, or left out now
        for trial, values in zip(trials, told, strict=True):
            with _events(folder / trial.sweep / trial.row / f"seed{trial.seed}") as events:
                start = hparams.hparams_pb(values, trial_id=trial.group, start_time_secs=trial.began)
                events.add_summary(start, trial.began)
                for step, when, scalars in trial.curve:
                    events.add(step, scalars, when)
                events.add(int(trial.metrics.get("steps", 0)), trial.metrics, trial.ended)
                events.add_summary(_end(trial), trial.ended)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None


def _events(folder):
    """Returns the only event file of a folder, to be closed."""
    folder.mkdir(parents=True, exist_ok=True)
    tensorboard.delete(folder)
    return contextlib.closing(tensorboard.Events(folder))


def _kind(values):
    """Returns the one type that a field's values are written as: a domain of TensorBoard's has no two."""
    types = {type(value) for value in values}
    if len(types) == 1 and types <= {bool, int, float, str}:
        return types.pop()
    return float if types == {int, float} else str


def _end(trial):
    """Returns the summary of a session's end; TensorBoard makes one in the module that imports TensorFlow alone."""
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value(_STATES[trial.state]), end_time_secs=trial.ended)
    told = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    summary = summary_pb2.Summary()
    summary.value.add(tag=metadata.SESSION_END_INFO_TAG, metadata=told, tensor=metadata.NULL_TENSOR)
    return summary

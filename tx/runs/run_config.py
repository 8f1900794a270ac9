"""Configuration of a run on disk: config.json, which the launcher writes and every command that opens the run reads."""

import contextlib
import os
import pathlib
from typing import NamedTuple

from ml_collections import ConfigDict

from tx import config as config_lib
from tx.errors import UserError, writing
from tx.files import to_json, write_atomically
from tx.runs import lease
from tx.runs.run_dir import RunDir
from tx.runs.state import refuse_other_configuration

_HANDED_OVER = {"name", "seed", "config"}  # what there is of config.json before the run has begun


class Request(NamedTuple):
    """Request for a run.

    Attributes:
      config: whole and validated.
      folder: the run's files.
      trained_in: the run whose parameters it takes; None where it is trained itself.
    """

    config: ConfigDict
    folder: RunDir
    trained_in: RunDir | None = None


def read_config(run: RunDir) -> ConfigDict:
    """Returns the configuration that a run's config.json holds, validated and locked.

    A field that it lacks was added since, and has its default. Raises UserError where the file is missing or damaged,
    or no run can have such a configuration.
    """
    config = config_lib.get_config()
    config_lib.update(config, config_lib.fields(run.read("config")["config"]), where=str(run.config))
    config_lib.validate(config)
    return config


def hand_over(request: Request) -> None:
    """Writes config.json into a run's folder, for the process that is to make the run; see `handed_over`.

    What the folder says of an earlier process's code stays, since its checkpoints are of that code. Where nothing
    differs nothing is written: another process may be at work there. A config.json that is damaged is written over;
    then the checkpoints beside it are nobody's (`tx.runs.identity`).

    Raises UserError where the folder holds a run of another configuration, or cannot be written.
    """
    config, run, trained_in = request
    run.finish_setting_aside()  # what is there of another run would else be taken for this one's
    there = run.read_if_whole("config") or {}
    wanted = {"name": config.name, "seed": config.train.seed} | there | {"config": config.to_dict()}
    wanted.pop("trained_in", None)
    if trained_in is not None:
        wanted["trained_in"] = os.path.relpath(trained_in.path, run.path)
    if to_json(wanted) == to_json(there):
        return
    if there:
        refuse_other_configuration(config, run)
    with writing(run.config):
        write_atomically(run.config, to_json(wanted))


def take_back(run: RunDir) -> None:
    """Deletes a config.json that nobody has begun the run of, so that another configuration may take its place."""
    with contextlib.suppress(UserError, OSError):  # what cannot be read or deleted stays
        as_written = run.read("config").keys() - {"trained_in"} == _HANDED_OVER
        if as_written and not run.result.exists() and not lease.holder(run.path):
            run.config.unlink()


def handed_over(run: RunDir) -> Request:
    """Returns what `hand_over` was given for a run's folder; UserError as `read_config`."""
    trained_in = run.read("config").get("trained_in")
    if trained_in is None:
        return Request(read_config(run), run)
    if not isinstance(trained_in, str):
        raise UserError(f"{run.config} is not what a run writes; put it back as it was, or launch the run anew")
    return Request(read_config(run), run, RunDir(pathlib.Path(os.path.normpath(run.path / trained_in))))

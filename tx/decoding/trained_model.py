"""Loading of a trained run: its configuration, parameters and data."""

import functools
import sys

from ml_collections import ConfigDict

from tx import config as config_lib
from tx.data import tokenized
from tx.errors import UserError
from tx.runs.run_config import read_config
from tx.runs.run_dir import RunDir
from tx.runs.selection import Selected, select_parameters


def open_run(run: RunDir, options: dict) -> tuple[ConfigDict, Selected, tokenized.PreparedData]:
    """Returns (configuration, parameters, data) of a trained run, decoding options replaced where they are given.

    Raises UserError where the folder holds no trained run, or the text is not the one it was trained on.
    """
    head, config = run.read("config"), read_config(run)
    given = {f"decode.{name}": value for name, value in options.items() if value is not None}
    config_lib.update(config, given, where="command line")
    config_lib.validate(config)
    if not run.checkpoints.is_dir():
        raise UserError(f"{run.path} has no checkpoints; train it first, or copy them beside its config.json")
    log = functools.partial(print, file=sys.stderr)  # standard output is for translations and scores
    data = tokenized.prepare(config.data, config.model.vocab_size, log)
    if config_lib.fields(head).get("data.vocabulary_fingerprint") != data.vocabulary.fingerprint:
        raise UserError(
            f"{run.path} was trained with other subwords: the text of {data.corpus.name} is not what it was; "
            "give the same text by TX_DATA_DIR"
        )
    config = tokenized.sized(config, data)
    return config, select_parameters(config, run), data

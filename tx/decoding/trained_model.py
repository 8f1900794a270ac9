"""Loading of a trained run: its configuration, parameters, subwords and data."""

import contextlib
import functools
import sys
from typing import NamedTuple

from ml_collections import ConfigDict

from tx import config as config_lib
from tx.data import tokenized
from tx.data.vocabulary import Vocabulary
from tx.errors import UserError
from tx.files import read_bytes
from tx.runs.run_config import read_config
from tx.runs.run_dir import RunDir
from tx.runs.selection import Selected, select_parameters


class OpenedModel(NamedTuple):
    """Trained model without the text that it was trained on.

    Attributes:
      config: of the run, with the size that the vocabulary has.
      selected: its parameters.
      vocabulary: its subwords.
    """

    config: ConfigDict
    selected: Selected
    vocabulary: Vocabulary


def open_model(run: RunDir, options: dict) -> OpenedModel:
    """Returns the model of a trained run, decoding options replaced where they are given.

    The text is read only where the run does not keep its subwords, as those of before they were kept.
    Raises UserError as `open_run`.
    """
    config, fingerprint, _ = _configuration(run, options)
    vocabulary = _kept_vocabulary(run, config, fingerprint) or _prepare(run, config, fingerprint).vocabulary
    config = tokenized.sized_for(config, vocabulary)
    return OpenedModel(config, select_parameters(config, run), vocabulary)


def open_run(run: RunDir, options: dict) -> tuple[ConfigDict, Selected, tokenized.PreparedData]:
    """Returns (configuration, parameters, data) of a trained run, decoding options replaced where they are given.

    Raises UserError where the folder holds no trained run, or the text, that of dev and test too, is not the run's.
    """
    config, fingerprint, text = _configuration(run, options)
    data = _prepare(run, config, fingerprint)
    if text and text != data.corpus.fingerprint:  # runs of before it was kept have none
        raise UserError(
            f"{run.path} was made with other text, of train, dev or test, than {data.corpus.name} has now; give the "
            "same text, in its folder (data.dir) or by TX_DATA_DIR; for other text use python -m tx.decode RUN FILE"
        )
    config = tokenized.sized(config, data)
    return config, select_parameters(config, run), data


def _configuration(run, options):
    """Returns the configuration of a run that has checkpoints, and the fingerprints of its vocabulary and text."""
    head, config = run.read("config"), read_config(run)
    given = {f"decode.{name}": value for name, value in options.items() if value is not None}
    config_lib.update(config, given, where="options of decoding")
    config_lib.validate(config)
    if not run.checkpoints.is_dir():
        raise UserError(f"{run.path} has no checkpoints; train it first, or copy them beside its config.json")
    made = config_lib.fields(head)
    return config, made.get("data.vocabulary_fingerprint"), made.get("data.fingerprint")


def _kept_vocabulary(run, config, fingerprint):
    """Returns the subwords that lie in a run's folder; None where they are not there, damaged, or not its own."""
    with contextlib.suppress(OSError, RuntimeError):
        vocabulary = Vocabulary(read_bytes(run.vocabulary), config.data.tokenizer, config.data.lowercase)
        return vocabulary if vocabulary.fingerprint == fingerprint else None
    return None


def _prepare(run, config, fingerprint):
    log = functools.partial(print, file=sys.stderr)  # standard output is for translations and scores
    data = tokenized.prepare(config.data, config.model.vocab_size, log)
    if fingerprint != data.vocabulary.fingerprint:
        raise UserError(
            f"{run.path} was trained with other subwords: the text of {data.corpus.name} is not what it was; "
            "give the same text by TX_DATA_DIR"
        )
    return data

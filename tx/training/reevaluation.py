"""Reevaluation of a trained model: a run that differs from it in decoding alone takes its parameters."""

import dataclasses
import os

from ml_collections import ConfigDict

from tx import config as config_lib
from tx.data import tokenized
from tx.decoding.limits import check_corpus
from tx.errors import UserError
from tx.evaluation.perplexity import described_dev, measure_dev
from tx.evaluation.translation import split_names
from tx.files import to_json, write_atomically
from tx.runs import fingerprint, provenance
from tx.runs.lease import Lease
from tx.runs.result import FORMAT, RunResult
from tx.runs.run_dir import RunDir
from tx.runs.selection import select_parameters
from tx.runs.state import describe_other_code, is_done, recorded
from tx.training.outcome import described, finish

_OF_TRAINING = ("train", "curve", "dev_last", "dev_best")  # what result.json says that is the other run's


def evaluate_with_trained_params(config: ConfigDict, run: RunDir, trained: RunDir) -> None:
    """Translates and scores with another run's parameters, and writes all files but those of training.

    A run that is done is left alone. Where and how the other was computed is no matter, and stands in result.json.

    Args:
      config, run: the run; its decode.average_last checkpoints are the other's.
      trained: the run that was trained.

    Raises UserError where that is not done, or was trained by other code or otherwise than this configuration says.
    """
    if is_done(config, run):
        return
    if not trained.result.exists():
        raise UserError(f"--trained_in: {trained.path} holds no trained run; train it first")
    other = trained.read_result()
    made, code = other.numerics, fingerprint.numerics(other.config)
    if made not in (None, code):  # the result would say that today's code has made it
        raise UserError(
            f"--trained_in: other code trained {trained.path}: {describe_other_code(made, code)}; "
            "launch that with --rerun_stale first"
        )
    was, now = (config_lib.training_fields(one) for one in (other.config, config))
    if differing := config_lib.differences(was, now):
        raise UserError(f"--trained_in: {trained.path} was trained otherwise, in {', '.join(sorted(differing))}")
    run.create()
    with Lease(run.path) as lease, recorded([(config, run)]):
        data = tokenized.prepare(config.data, config.model.vocab_size)
        check_corpus(config, data, split_names(config, data))
        made = {"fingerprint": other.data.fingerprint, "vocabulary_fingerprint": other.data.vocabulary_fingerprint}
        if made.items() - described(data).items():
            raise UserError(f"--trained_in: {trained.path} was trained on other text than {data.corpus.name} has now")
        head = {"format": FORMAT, "name": config.name, "seed": config.train.seed, "config": config.to_dict()}
        config = tokenized.sized(config, data)
        head |= provenance.describe(config) | {"data": described(data)}
        head["trained_in"] = os.path.relpath(trained.path, run.path)
        write_atomically(run.config, to_json(head))
        run.error.unlink(missing_ok=True)
        selected = select_parameters(config, trained)
        lease.set_status("evaluating")
        (dev,) = measure_dev(config, data, [selected.params])
        kept = {name: value for name, value in other.to_dict().items() if name in _OF_TRAINING}
        known = head | kept | {"timing": {"target_tokens_per_s": other.timing.target_tokens_per_s}}
        known["dev"] = described_dev(selected, dev)
        if origins := _origins(config, head, other):
            known["origins"] = origins
        finish(config, run, data, selected.params, known, 0.0, lease.set_status)


def _origins(config: ConfigDict, head: dict, other: RunResult) -> list[dict]:
    """Returns what another run's parameters were computed with, as result.json lists it; [] where `head` tells that.

    Args:
      config, head: of the run that takes them.
      other: the result of the one that was trained.
    """
    if None in (other.versions, other.device.platform):  # of before they were recorded
        return []
    found = [
        dataclasses.replace(one, seconds=None).to_dict() for one in other.origins or () if one.step <= other.train.steps
    ]
    stacked = other.timing.stacked or 1
    if not found:
        trained, known = config.copy_and_resolve_references(), config_lib.fields(config)
        where = {name: value for name, value in config_lib.fields(other.config).items() if config_lib.says_where(name)}
        config_lib.update(trained, {name: value for name, value in where.items() if name in known})
        found = [{"step": 1} | provenance.describe_computing(trained, other.to_dict(), stacked)]
    now = {"step": 1} | provenance.describe_computing(config, head, stacked)
    return [] if found == [now] else found

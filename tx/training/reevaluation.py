"""Reevaluation of a trained model: a run that differs from it in decoding alone takes its parameters."""

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
from tx.runs.result import FORMAT
from tx.runs.run_dir import RunDir
from tx.runs.selection import select_parameters
from tx.runs.state import describe_other_code, is_done, recorded
from tx.training.outcome import described, finish

_OF_TRAINING = ("train", "curve", "dev_last", "dev_best", "origins")  # what result.json says that is the other run's


def evaluate_with_trained_params(config: ConfigDict, run: RunDir, trained: RunDir) -> None:
    """Translates and scores with another run's parameters, and writes all files but those of training.

    A run that is done is left alone.

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
    apart = {name: value for name, value in now.items() if name.startswith("parallel.")}  # left out of `differences`
    differing = config_lib.differences(was, now).keys()
    if differing := differing | {name for name, value in apart.items() if was.get(name, value) != value}:
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
        finish(config, run, data, selected.params, known, 0.0, lease.set_status)

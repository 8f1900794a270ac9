"""Outcome of a run: translations, scores and result.json."""

from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from tx.data import tokenized
from tx.evaluation import metrics
from tx.evaluation.attention_probe import measure_attention
from tx.evaluation.perplexity import dev_batches
from tx.evaluation.translation import evaluate_translations
from tx.files import write_atomically
from tx.runs.metrics_log import read_metrics
from tx.runs.result import RunResult
from tx.runs.run_dir import RunDir
from tx.runtime.clock import running_time
from tx.runtime.memory import named_decoding


def described(data: tokenized.PreparedData) -> dict[str, str]:
    """Returns what config.json and result.json say of the data."""
    return {
        "corpus": data.corpus.name,
        "fingerprint": data.corpus.fingerprint,
        "vocabulary_fingerprint": data.vocabulary.fingerprint,
    }


def finish(
    config: ConfigDict,
    run: RunDir,
    data: tokenized.PreparedData,
    params: dict,
    known: dict,
    train_s: float,
    set_status: Callable[[str], None],
    apart: bool = False,
) -> None:
    """Translates, scores and writes result.json.

    Args:
      config, run, data: of the run.
      params: as they were trained.
      known: what result.json says of where it comes from, of training and of dev perplexity.
      train_s: the seconds of the training; 0 where it was another run's.
      set_status: called with what is being done.
      apart: whether to score in processes of their own, so that threads that do this at the same time gain by it.
    """
    set_status("translating")
    began = running_time()
    with named_decoding(config):
        translated = evaluate_translations(config, params, data, run, apart)
    decode_s = running_time() - began
    result = known | {
        "params": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "vocab_size": config.model.vocab_size,
        "tests": {split: one.scores for split, one in translated.items()},
        "decode": config.decode.to_dict(),
        "timing": {"train_s": train_s, "decode_s": decode_s, "total_s": train_s + decode_s} | known["timing"],
    }
    if config.probe.attention:
        set_status("looking into attention")
        result["attention"] = measure_attention(config, params, dev_batches(config, data))
    made = metrics.add(RunResult.from_dict(result), config, translated)
    set_status("writing the result")
    write_atomically(run.result, made.to_json())


def thinned_curve(run: RunDir, points: int = 100) -> list[dict]:
    """Returns at most about `points` lines of losses, and every dev perplexity, for result.json."""
    lines = [{k: v for k, v in line.items() if k != "timing"} for line in read_metrics(run)]
    losses = [line for line in lines if "loss" in line]
    stride = -(-len(losses) // points) or 1
    kept = losses[::-1][::stride] + [line for line in lines if "loss" not in line]
    return sorted(kept, key=lambda line: line["step"])

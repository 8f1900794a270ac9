"""What a run leaves: result.json when it is done, error.json when it has failed; and what is there already."""

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from tx import config as config_lib
from tx.data import tokenized
from tx.errors import Diverged, UserError
from tx.evaluate import evaluate_translations
from tx.evaluation.attention_probe import measure_attention
from tx.evaluation.perplexity import dev_batches
from tx.files import to_json, write_atomically
from tx.runs.metrics_log import read_metrics
from tx.runs.run_dir import RunDir
from tx.runtime.memory import named_decoding

Run = tuple[ConfigDict, RunDir]


def is_done(config: ConfigDict, run: RunDir) -> bool:
    """Returns whether the folder holds the result; raises UserError where it holds a run of another configuration."""
    if run.config.exists():
        refuse_other_configuration(config, run)
        if run.result.exists():
            print(f"{run.result} is there: nothing to do")
            return True
    return False


def refuse_other_configuration(config: ConfigDict, run: RunDir) -> None:
    """Raises UserError where the folder holds a run of another configuration, with the fields that differ."""
    differing = [
        f"{name}: {there!r} there, {wanted!r} asked for"
        for name, (there, wanted) in config_lib.differences(run.read("config")["config"], config.to_dict()).items()
    ]
    if differing:
        raise UserError(
            f"{run.path} holds a run of another configuration ({'; '.join(differing)}); "
            "choose another --workdir or delete that folder"
        )


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
    tell: Callable[[str], None],
    apart: bool = False,
) -> None:
    """Translates, scores and writes result.json.

    Args:
      config, run, data: of the run.
      params: as they were trained.
      known: what result.json says of where it comes from, of training and of dev perplexity.
      train_s: the seconds of the training; 0 where it was another run's.
      tell: called with what is being done.
      apart: whether to score in processes of their own, so that threads that do this at the same time gain by it.
    """
    tell("translating")
    began = time.monotonic()
    with named_decoding(config):
        tests = evaluate_translations(config, params, data, run, apart)
    decode_s = time.monotonic() - began
    result = known | {
        "params": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "vocab_size": config.model.vocab_size,
        "tests": tests,
        "decode": config.decode.to_dict(),
        "timing": {"train_s": train_s, "decode_s": decode_s, "total_s": train_s + decode_s} | known["timing"],
    }
    if config.probe.attention:
        tell("looking into attention")
        result["attention"] = measure_attention(config, params, dev_batches(config, data))
    tell("writing the result")
    write_atomically(run.result, to_json(result))


@contextlib.contextmanager
def recorded(runs: Sequence[Run]):
    """Leaves error.json in the folders of runs that an error keeps from being done; what a user has to mend aside."""
    try:
        yield
    except (UserError, Diverged):  # the latter is recorded where it happens
        raise
    except Exception as error:
        for config, run in runs:
            if run.path.is_dir() and not run.result.exists() and not run.error.exists():
                record(config, run, error)
        raise


def record(config: ConfigDict, run: RunDir, error: Exception) -> None:
    """Writes error.json."""
    last_line = (str(error).splitlines() or [""])[0]
    report = {"name": config.name, "seed": config.train.seed, "error": f"{type(error).__name__}: {last_line}"}
    report["traceback"] = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):  # a full disk must not hide what happened
        write_atomically(run.error, to_json(report | getattr(error, "report", {})))


def thinned_curve(run: RunDir, points: int = 100) -> list[dict]:
    """Returns at most about `points` lines of losses, and every dev perplexity, for result.json."""
    lines = [{k: v for k, v in line.items() if k != "timing"} for line in read_metrics(run)]
    losses = [line for line in lines if "loss" in line]
    stride = -(-len(losses) // points) or 1
    kept = losses[::-1][::stride] + [line for line in lines if "loss" not in line]
    return sorted(kept, key=lambda line: line["step"])

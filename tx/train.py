"""Trains one configuration, from text to result.json.

The command line names a configuration and may change its fields:

    python -m tx.train --config=experiments/config.py:table3/A/h=1@multi30k --workdir=DIR [--config.train.steps=500 ...]
"""

import argparse
import functools
import pathlib
import sys
import time
import traceback

import jax
import numpy as np
from ml_collections import ConfigDict

from tx import commandline, processes, provenance
from tx import config as config_lib
from tx.checkpoint import Checkpoints
from tx.data import tokens
from tx.data.packing import Batch, TrainBatches, eval_batches, padding_share
from tx.decode import padded
from tx.errors import UserError, one_line_errors
from tx.evaluate import evaluate_translations, split_names
from tx.flops import training_flops
from tx.logs import Log, read_metrics
from tx.memory import keep_freed_memory
from tx.optim import schedule
from tx.parallel import Layout, gather, make_train_step
from tx.positions import check_length
from tx.run import RunDir, to_json, write_atomically
from tx.step import TrainState, init_state, make_eval


class Window:
    """Losses and token counts since the last line of the log; losses stay on the device until they are read."""

    def __init__(self):
        self.metrics, self.source, self.target, self.start = [], 0, 0, time.monotonic()

    def add(self, metrics: dict, batch: Batch) -> None:
        self.metrics.append(metrics)
        self.source += int(np.count_nonzero(batch["src"]))
        self.target += int(np.count_nonzero(batch["tgt"]))

    def read(self) -> tuple[dict, dict]:
        """Returns (mean loss and nll, tokens per second); waits for the last step."""
        host = jax.device_get(self.metrics)
        seconds = time.monotonic() - self.start
        values = {key: float(np.mean([m[key] for m in host])) for key in host[0]}
        return values, {
            "target_tokens_per_s": self.target / seconds,
            "tokens_per_s": (self.source + self.target) / seconds,
        }


def train(config: ConfigDict, data: tokens.PreparedData, run: RunDir) -> tuple[TrainState, dict]:
    """Trains to the last step, from the newest checkpoint if there is one.

    Returns the final state, on one device, and what result.json says of the training.
    """
    batches = TrainBatches(
        data.splits["train"],
        seed=config.train.seed,
        row_length=config.data.row_length,
        batch_rows=config.data.batch_rows,
    )
    if batches.too_long:
        limit = f"data.row_length={config.data.row_length}"
        print(f"{batches.too_long} training sentences are longer than {limit}: left out")
    evaluate = make_eval(
        config,
        eval_batches(data.splits["validation"], row_length=config.data.row_length, batch_rows=config.data.batch_rows),
    )
    layout = Layout(config)
    if not layout.one:
        print(layout)
    step_function, rate = make_train_step(config), schedule(config.optim, config.model.d_model)
    state, checkpoints = init_state(config), Checkpoints(run.checkpoints, config.train.keep_checkpoints)
    if (restored := checkpoints.restore(state)) is not None:
        state, batches.position = restored
    state = layout.place(state)
    first, last = int(state.step), config.train.steps
    totals = {side: batches.position.pop(f"{side}_tokens", 0) for side in ("source", "target")}
    padding, dev, values = [], None, {}
    began = time.monotonic() - batches.position.pop("seconds", 0.0)
    with Log(run, last, first) as log:
        window = Window()
        for step in range(first + 1, last + 1):
            batch = next(batches)
            state, metrics = step_function(state, batch)
            window.add(metrics, batch)
            padding.append(padding_share(batch))
            due = functools.partial(_due, step, last)
            if due(config.train.log_every):
                values, timing = window.read()
                log.write(step, values | {"lr": float(rate(step - 1))}, timing)
                totals = {"source": totals["source"] + window.source, "target": totals["target"] + window.target}
                window = Window()
            if due(config.train.eval_every):
                paused = time.monotonic()
                dev = evaluate(gather(state.params))
                log.write(step, {"dev_ppl": dev["ppl"], "dev_nll": dev["nll"]}, {})
                window.start += time.monotonic() - paused
            if due(config.train.checkpoint_every):
                seen = {f"{side}_tokens": totals[side] + getattr(window, side) for side in totals}
                seen["seconds"] = time.monotonic() - began
                checkpoints.save(step, gather(state), batches.position | seen)
    checkpoints.close()
    seconds = time.monotonic() - began
    state = gather(state)
    dev = dev or evaluate(state.params)
    return state, {
        "steps": last,
        "epochs": batches.epochs(),
        "source_tokens": totals["source"],
        "target_tokens": totals["target"],
        "padding_share": float(np.mean(padding)) if padding else None,
        "flops": training_flops(config),
        "final_loss": values.get("loss"),
        "too_long": batches.too_long,
        "dev": {"split": "validation", **dev},
        "seconds": seconds,
    }


def _due(step, last, every):
    return step % every == 0 or step == last


def run_experiment(config: ConfigDict, run: RunDir) -> None:
    """Trains, evaluates and writes every file of a run; what is done already is not done again."""
    record = provenance.describe()
    check_length(config.model.positions, config.data.row_length, config.model.max_positions)
    Layout(config)  # refuses what these devices cannot do
    if processes.agreed(lambda: is_done(config, run)):
        return
    data = tokens.prepare(config.data, config.model.vocab_size)
    # What translating would refuse is refused before the training, not after it.
    longest = max(int(data.splits[split].src_lengths.max()) for split in split_names(config, data))
    check_length(config.model.positions, padded(longest) + config.decode.extra_length, config.model.max_positions)
    processes.agreed(run.create)
    record["data"] = {
        "corpus": data.corpus.name,
        "fingerprint": data.corpus.fingerprint,
        "vocabulary_fingerprint": data.vocabulary.fingerprint,
    }
    head = {"format": 1, "name": config.name, "seed": config.train.seed, "config": config.to_dict(), **record}
    write_atomically(run.config, to_json(head))
    run.error.unlink(missing_ok=True)
    state, trained = train(config, data, run)
    if not processes.part():
        return
    seconds, dev = trained.pop("seconds"), trained.pop("dev")
    translating = time.monotonic()
    tests = evaluate_translations(config, state.params, data, run)
    decoded = time.monotonic() - translating
    head |= {
        "params": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "vocab_size": config.model.vocab_size,
        "train": trained,
        "dev": dev,
        "tests": tests,
        "decode": config.decode.to_dict(),
        "curve": thinned_curve(run),
        "timing": {
            "train_s": seconds,
            "decode_s": decoded,
            "total_s": seconds + decoded,
            "target_tokens_per_s": trained["target_tokens"] / seconds,
        },
    }
    write_atomically(run.result, to_json(head))


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


def thinned_curve(run: RunDir, points: int = 100) -> list[dict]:
    """Returns at most about `points` lines of losses, and every dev perplexity, for result.json."""
    lines = [{k: v for k, v in line.items() if k != "timing"} for line in read_metrics(run)]
    losses = [line for line in lines if "loss" in line]
    stride = -(-len(losses) // points) or 1
    kept = losses[::-1][::stride] + [line for line in lines if "loss" not in line]
    return sorted(kept, key=lambda line: line["step"])


@one_line_errors
def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tx.train",
        description=__doc__.splitlines()[0],
        epilog="--config=FILE.py:NAME names the configuration, --config.FIELD=VALUE changes a field of it.",
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="the run's own folder")
    _, _, rest = commandline.split_config_arguments(argv)
    workdir = parser.parse_args(rest).workdir
    config, _ = commandline.config_from(argv)
    keep_freed_memory()
    processes.join()
    with processes.one_voice(workdir) as folder:
        run = RunDir(folder)
        try:
            run_experiment(config, run)
        except UserError:
            raise
        except Exception as error:
            last_line = (str(error).splitlines() or [""])[0]
            report = {"name": config.name, "seed": config.train.seed, "error": f"{type(error).__name__}: {last_line}"}
            if run.path.is_dir():
                write_atomically(run.error, to_json(report | {"traceback": traceback.format_exc()}))
            raise


if __name__ == "__main__":
    main(sys.argv[1:])

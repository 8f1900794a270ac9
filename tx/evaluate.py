"""Scores a trained run again: dev perplexity and BLEU with another beam, length penalty or average of checkpoints.

    python -m tx.evaluate RUN [--beam=4] [--alpha=0.6] [--extra_length=50] [--average_last=1] [--splits=test,...]

Prints JSON and changes nothing in the run's folder.
"""

import argparse
import sys
import threading

import numpy as np
from ml_collections import ConfigDict

from tx import plugins
from tx.data import tokenized
from tx.decode import Translator, add_decoding_options, open_run, options_of
from tx.decoding.last_token import complete
from tx.errors import UserError, one_line_errors, writing
from tx.evaluation.perplexity import described_dev, measure_dev
from tx.evaluation.scores import score, score_apart
from tx.files import to_json, write_atomically
from tx.runs.run_dir import RunDir
from tx.runtime.memory import keep_freed_memory

_device = threading.Lock()


def evaluate_translations(
    config: ConfigDict, params: dict, data: tokenized.PreparedData, run: RunDir | None = None, apart: bool = False
) -> dict[str, dict]:
    """Translates and scores every split of `decode.splits`; keeps the translations in `run` if there is one.

    Where `decode.asks` is "last", a translation is the reference with its last token chosen by the model. Threads that
    call this translate one after the other; with `apart` each scores in a process of its own.

    Returns {split: scores} (tx/evaluation/scores.py), in the order of decode.splits, each with the "lengths" of its
    sentences: in subwords, of source or reference, whichever has more.
    """
    names, scores = split_names(config, data), {}
    pairs = [
        (data.splits[split].source(i), data.splits[split].target(i))
        for split in names
        for i in range(len(data.splits[split]))
    ]
    with _device:
        if config.decode.asks == "last":
            outputs = iter(complete(config, params, pairs))
        else:
            outputs = iter(Translator(config, params)([source for source, _ in pairs]))
    for split in names:
        hypotheses = [data.vocabulary.decode(next(outputs)) for _ in range(len(data.splits[split]))]
        if run is not None:
            # A translation may hold a line break (through a byte piece); the file keeps one sentence a line.
            lines = [hypothesis.replace("\n", " ") for hypothesis in hypotheses]
            with writing(run.translations(split)):
                write_atomically(run.translations(split), "".join(f"{line}\n" for line in lines))
        references = [target for _, target in data.pairs(split)]
        tokens_of = data.splits[split]
        lengths = np.maximum(tokens_of.src_lengths, tokens_of.tgt_lengths)
        scored = (score_apart if apart else score)(hypotheses, references, config.data.target)
        scores[split] = scored | {"lengths": lengths.tolist()}
    return scores


def split_names(config: ConfigDict, data: tokenized.PreparedData) -> list[str]:
    """Returns decode.splits as a list; UserError for one that the corpus lacks."""
    names = [name.strip() for name in config.decode.splits.split(",")]
    for name in names:
        if name not in list(data.splits):  # opening a split that is not there has an error of its own
            raise UserError(
                f"decode.splits: {data.corpus.name} has no split {name!r}; there are {', '.join(data.splits)}"
            )
    return names


@one_line_errors
def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tx.evaluate", description=__doc__.splitlines()[0])
    add_decoding_options(parser)
    parser.add_argument("--splits", help="comma-separated, instead of the run's own decode.splits")
    arguments = parser.parse_args(plugins.take(argv))
    keep_freed_memory()
    config, selected, data = open_run(RunDir(arguments.run), options_of(arguments) | {"splits": arguments.splits})
    (dev,) = measure_dev(config, data, [selected.params])
    scores = evaluate_translations(config, selected.params, data)
    print(
        to_json(
            {
                "name": config.name,
                "decode": config.decode.to_dict(),
                "dev": described_dev(selected, dev),
                "tests": {
                    split: {k: v for k, v in s.items() if not isinstance(v, list)} for split, s in scores.items()
                },
            }
        ),
        end="",
    )


if __name__ == "__main__":
    main(sys.argv[1:])

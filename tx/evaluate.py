"""Scores a trained run again: dev perplexity and BLEU with another beam, length penalty or average of checkpoints.

    python -m tx.evaluate RUN [--beam=4] [--alpha=0.6] [--length_penalty=wu2016] [--extra_length=50] [--average_last=1]
        [--splits=test,...]

Prints JSON and changes nothing in the run's folder. The text must be the run's; `tx.decode` translates any other.
"""

import sys

from tx import plugins, streams
from tx.cli import Parser, add_decoding_options, options_of
from tx.decoding.limits import check_corpus
from tx.decoding.trained_model import open_run
from tx.errors import one_line_errors
from tx.evaluation import metrics
from tx.evaluation.perplexity import described_dev, measure_dev
from tx.evaluation.translation import evaluate_translations, split_names
from tx.files import to_json
from tx.runs import imports
from tx.runs.result import RunResult
from tx.runs.run_dir import RunDir
from tx.runtime import backend, environment
from tx.runtime.backend import ARENAS, keep_freed_memory


@one_line_errors
def main(argv: list[str]) -> None:
    parser = Parser(prog="python -m tx.evaluate", description=__doc__.splitlines()[0])
    add_decoding_options(parser)
    parser.add_argument("--splits", help="comma-separated, instead of the run's own decode.splits")
    arguments = parser.parse_args(plugins.take(argv))
    imports.recall([arguments.run])
    environment.refuse_other_numbers()
    keep_freed_memory(ARENAS)
    backend.start()
    streams.write_utf8()
    run = RunDir(arguments.run)
    config, selected, data = open_run(run, options_of(arguments) | {"splits": arguments.splits})
    check_corpus(config, data, split_names(config, data))
    (dev,) = measure_dev(config, data, [selected.params])
    translated = evaluate_translations(config, selected.params, data)
    said = {"decode": config.decode.to_dict(), "dev": described_dev(selected, dev)}
    said["tests"] = {split: one.scores for split, one in translated.items()}
    print(to_json({"name": config.name} | _short(said) | _metrics(run, config, said, translated)), end="")


def _short(said):
    """Returns what is printed: of the scores, what is not of each sentence."""
    tests = {split: {k: v for k, v in s.items() if not isinstance(v, list)} for split, s in said["tests"].items()}
    return said | {"tests": tests}


def _metrics(run, config, said, translated):
    """Returns the metrics that the run was made with, of these translations; they may ask for all of its result."""
    if not config.probe.metrics:
        return {}
    if not run.result.exists():
        print(f"note: probe.metrics={config.probe.metrics} are of runs that are done", file=sys.stderr)
        return {}
    metrics.metrics.check(config.probe)
    result = RunResult.from_dict(run.read("result") | said | {"config": config.to_dict()})
    values = {name: one.values for name, one in (metrics.add(result, config, translated).metrics or {}).items()}
    return {"metrics": values}


if __name__ == "__main__":
    main(sys.argv[1:])

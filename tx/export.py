"""Exports a trained run's parameters to one safetensors file.

    python -m tx.export RUN [--out FILE] [--average_last=1]

A tensor's name is the path of a parameter with points, "encoder_0.self_attention.query.kernel", in the parameters' own
shapes and types. The metadata hold "name", "step", "parameters" (last, best or an average), "config" (JSON) and
"vocabulary_fingerprint"; the subwords lie in the run's vocabulary.model, for sentencepiece.
"""

import sys

import numpy as np
import safetensors.numpy
from flax import traverse_util

from tx import cli, plugins
from tx.decoding.trained_model import OpenedModel, open_model
from tx.errors import UserError, one_line_errors, printable, writing
from tx.files import to_json, write_atomically
from tx.runs import imports
from tx.runs.run_dir import RunDir
from tx.runtime import backend, environment

NAME = "parameters.safetensors"


@one_line_errors
def main(argv: list[str]) -> None:
    parser = cli.Parser(prog="python -m tx.export", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=cli.path, help="folder of a trained run, e.g. runs/table3@smoke/base/seed1")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help=f"by default {NAME} in the run's folder")
    parser.add_argument("--average_last", help="instead of the run's own decode.average_last")
    parser.add_argument(plugins.OPTION, metavar="FILE", help=plugins.HELP)
    arguments = parser.parse_args(plugins.take(argv))
    out = arguments.out or arguments.run / NAME
    if arguments.out and not out.parent.is_dir():
        raise UserError(f"--out: there is no folder {out.parent}")
    imports.recall([arguments.run])
    environment.refuse_other_numbers()
    backend.start()
    model = open_model(RunDir(arguments.run), {"average_last": arguments.average_last})
    with writing(out):
        write_atomically(out, to_safetensors(model))
    print(f"Written: {printable(str(out))}")


def to_safetensors(model: OpenedModel) -> bytes:
    """Returns the parameters and what they are of as a safetensors file."""
    config, selected, vocabulary = model
    tensors = {
        name: np.asarray(leaf, order="C")  # ascontiguousarray would give a number a dimension
        for name, leaf in traverse_util.flatten_dict(selected.params, sep=".").items()
    }
    return safetensors.numpy.save(
        tensors,
        {
            "name": config.name,
            "step": str(selected.step),
            "parameters": selected.name,
            "config": to_json(config.to_dict()),
            "vocabulary_fingerprint": vocabulary.fingerprint,
        },
    )


if __name__ == "__main__":
    main(sys.argv[1:])

"""Translates with a trained run: batched beam search, compiled once a shape.

    python -m tx.decode RUN [FILE] [--beam=4] [--alpha=0.6] [--extra_length=50] [--average_last=1]

RUN is a run's folder (".../seed1"); sentences come from FILE or standard input, one a line, and go to standard output.
An empty line stays empty.
"""

import argparse
import pathlib
import sys

import numpy as np

from tx import plugins
from tx.cli import add_decoding_options, options_of
from tx.data.text_lines import split_lines
from tx.data.vocabulary import EOS
from tx.decoding.limits import check_lines
from tx.decoding.trained_model import open_run
from tx.decoding.translator import Translator
from tx.errors import UserError, one_line_errors, printable
from tx.runs.run_dir import RunDir
from tx.runtime import environment
from tx.runtime.backend import keep_freed_memory


@one_line_errors
def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tx.decode", description=__doc__.splitlines()[0])
    add_decoding_options(parser)
    parser.add_argument("file", nargs="?", type=pathlib.Path, help="sentences, one a line (default: standard input)")
    arguments = parser.parse_args(plugins.take(argv))
    environment.refuse_other_numbers()
    keep_freed_memory()
    lines = [line.strip() for line in split_lines(*_text(arguments.file))]  # as the training text is
    config, selected, data = open_run(RunDir(arguments.run), options_of(arguments))
    numbers = [i for i, line in enumerate(lines, 1) if line]  # of nothing the model would make something
    asked = [lines[i - 1] for i in numbers]
    sources = [np.array([*ids, EOS], np.int32) for ids in data.vocabulary.encode(asked)]
    check_lines(config, arguments.file or "standard input", sources, numbers)
    outputs = iter(Translator(config, selected.params)(sources))
    for line in lines:
        # A translation may hold a line break (through a byte piece); the output keeps one sentence a line.
        line = " ".join(data.vocabulary.decode(next(outputs)).split("\n")) if line else ""
        print(printable(line) if sys.stdout.isatty() else line)


def _text(file):
    """Returns (contents, name for messages) of a file, or of standard input."""
    try:
        return (file.read_bytes(), file) if file else (sys.stdin.buffer.read(), "standard input")
    except OSError as error:
        raise UserError(f"cannot read {file or 'standard input'}: {error.strerror}") from None


if __name__ == "__main__":
    main(sys.argv[1:])

"""Translates with a trained run: batched beam search, compiled once a shape.

    python -m tx.decode RUN [FILE] [--beam=4] [--alpha=0.6] [--extra_length=50] [--average_last=1]

RUN is a run's folder (".../seed1"); sentences come from FILE or standard input, one a line, and go to standard output.
An empty line stays empty. A line that is too long is answered by an empty one, and named on standard error; the exit
status is then 1.
"""

import sys

import numpy as np

from tx import plugins, streams
from tx.cli import Parser, add_decoding_options, options_of, path
from tx.data.text_lines import split_lines
from tx.data.vocabulary import EOS
from tx.decoding.limits import describe_long_line, find_long_sources
from tx.decoding.trained_model import open_run
from tx.decoding.translator import Translator
from tx.errors import UserError, one_line_errors, printable
from tx.runs import imports
from tx.runs.run_dir import RunDir
from tx.runtime import backend, environment
from tx.runtime.backend import keep_freed_memory


@one_line_errors
def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m tx.decode", description=__doc__.splitlines()[0])
    add_decoding_options(parser)
    parser.add_argument("file", nargs="?", type=path, help="sentences, one a line (default: standard input)")
    arguments = parser.parse_args(plugins.take(argv))
    imports.recall([arguments.run])
    environment.refuse_other_numbers()
    keep_freed_memory()
    backend.start()
    streams.write_utf8()
    where = arguments.file or "standard input"
    lines = [line.strip() for line in split_lines(*_text(arguments.file), longest=None)]  # as the training text is
    config, selected, data = open_run(RunDir(arguments.run), options_of(arguments))
    refused = {number: why for number, line in enumerate(lines, 1) if (why := describe_long_line(line))}
    # Of an empty line the model would make something.
    numbers = [number for number, line in enumerate(lines, 1) if line and number not in refused]
    encoded = data.vocabulary.encode([lines[number - 1] for number in numbers])
    sources = {number: np.array([*ids, EOS], np.int32) for number, ids in zip(numbers, encoded, strict=True)}
    refused |= find_long_sources(config, sources)
    for number in sorted(refused):
        print(f"error: {where}, line {number}, {refused[number]}; it is answered by an empty line", file=sys.stderr)
    asked = {number: source for number, source in sources.items() if number not in refused}
    outputs = dict(zip(asked, Translator(config, selected.params)(list(asked.values())), strict=True))
    for number in range(1, len(lines) + 1):
        # A translation may hold a line break (through a byte piece); the output keeps one sentence a line.
        line = " ".join(data.vocabulary.decode(outputs[number]).split("\n")) if number in outputs else ""
        print(printable(line) if sys.stdout.isatty() else line)
    return 1 if refused else 0


def _text(file):
    """Returns (contents, name for messages) of a file, or of standard input."""
    try:
        return (file.read_bytes(), file) if file else (sys.stdin.buffer.read(), "standard input")
    except OSError as error:
        raise UserError(f"cannot read {file or 'standard input'}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

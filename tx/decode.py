"""Translates with a trained run: batched beam search, compiled once a shape.

    python -m tx.decode RUN [FILE] [--beam=4] [--alpha=0.6] [--length_penalty=wu2016] [--extra_length=50]
        [--average_last=1]

RUN is a run's folder (".../seed1"); sentences come from FILE or standard input, one a line, and go to standard output.
An empty line stays empty. A line that is too long is answered by an empty one, and named on standard error; the exit
status is then 1.
"""

import gzip
import sys
import zlib

from tx import plugins, streams
from tx.cli import Parser, add_decoding_options, options_of, path
from tx.data.text_lines import split_lines
from tx.decoding.text import translate_lines
from tx.decoding.trained_model import open_model
from tx.errors import UserError, one_line_errors, printable
from tx.runs import imports
from tx.runs.run_dir import RunDir
from tx.runtime import backend, environment
from tx.runtime.backend import ARENAS, keep_freed_memory


@one_line_errors
def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m tx.decode", description=__doc__.splitlines()[0])
    add_decoding_options(parser)
    parser.add_argument("file", nargs="?", type=path, help="sentences, one a line, .gz too (default: standard input)")
    arguments = parser.parse_args(plugins.take(argv))
    imports.recall([arguments.run])
    environment.refuse_other_numbers()
    keep_freed_memory(ARENAS)
    backend.start()
    streams.write_utf8()
    where = arguments.file or "standard input"
    lines = split_lines(*_text(arguments.file), longest=None)
    translated = translate_lines(open_model(RunDir(arguments.run), options_of(arguments)), lines)
    for number, why in sorted(translated.refused.items()):
        print(f"error: {where}, line {number}, {why}; it is answered by an empty line", file=sys.stderr)
    for line in translated.lines:
        print(printable(line) if sys.stdout.isatty() else line)
    return 1 if translated.refused else 0


def _text(file):
    """Returns (contents, name for messages) of a file, or of standard input."""
    try:
        data = file.read_bytes() if file else sys.stdin.buffer.read()
        return (gzip.decompress(data) if file and file.suffix == ".gz" else data), file or "standard input"
    except (OSError, EOFError, zlib.error) as error:  # gzip's own errors are OSErrors
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {file or 'standard input'}: {why}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

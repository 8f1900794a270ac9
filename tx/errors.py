"""Errors for the user to mend: one line that says what is wrong, where, and what to do."""

import contextlib
import difflib
import errno
import functools
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence

from tx import streams

INTERRUPTED_STATUS = 128 + signal.SIGINT  # as a shell shows it
# Control characters (a terminal obeys them), those that turn the direction of text, and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x08\n-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: beyond `ulimit -f`
_PARTS = re.compile(r"/|\.(?=[A-Za-z_])")  # between the parts of a name; a number's point is none
_FORBIDDEN = (
    *(errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
)


class UserError(Exception):
    """Error outside the program (a name, a value, a file); the message is one line.

    Attributes:
      status: of the command that it ends.
    """

    status = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the known name, of at least one, that is most like `name`.

    Names are compared part by part: of "model.num_heads" the last part weighs most, and one that begins with what was
    written, or has it for a word, is nearer than one that is merely spelled alike.
    """
    return max(known, key=lambda one: (_likeness(name, one), one))


def _likeness(name, known):
    (*around, last), (*others, other) = _PARTS.split(name), _PARTS.split(known)
    begun = other.startswith(last) or last in re.split("[_=]", other)
    outer = _alike(".".join(around), ".".join(others)) if around and others else 0.0
    return begun + 2 * _alike(last, other) + outer + _alike(name, known)


def _alike(one, other):
    return difflib.SequenceMatcher(None, one, other).ratio()


def unknown(what: str, name: str, known: Iterable[str], more: str = "") -> UserError:
    """Returns the error for a name that is none of those known: "WHAT 'NAME'; the nearest is 'KNOWN'", then `more`."""
    return UserError(f"{what} {name!r}; the nearest is {nearest(name, known)!r}{more}")


class Diverged(ArithmeticError):
    """Error of a run whose loss or gradient is not finite; the text is one line.

    Attributes:
      report: {"step", "loss", "gradient_norms" by layer, "sentences" of the batch as (source, target), "checkpoint":
        the step of the last one, None where there is none}; for error.json.
    """

    def __init__(self, report: dict):
        self.report = report
        layers = [layer for layer, norm in report["gradient_norms"].items() if isinstance(norm, str)]
        gradient = f", the gradient not finite in {', '.join(layers)}" if layers else ""
        last = report["checkpoint"]
        kept = "there is no checkpoint" if last is None else f"the last checkpoint is of step {last}"
        super().__init__(f"the loss is {report['loss']} at step {report['step']}{gradient}; {kept}")


def one_line_errors(main):
    """Decorates a command's main: what is wrong outside the program is printed as one line, without a traceback.

    The exit status is 2 for what a disk refuses and for a UserError, unless that has one of its own, 130 after Ctrl-C,
    and 141, without a line, where nobody reads standard output any more.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        streams.prepare()
        try:
            status = main(*args, **kwargs)
            sys.stdout.flush()  # here, not at Python's end, where its failing would be said in several lines
            return status
        except UserError as error:
            _end(error.status, str(error))
        except KeyboardInterrupt:
            _end(INTERRUPTED_STATUS, "interrupted")
        except SystemExit as ending:
            if isinstance(ending.__context__, BrokenPipeError):  # rich ends so
                _end(streams.CLOSED_STATUS)
            raise
        except OSError as error:
            unread = streams.unread()
            written = streams.flush()
            if isinstance(error, BrokenPipeError) and (unread or not written):
                _end(streams.CLOSED_STATUS)
            if written and error.errno not in _FULL + _FORBIDDEN:
                raise
            what = error.filename if written else "standard output"
            _end(2, f"{f'{what}: ' if what else ''}{error.strerror}")

    return wrapped


def _end(status, line=""):
    """Ends the process, with an error in a line where one is given."""
    streams.flush()
    if line:
        line = " ".join(line.splitlines())  # a path or a library's message may hold line breaks
        with contextlib.suppress(OSError):  # who reads that has gone too
            print(f"error: {printable(line)}", file=sys.stderr)
    sys.exit(status)


def last_error(lines: Sequence[str]) -> str:
    """Returns what a process's output says went wrong: the last line that begins with "error: ", without that.

    Where there is none, the last that is not empty; "" where there is none of that either. Libraries may have the last
    word at the end of a process.
    """
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if line.startswith("error: ")]
    return (errors or said or [""])[-1].removeprefix("error: ")


def printable(text: str) -> str:
    """Returns text of others as it may be shown: with its control characters escaped, "\\x1b" for an escape."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


@contextlib.contextmanager
def writing(path: os.PathLike) -> Iterator[None]:
    """Raises UserError where the body meets a full disk or a place that may not be written to; other errors pass.

    Args:
      path: what is written, for the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            full = error.errno != errno.EFBIG
            what, mend = ("no space left for", "free some") if full else ("`ulimit -f` is too low for", "raise it")
            raise UserError(
                f"{what} {path}; {mend} and start the same command again: training goes on from the last checkpoint"
            ) from error
        if error.errno in _FORBIDDEN:
            raise UserError(
                f"cannot write {path}: {error.strerror}; make that place writable or choose another"
            ) from error
        raise

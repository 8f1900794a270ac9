"""Errors that are the user's to mend: one line that says what is wrong, where, and what to do."""

import functools
import sys


class UserError(Exception):
    """Something outside the program is wrong (a name, a value, a file); the message is one line."""


def one_line_errors(main):
    """Decorates a command's main: a UserError is printed as one line, and the exit status is 2."""

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except UserError as error:
            line = " ".join(str(error).splitlines())  # a path or a library's message may hold line breaks
            print(f"error: {line}", file=sys.stderr)
            sys.exit(2)

    return wrapped

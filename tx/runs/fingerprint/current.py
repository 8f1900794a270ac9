"""Fingerprint of the code as it is on disk now: what a process that is started now makes a run by."""

import functools
import pathlib
import sys
import time

from ml_collections import ConfigDict

from tx import plugins
from tx.files import digest_if_readable
from tx.runs.fingerprint.code import ENTRIES, Code

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SECONDS = 1.0  # between looks at the package's files: 1.5 ms each, and a plan asks for every run of ten thousand
_kept = {}  # {added files: (state of the package's files, SHA-256 of a user's, Code of these)}


def numerics(config: ConfigDict | dict) -> str:
    """Returns 12 hexadecimal digits that change with the code that makes a run of this configuration.

    Names of files, comments, docstrings, annotations, layout, and what is printed make no difference to them. They
    follow the files as these are edited; but in a process that makes runs itself, by the code that it has loaded, they
    stay as they were first.

    Args:
      config: whole, or as it was read from a file: a field that is missing has its default. For a component that is
        not found, as where it is registered in some unusual way, all of the imported files counts.
    """
    return _code().numerics(config)


def covered(config: ConfigDict | dict) -> list[str]:
    """Returns the dotted names of the definitions that `numerics` goes by."""
    return _code().covered(config)


def _code():
    files = tuple(plugins.files())
    state, digests, code = _kept.get(files, (None, {}, None))
    if code and any(entry.rpartition(".")[0] in sys.modules for entry in ENTRIES):
        return code
    now = _package(time.monotonic() // _SECONDS), {path: digest_if_readable(path) for path in digests}
    if code and now == (state, digests):
        return code
    try:
        code = Code(_ROOT, files)
        _kept[files] = now[0], code.own.digests, code
    except (OSError, SyntaxError, ValueError):  # somebody is writing one of them
        if not code:
            raise
        _kept[files] = *now, code
    return code


@functools.lru_cache(maxsize=1)
def _package(_moment):
    """Returns {file: (bytes, time of its last change)} of the package."""
    return {path: _size_and_time(path) for path in _ROOT.rglob("*.py")}


def _size_and_time(path):
    try:
        found = path.stat()
        return found.st_size, found.st_mtime_ns
    except OSError:  # a link that leads nowhere
        return None

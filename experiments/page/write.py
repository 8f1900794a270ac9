"""`report.html` beside the tables of every sweep."""

import os
import pathlib
import urllib.parse
from collections.abc import Iterable, Sequence

from experiments.page import build
from experiments.report import reading
from tx.errors import writing
from tx.files import write_atomically

NAME = "report.html"


def pages(
    dirs: Iterable[pathlib.Path], out: pathlib.Path | None = None, only: Sequence[str] = ()
) -> list[pathlib.Path]:
    """Writes the page of every sweep in `dirs`, and returns the files: OUT/SWEEP@SCALE/report.html.

    Without `out` it lies in the first SWEEP@SCALE folder that was read, as tables do (`experiments.report.write`).
    Sweeps that cannot be read have none. UserError where there is no sweep, or the file cannot be written.
    """
    written = []
    for found in reading.read(dirs, only, []):
        folder = found.folders[0] if out is None else out / found.name
        path = folder / NAME
        page = build.html(found, lambda file, folder=folder: address(os.path.relpath(file, folder)))
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, page)
        written.append(path)
    return written


def address(path: str) -> str:
    """Returns a relative path as a link in a page leads to it; "./" so that no part of it reads as a protocol."""
    return "./" + urllib.parse.quote(pathlib.PurePath(path).as_posix(), safe="/=,+@")

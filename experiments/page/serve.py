"""Server of pages on this machine: always as the files are, and told by a page whether it has to load anew."""

import hashlib
import http.server
import os
import pathlib
import posixpath
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from experiments.page import build
from experiments.page.write import NAME, address
from experiments.report import reading
from experiments.report.results import Results
from tx.errors import UserError, printable
from tx.runs import lease

_HOST = "127.0.0.1"
_WATCHED = {"result.json", "error.json", "metrics.jsonl", "config.json", "launch.json", "tuning.json", "lease"}
_UNREAD = {"checkpoints", "tensorboard", "stale", "damaged"}  # whose files say nothing to a report


def forever(dirs: Sequence[pathlib.Path], port: int, only: Sequence[str] = ()) -> None:
    """Serves the pages of every sweep in `dirs` until it is interrupted.

    Raises UserError where there is no sweep, or the port cannot be had.
    """
    with server(dirs, port, only) as serving:
        print(f"http://{_HOST}:{serving.server_port}/ (Ctrl-C ends it)", flush=True)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print("ended")


def server(dirs: Sequence[pathlib.Path], port: int, only: Sequence[str] = ()) -> http.server.ThreadingHTTPServer:
    """Returns the server, bound to a port, which is any that is free for 0; errors as `forever`."""
    read = reading.read(dirs, only, [])  # what is wrong is said now

    class Handler(_Handler):
        asked = tuple(dirs), tuple(only)
        known: ClassVar = {found.name: found for found in read}

    try:
        return http.server.ThreadingHTTPServer((_HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"--serve={port}: {getattr(error, 'strerror', error)}; choose another port") from None


class _Handler(http.server.BaseHTTPRequestHandler):
    """Handler of requests: /, /SWEEP@SCALE/report.html, /SWEEP@SCALE/version, /SWEEP@SCALE/K/FILE of its folder K."""

    asked: tuple[Sequence[pathlib.Path], Sequence[str]]
    known: ClassVar[
        dict[str, Results]
    ]  # as last read: reading a thousand runs takes seconds, a look at their times none

    def do_GET(self) -> None:
        """Answers."""
        host = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in (_HOST, "localhost"):  # a name of somebody's that leads here
            return self._send(403, "this is served to this machine alone")
        path = posixpath.normpath(urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)).lstrip("/")
        try:
            self._send(*self._answer(path))
        except UserError as error:
            self._send(500, str(error))
        except BrokenPipeError:
            pass  # the browser did not wait
        return None

    def _answer(self, path: str) -> tuple[int, str] | tuple[int, str, str]:
        """Returns status, text and kind of what lies at a path."""
        name, _, rest = path.partition("/")
        if rest in ("", NAME):
            dirs, only = self.asked
            self.known |= {found.name: found for found in reading.read(dirs, only, [])}
        if path in ("", "."):
            return 200, _index(self.known), "text/html"
        if (found := self.known.get(name)) is None:
            return 404, "no such sweep"
        if rest == NAME:
            return 200, build.html(found, lambda file: _link(found, file), is_live=True), "text/html"
        if rest == "version":
            return 200, version(found)
        return self._file(found, rest)

    def _file(self, found, path):
        number, _, below = path.partition("/")
        if number.isdecimal() and int(number) < len(found.folders):
            folder = found.folders[int(number)].resolve()
            file = (folder / below).resolve()
            if file.is_relative_to(folder) and file.is_file():  # no link leads out of it
                return 200, file.read_text(encoding="utf-8", errors="replace")
        return 404, "no such file"

    def _send(self, status: int, text: str, kind: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")  # what others wrote stays text
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Says nothing of requests."""


def _index(names: Iterable[str]) -> str:
    """Returns the page of all sweeps; where there is one, it leads on to that."""
    links = [address(f"{name}/{NAME}") for name in names]  # every character quoted that HTML takes for its own
    only = f'<meta http-equiv="refresh" content="0; url={links[0]}">' if len(links) == 1 else ""
    items = "".join(f'<li><a href="{link}">{link[2:]}</a>' for link in links)
    return f'<!doctype html><meta charset="utf-8"><title>sweeps</title>{only}<ul>{items}</ul>'


def _link(found: Results, file: pathlib.Path) -> str:
    for number, folder in enumerate(found.folders):
        if file.is_relative_to(folder):
            return address(f"{number}/{file.relative_to(folder)}")
    raise UserError(f"{printable(str(file))} is in no folder of {found.name}")


def version(found: Results) -> str:
    """Returns a digest that changes whenever anything does that a page of the sweep shows."""
    digest = hashlib.sha256()
    for folder in found.folders:
        for path in sorted(_watched(folder)):
            try:
                state = os.stat(path)
            except OSError:
                continue  # it has just gone
            digest.update(f"{path} {state.st_mtime_ns} {state.st_size}\n".encode(errors="surrogateescape"))
    begun = (run for row in found.all_rows for run in row.runs if not run.result)
    for run in begun:  # who is killed changes no file
        digest.update(f"{run.path} {lease.holder(run.path) is None}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _watched(folder: pathlib.Path) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _UNREAD]
        yield from (os.path.join(where, name) for name in (*files, *folders) if name in _WATCHED)

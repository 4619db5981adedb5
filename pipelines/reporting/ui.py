"""`cytoloom ui`: runs of this machine in a browser. Reads only, and nothing outside the run folders.

    /                       every run
    /runs/NAME/             its report, made anew at each look
    /runs/NAME/FILE         a file or folder of it: stages' pages, logs, tables, pictures
    /compare?a=NAME&b=NAME  two runs side by side

Pages hold no script and ask nothing of other servers; headers forbid it as well.
"""

import contextlib
import html
import mimetypes
import os
import shutil
import socket
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pipelines.reporting.compare import compare
from pipelines.reporting.rounds import final_scores, scored_on_training_labels
from pipelines.run_folder.folder import within
from pipelines.run_folder.record import NAME as RECORD
from pipelines.run_folder.record import RunRecord, load
from shared.reporting.page import Page, escape
from shared.system.errors import UserError

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
PLAIN = {".txt", ".csv", ".json", ".jsonl", ".yaml", ".md", ".log"}
"""Shown as text, whatever a browser would do with them."""
PAGES = {".html"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEPTH = 3
"""Folders below the one given in which runs are looked for."""


def serve(folder: Path, host: str, port: int) -> int:
    """Serve until interrupted; the first line says where."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a run folder, or one with runs in it")
    try:
        server = Server(folder, host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", "") or "a port is a number from 0 to 65535"
        raise UserError(f"--host {host} --port {port}: {reason}; try --port 0") from error
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{server.server_address[1]}/  (Ctrl-C ends it)", flush=True)
    if host not in LOOPBACK:
        print("warning: everybody who reaches this machine can look at these runs", file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=0.2)
    server.server_close()
    return 0


class Server(ThreadingHTTPServer):
    """Serves the runs below a folder."""

    daemon_threads = True

    def __init__(self, folder: Path, host: str, port: int) -> None:
        self.folder = folder.resolve()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)

    def knows(self, host: str) -> bool:
        """Whether a request's Host is one of this server's: a page elsewhere must not reach it by a name of its own."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return self.server_address[0] not in LOOPBACK or name in LOOPBACK

    def runs(self) -> dict[str, Path]:
        """Name -> folder of every run, the latest first; the folder itself may be one."""
        if _written(self.folder) is not None:
            return {self.folder.name: self.folder}
        found: dict[Path, float] = {}
        level = [self.folder]
        for _ in range(DEPTH):
            times = {path: _written(path) for place in level for path in _folders(place)}
            found |= {path: time for path, time in times.items() if time is not None}
            level = [path for path, time in times.items() if time is None]
        latest = sorted(found, key=lambda path: (-found[path], path))
        return {path.relative_to(self.folder).as_posix(): path for path in latest}

    def run(self, path: str) -> tuple[str, Path, str] | None:
        """Which run a path below /runs/ is in: its name, its folder, and the rest of the path."""
        for name, folder in sorted(self.runs().items(), key=lambda item: -len(item[0])):
            if path == name or path.startswith(f"{name}/"):
                return name, folder, path[len(name) + 1 :]
        return None


def _folders(place: Path) -> list[Path]:
    try:
        return [path for path in place.iterdir() if path.is_dir() and not path.is_symlink() and path.name[:1] != "."]
    except OSError:
        return []


def _written(folder: Path) -> float | None:
    """When the record of a run was last written; None where the folder is no run, or was removed meanwhile."""
    try:
        record = within(folder, RECORD)
        return record.stat().st_mtime if record.is_file() else None
    except (OSError, UserError):
        return None


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD alone."""

    server: Server
    answering = False
    """Whether the head of an answer is out: then it is too late for another one."""
    server_version = "cytoloom"
    sys_version = ""

    def log_message(self, *_: object) -> None:
        """No line for each request."""

    def do_HEAD(self) -> None:
        """As GET, without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Find what is asked for, or say that it is not there."""
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the browser has gone elsewhere
        except Exception as error:  # a run that goes on removes files; one from elsewhere may hold anything
            if not self.answering:
                gone = isinstance(error, FileNotFoundError)
                status = HTTPStatus.NOT_FOUND if gone else HTTPStatus.INTERNAL_SERVER_ERROR
                self._text(status, str(error) or type(error).__name__)

    def _answer(self) -> None:
        if not self.server.knows(self.headers.get("Host", "")):
            self._text(HTTPStatus.MISDIRECTED_REQUEST, "not served under this name")
            return
        try:
            url = urlsplit(self.path)
        except ValueError:
            self._missing()
            return
        path = unquote(url.path, errors="surrogateescape")  # as Python has names that are no UTF-8
        if path == "/":
            self._page(overview(self.server.runs()))
        elif path == "/compare":
            self._compare(parse_qs(url.query))
        elif path.startswith("/runs/") and (found := self.server.run(path.removeprefix("/runs/"))):
            self._run(*found, slash=path.endswith("/"))
        else:
            self._missing()

    def _compare(self, query: dict[str, list[str]]) -> None:
        runs = self.server.runs()
        names = [query.get(side, [""])[0] for side in ("a", "b")]
        if not all(name in runs for name in names):
            self._text(HTTPStatus.BAD_REQUEST, "choose two runs on the first page")
            return
        self._page(compare(names[0], runs[names[0]], names[1], runs[names[1]]))

    def _run(self, name: str, folder: Path, rest: str, *, slash: bool) -> None:
        if not rest and not slash:  # links of the report are relative
            self._send(HTTPStatus.MOVED_PERMANENTLY, b"", {"Location": f"/runs/{_quoted(name)}/"})
        elif not rest:
            from pipelines.reporting.run_report import report

            page = report(folder)
            page.raw("<p><a href='/'>all runs</a> &nbsp; <a href='./files/'>files</a></p>")
            self._page(page)
        else:
            self._file(name, folder, rest.removeprefix("files/") if rest.startswith("files/") else rest)

    def _file(self, name: str, folder: Path, rest: str) -> None:
        """A file, or the listing of a folder, that really is in the run: no link leads out, no `..`."""
        try:
            real = within(folder, rest)
            parts = [*Path(rest).parts, *real.relative_to(folder.resolve()).parts]
            hidden, is_folder, is_file = any(part.startswith(".") for part in parts), real.is_dir(), real.is_file()
        except (UserError, OSError):
            self._missing()
            return
        if is_folder and not hidden:
            self._page(listing(name, folder, real))
        elif is_file and not hidden:
            self._stream(real)
        else:
            self._missing()

    def _stream(self, path: Path) -> None:
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if path.suffix in PLAIN:
            kind = "text/plain; charset=utf-8"
        elif path.suffix in PAGES:
            kind = "text/html; charset=utf-8"
        with path.open("rb") as stream:
            size = path.stat().st_size
            self._head(HTTPStatus.OK, {"Content-Type": kind, "Content-Length": str(size)})
            if self.command == "GET":
                shutil.copyfileobj(stream, self.wfile)

    def _page(self, page: Page) -> None:
        self._send(HTTPStatus.OK, page.html().encode(errors="replace"), {"Content-Type": "text/html; charset=utf-8"})

    def _missing(self) -> None:
        self._text(HTTPStatus.NOT_FOUND, "no such page")

    def _text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, (text + "\n").encode(errors="replace"), {"Content-Type": "text/plain; charset=utf-8"})

    def _send(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.answering = True
        self.send_response(status)
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()


# --- pages --------------------------------------------------------------------------------------------------------


def _quoted(path: str) -> str:
    return quote(os.fsencode(path))


def overview(runs: dict[str, Path]) -> Page:
    """Every run in a line, and a choice of two to compare."""
    page = Page("Runs")
    if not runs:
        page.text("There is no run here yet: cytoloom run label_free --source DIR")
        return page
    head = "".join(f"<th>{name}</th>" for name in ("A", "B", "run", "pipeline", "state", "started", "s", "Dice", "F1"))
    rows = []
    for number, (name, folder) in enumerate(runs.items()):
        link = f"<a href='/runs/{_quoted(name)}/'>{escape(name)}</a>"
        choice = [
            f"<td><input type='radio' name='{side}' value='{escape(name)}'{' checked' if number == first else ''}></td>"
            for side, first in (("a", 1 if len(runs) > 1 else 0), ("b", 0))
        ]
        rows.append(f"<tr>{''.join(choice)}<td>{link}</td>{_facts(folder)}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    page.raw(f"<form action='/compare'>{table}<p><button>Compare A with B</button></p></form>")
    return page


def _facts(folder: Path) -> str:
    try:
        record = load(folder)
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.started)) if record.started else ""
    except (UserError, OSError, OverflowError, ValueError) as error:
        return f"<td colspan='6'>{escape(str(error))}</td>"
    cells = [record.pipeline, record.state, started, f"{record.seconds:.0f}", *_scores(record)]
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells)


def _scores(record: RunRecord) -> list[str]:
    """Dice and F1, and where they flatter, that they do."""
    scored = final_scores(record)
    flag = " (scored_on_training_labels)" if scored_on_training_labels(record) else ""
    return [f"{scored[name]:.3f}{flag}" if name in scored else "" for name in ("dice", "f1")]


def listing(name: str, folder: Path, place: Path) -> Page:
    """What is in a folder of a run."""
    inside = place.relative_to(folder.resolve()).as_posix()
    page = Page(f"{name}/{'' if inside == '.' else inside}")
    base = f"/runs/{_quoted(name)}/files/"
    rows = []
    for path in sorted(place.iterdir(), key=lambda path: (path.is_file(), path.name)):
        if path.name.startswith("."):
            continue
        try:
            size = f"{within(folder, path).stat().st_size:,}"
        except (UserError, OSError):  # a link that leads out or nowhere; a file that a live run has removed
            continue
        slash, size = ("/", "") if path.is_dir() else ("", size)
        link = base + _quoted(path.relative_to(folder.resolve()).as_posix()) + slash
        shown = escape(path.name + slash)
        rows.append(f"<tr><td><a href='{html.escape(link)}'>{shown}</a></td><td class='n'>{size}</td></tr>")
    page.raw(f"<table><thead><tr><th>name</th><th>bytes</th></tr></thead><tbody>{''.join(rows)}</tbody></table>")
    page.raw(f"<p><a href='/runs/{_quoted(name)}/'>the run</a></p>")
    return page

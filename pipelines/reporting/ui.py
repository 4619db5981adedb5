"""Serve the pages of `cytoloom ui`. The server only reads, and nothing outside the run folders.

    /                       list of the runs
    /runs/NAME/             page of a run, made at each request
    /runs/NAME/FILE         file or folder of the run: pages of tasks, logs, tables, images
    /compare?a=NAME&b=NAME  comparison of two runs

Pages hold no script and no address of another server; the headers forbid both as well.
"""

import contextlib
import mimetypes
import shutil
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pipelines.reporting.compare import compare
from pipelines.reporting.run_list import find_runs, run_url, split_path
from pipelines.reporting.ui_pages import folder_page, overview
from pipelines.run_folder.folder import within
from shared.reporting.page import Fragment, Page, link
from shared.system.errors import UserError

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; sandbox allow-forms allow-same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_TEXT_FILES = {".txt", ".csv", ".json", ".jsonl", ".yaml", ".md", ".log"}
"""Sent as plain text, so that a browser shows them."""
_REQUEST_SECONDS = 30.0
"""Time in which a request must have come, and a part of the answer be taken."""
_MAX_CONNECTIONS = 100
"""Connections at a time; more are closed at once."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(folder: Path, host: str, port: int) -> int:
    """Serve until interrupted. The first line on standard output is the address."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a run folder, or a folder of runs")
    try:
        server = RunServer(folder, host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", "") or "a port is a number from 0 to 65535"
        raise UserError(f"--host {host} --port {port}: {reason}; try --port 0") from error
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{server.server_address[1]}/  (Ctrl-C stops the server)", flush=True)
    if host not in _LOOPBACK:
        print(f"warning: --host {host}: everyone who can reach this machine can read these runs", file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=0.2)
    server.server_close()
    return 0


class RunServer(ThreadingHTTPServer):
    """HTTP server of the runs below a folder."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, host: str, port: int) -> None:
        self.folder = folder.resolve()
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, unless there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def knows(self, host: str) -> bool:
        """Whether a request's Host is a name of this server: a foreign page must not reach it by DNS rebinding."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return self.server_address[0] not in _LOOPBACK or name in _LOOPBACK


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD requests; there are no others."""

    server: RunServer
    timeout = _REQUEST_SECONDS
    answering = False
    """Whether the head of the answer was sent, after which no other answer can be."""
    server_version = "cytoloom"
    sys_version = ""

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def handle(self) -> None:
        """Answer one request; a connection on which none has come in time, even byte by byte, is closed."""
        self._deadline = threading.Timer(_REQUEST_SECONDS, self._close)
        self._deadline.daemon = True
        self._deadline.start()
        try:
            super().handle()
        except OSError:  # the other side is gone
            self.close_connection = True
        finally:
            self._deadline.cancel()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer requests that are not understood, and methods other than GET and HEAD, in one line."""
        self._deadline.cancel()
        if self.command not in ("GET", "HEAD"):
            self.command = "GET"  # for the body
        self.request_version = self.protocol_version  # else an answer has no headers
        self._text(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def do_HEAD(self) -> None:
        """Answer as to GET, without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer with a page, a file, or an error in one line."""
        self._deadline.cancel()
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the browser closed the connection
        except Exception as error:  # a live run removes files; a run from elsewhere may hold anything
            if not self.answering:
                gone = isinstance(error, FileNotFoundError)
                status = HTTPStatus.NOT_FOUND if gone else HTTPStatus.INTERNAL_SERVER_ERROR
                self._text(status, str(error) or type(error).__name__)

    def _answer(self) -> None:
        if not self.server.knows(self.headers.get("Host", "")):
            self._text(HTTPStatus.MISDIRECTED_REQUEST, "unknown host; use the address that cytoloom ui printed")
            return
        try:
            url = urlsplit(self.path)
        except ValueError:
            self._missing()
            return
        path = unquote(url.path, errors="surrogateescape")  # for names that are not UTF-8
        if path == "/":
            self._page(overview(find_runs(self.server.folder)))
        elif path == "/compare":
            self._compare(parse_qs(url.query))
        elif path.startswith("/runs/") and (found := self._split(path.removeprefix("/runs/"))):
            self._run(*found, slash=path.endswith("/"))
        else:
            self._missing()

    def _split(self, path: str) -> tuple[str, Path, str] | None:
        return split_path(path, find_runs(self.server.folder))

    def _compare(self, query: dict[str, list[str]]) -> None:
        runs = find_runs(self.server.folder)
        names = [query.get(side, [""])[0] for side in ("a", "b")]
        if not all(name in runs for name in names):
            self._text(HTTPStatus.BAD_REQUEST, "no such runs; choose two on the first page")
            return
        self._page(compare(names[0], runs[names[0]], names[1], runs[names[1]]))

    def _run(self, name: str, folder: Path, rest: str, *, slash: bool) -> None:
        if not rest and not slash:  # the links of the page are relative
            self._send(HTTPStatus.MOVED_PERMANENTLY, b"", {"Location": run_url(name)})
        elif not rest:
            from pipelines.reporting.run_report import report

            page = report(folder)
            page.raw(Fragment(f"<p>{link('all runs', '/')} &nbsp; {link('files', './files/')}</p>"))
            self._page(page)
        else:
            self._file(name, folder, rest.removeprefix("files/") if rest.startswith("files/") else rest)

    def _file(self, name: str, folder: Path, rest: str) -> None:
        """Send a file or the list of a folder, where the real path is inside the run."""
        try:
            real = within(folder, rest)
            parts = [*Path(rest).parts, *real.relative_to(folder.resolve()).parts]
            hidden, is_folder, is_file = any(part.startswith(".") for part in parts), real.is_dir(), real.is_file()
        except (UserError, OSError):
            self._missing()
            return
        if is_folder and not hidden:
            self._page(folder_page(name, folder, real))
        elif is_file and not hidden:
            self._stream(real)
        else:
            self._missing()

    def _stream(self, path: Path) -> None:
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if path.suffix in _TEXT_FILES:
            kind = "text/plain; charset=utf-8"
        elif path.suffix == ".html":
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
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

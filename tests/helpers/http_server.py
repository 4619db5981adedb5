"""Run an HTTP server in a thread, and servers that answer as a test says."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer


@contextmanager
def serve(server: HTTPServer) -> Iterator[None]:
    """Serve requests until the block ends, then close the server."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Request(BaseHTTPRequestHandler):
    """One request, which a test answers by `reply`, or by whatever it writes to `wfile`."""

    protocol_version = "HTTP/1.1"
    server: "ScriptedServer"

    def _answer(self) -> None:
        self.server.requests.append(self)
        self.close_connection = True  # a body that the test did not read is no next request
        self.server.answer(self)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Read the body and answer. headers: with `_` for `-`; Content-Length is that of the body by default."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Log nothing."""


class ScriptedServer(ThreadingHTTPServer):
    """Answers every request by a function of the test, and keeps the requests."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Request], None]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answer = answer
        self.requests: list[Request] = []

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.server_port}"

    def handle_error(self, *words: object) -> None:
        """Say nothing of clients that hang up."""

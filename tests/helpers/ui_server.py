"""A server of `cytoloom ui` in this process, and raw requests to it."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path

from http_server import serve

from pipelines.reporting.ui import RunServer


@contextmanager
def serving(folder: Path, host: str = "127.0.0.1") -> Iterator[RunServer]:
    """Serve the runs below a folder."""
    server = RunServer(folder, host, 0)
    with serve(server):
        yield server


def ask(server: RunServer, path: str, method: str = "GET", **headers: str) -> tuple[int, Message, bytes]:
    """(status, headers, body) of the raw path: nothing tidies it up."""
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    shown = f"[{host}]" if ":" in host else host
    for name, value in {"Host": f"{shown}:{port}", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body

"""Artifacts, call counters, poor lines and a scripted server for the tests of the object store."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import md5
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from http_server import Request, ScriptedServer, serve

from shared.artifacts.kinds import Files
from shared.artifacts.manifest import seal


def artifact(folder: Path, size: int = 1000) -> Path:
    """Write a sealed artifact with a file of `size` bytes in a subfolder."""
    (folder / "shards").mkdir(parents=True)
    (folder / "shards/000.tar").write_bytes(bytes(i * i % 251 for i in range(1000)) * (size // 1000))
    (folder / "index.jsonl").write_text('{"key": "a"}\n')
    (folder / "empty").write_bytes(b"")
    seal(folder, Files, stage="ingest")
    return folder


def counted(monkeypatch: pytest.MonkeyPatch, module, name: str, then=lambda count: None) -> list[tuple]:
    """Record the finished calls of a function; `then` gets their number before the next one."""
    calls: list[tuple] = []
    real = getattr(module, name)

    def call(*args):
        then(len(calls))
        result = real(*args)
        calls.append(args)
        return result

    monkeypatch.setattr(module, name, call)
    return calls


# --- a poor line to the real server -------------------------------------------------------------------------------


class Line:
    """A slow line to a server: forwards bytes, and breaks connections within a body a given number of times.

    A broken connection is cut, or drips: it stays open, and carries a byte now and then.
    """

    def __init__(
        self,
        port: int,
        cut: Callable[[], None] = lambda: None,
        cuts: int = 0,
        drips: int = 0,
        after: int = 3_000_000,
        pause: float = 0.0,
    ) -> None:
        """cut: called when a connection is cut; after: bytes, one way, before it breaks; pause: s after each 64 KiB."""
        self.target, self.cut, self.cuts, self.drips, self.after, self.pause = port, cut, cuts, drips, after, pause
        self.carried = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # a client soon notices a slow line
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        carried = 0
        with suppress(OSError):
            while data := source.recv(65536):
                if carried + len(data) > self.after and self.drips > 0:
                    self.drips -= 1
                    target.sendall(data[: self.after - carried])
                    _drip(data[self.after - carried :], source, target)
                    break
                target.sendall(data)
                carried += len(data)
                self.carried += len(data)
                time.sleep(self.pause * len(data) / 65536)
                if carried > self.after and self.cuts > 0:
                    self.cuts -= 1
                    self.cut()
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _drip(data: bytes, source: socket.socket, target: socket.socket) -> None:
    """Forward a byte now and then, until one of the ends hangs up or ten seconds are over."""
    for _ in range(500):
        data = data or source.recv(1000)
        target.sendall(data[:1])
        data = data[1:]
        time.sleep(0.02)


@contextmanager
def line(monkeypatch: pytest.MonkeyPatch, endpoint: str, **options) -> Iterator[Line]:
    """Let the environment lead through a poor line to the server."""
    made = Line(urlsplit(endpoint).port, **options)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made
    made.listener.close()


# --- a server that misbehaves -------------------------------------------------------------------------------------

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAHOSTILETEST",
    "AWS_SECRET_ACCESS_KEY": "hostile-test-secret",
    "AWS_SESSION_TOKEN": "hostile-test-token",
}


@contextmanager
def scripted(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Request], None]) -> Iterator[ScriptedServer]:
    """Let the environment lead to a server that answers by a function."""
    server = ScriptedServer(answer)
    with serve(server), monkeypatch.context() as patch:
        for name, value in {"AWS_ENDPOINT_URL": f"http://{server.host}", **SECRETS}.items():
            patch.setenv(name, value)
        yield server


class SimpleS3:
    """Answers as an S3 server with these objects in the bucket `bucket`; its methods show how, for tests to differ."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects

    def __call__(self, request: Request) -> None:
        """Answer a listing, HEAD or GET."""
        url = urlsplit(request.path)
        key = unquote(url.path).removeprefix("/bucket").removeprefix("/")
        if "list-type" in url.query:
            prefix = parse_qs(url.query).get("prefix", [""])[0]
            sizes = {name: len(data) for name, data in self.objects.items() if name.startswith(prefix)}
            request.reply(200, listing_xml(sizes), Content_Type="application/xml")
        elif not key:
            request.reply(200)
        elif key in self.objects:
            self.reply_object(request, self.objects[key])
        else:
            request.reply(404, error_xml("NoSuchKey"), Content_Type="application/xml")

    def reply_object(self, request: Request, data: bytes) -> None:
        """Answer with an object, or the range of it that is asked for."""
        headers = {"ETag": f'"{md5(data).hexdigest()}"', "Content_Type": "application/octet-stream"}
        if not (bounds := asked_range(request)):
            request.reply(200, data, **headers)
            return
        first, last = bounds[0], min(bounds[1], len(data) - 1)
        request.reply(206, data[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}", **headers)


def asked_range(request: Request) -> tuple[int, int] | None:
    """Return first and last byte that a request asks for; None where it asks for all."""
    found = re.match(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
    return (int(found[1]), int(found[2])) if found else None


def listing_xml(sizes: dict[str, int]) -> bytes:
    """Return a page of a listing, with names encoded as the client asks."""
    objects = "".join(
        f"<Contents><Key>{quote(name)}</Key><Size>{size}</Size><ETag>&quot;{size}&quot;</ETag></Contents>"
        for name, size in sizes.items()
    )
    return f"<ListBucketResult><Name>bucket</Name><EncodingType>url</EncodingType>{objects}</ListBucketResult>".encode()


def error_xml(code: str, message: str = "") -> bytes:
    """Return the body of an error."""
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()

"""The store over TLS: the real S3 server behind a self-signed certificate, trusted or not."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shared import store
from shared.store import connection
from shared.store.retries import with_retries
from shared.system.errors import UserError


class Proxy:
    """Terminates TLS on its own port and forwards the bytes to a plain port."""

    def __init__(self, certificate: Path, key: Path, port: int) -> None:
        self.target = port
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.listener = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
        self.port = self.listener.getsockname()[1]
        self.cuts = 0
        """Number of times to cut the connection within a body, without closing TLS, like a killed server."""
        self.refused = 0
        """Clients that hung up because they do not trust the certificate."""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except ssl.SSLError:
                self.refused += 1
                continue
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=ends, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        carried = 0
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                carried += len(data)
                if carried > 1_000_000 and self.cuts > 0:
                    self.cuts -= 1
                    # Not the method of TLS, which ends TLS; nor close, whose number the next socket gets at once
                    socket.socket.shutdown(target, socket.SHUT_RDWR)
                    return
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.listener.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=store"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(words, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def proxy(s3: str, s3_server, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The server behind TLS; no client trusts the certificate yet."""
    proxy = Proxy(*certificate, urlsplit(s3_server.endpoint).port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{proxy.port}")
    for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    yield proxy
    proxy.close()
    connection._connect.cache_clear()


def test_a_trusted_certificate(s3: str, proxy: Proxy, certificate, monkeypatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
    store.put(f"{s3}/tls/a", b"over TLS")
    assert store.get(f"{s3}/tls/a") == b"over TLS" and not proxy.refused


def test_an_untrusted_certificate_is_refused_at_once_with_the_remedy(s3: str, proxy: Proxy) -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+ \(SSLError\); check AWS_CA_BUNDLE"):
        store.put(f"{s3}/tls/b", b"secret")
    assert 1 <= proxy.refused <= 4, "no retries"


def test_a_server_without_tls(s3: str, s3_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint.replace("http://", "https://"))
    with pytest.raises(UserError, match="does not use TLS: AWS_ENDPOINT_URL should begin with http://"):
        store.get(f"{s3}/tls/a")


def test_a_line_that_breaks_is_no_fault_of_tls(s3: str, proxy: Proxy, certificate, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
    store.put(f"{s3}/tls/large", bytes(4_000_000))
    proxy.cuts = 2
    store.fetch_prefix(f"{s3}/tls/large", tmp_path / "fetched")
    assert proxy.cuts == 0
    assert (tmp_path / "fetched/large").read_bytes() == bytes(4_000_000)


def test_a_server_that_ends_in_the_middle_of_a_handshake_is_waited_for(s3: str, monkeypatch) -> None:
    """A server that restarts does so: the certificate is not at fault."""
    listener = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.recv(65536)
                client.close()

    threading.Thread(target=hang_up, daemon=True).start()
    tries: list[int] = []

    def call() -> str:
        tries.append(len(tries))
        if len(tries) < 3:
            connection.client().stat_object("bucket", "key")
        return "back"

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{listener.getsockname()[1]}")
    assert with_retries(call, wait_for_server=True) == "back"
    listener.close()

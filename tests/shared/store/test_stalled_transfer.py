"""Connections that stay open and carry next to nothing, and slow ones that do their work."""

import threading
from pathlib import Path

import pytest
from http_server import Request
from store_for_tests import SimpleS3, artifact, line, scripted

from shared import store
from shared.artifacts.manifest import read_manifest, verify
from shared.store import retries
from shared.store.http import limits
from shared.system.errors import UserError

pytestmark = pytest.mark.timeout(100)  # a transfer that is held for ever fails

SIZE = 9_000_000


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line drips 50 bytes per s."""
    monkeypatch.setattr(limits, "ANSWER_S", 2.0)
    monkeypatch.setattr(limits, "STALL_S", 0.5)
    monkeypatch.setattr(limits, "MIN_PROGRESS_BYTES", 4096)
    monkeypatch.setattr(retries, "MAX_OUTAGE_S", 0.5)


@pytest.mark.usefixtures("little_patience")
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_transfer_that_stalls_is_tried_again(s3: str, s3_server, tmp_path, monkeypatch, caplog, way: str) -> None:
    sent, uri = artifact(tmp_path / "sent", size=SIZE), f"{s3}/stalled-{way}"
    if way == "down":
        store.send(sent, uri)
    with line(monkeypatch, s3_server.endpoint, drips=2) as poor:
        (store.send(sent, uri) if way == "up" else store.fetch(uri, tmp_path / "fetched"))
    assert poor.drips == 0
    assert "stalled; trying again" in caplog.text
    if way == "up":
        store.fetch(uri, tmp_path / "fetched")
    else:
        assert poor.carried < 1.5 * SIZE, "what had arrived did not travel again"
    assert verify(tmp_path / "fetched") == read_manifest(sent)


@pytest.mark.usefixtures("little_patience")
@pytest.mark.parametrize("after", [0, 3000], ids=["in the headers", "in the body"])
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_line_that_drips_for_ever_is_given_up(s3: str, s3_server, tmp_path, monkeypatch, way, after) -> None:
    sent, uri = artifact(tmp_path / "sent", size=SIZE), f"{s3}/given-up-{way}-{after}"
    if way == "down":
        store.send(sent, uri)
    with (
        line(monkeypatch, s3_server.endpoint, drips=10**6, after=after) as poor,
        pytest.raises(
            UserError, match=r"given-up.*: the connection to 127\.0\.0\.1:\d+ stalled in every attempt; check"
        ),
    ):
        (store.send(sent, uri) if way == "up" else store.fetch(uri, tmp_path / "fetched"))
    assert poor.carried < SIZE / 10
    assert not (tmp_path / "fetched").exists()


@pytest.mark.usefixtures("little_patience")
def test_a_server_that_sends_a_byte_an_attempt_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt gets further, but none far enough to count."""

    class Miser(SimpleS3):
        def reply_object(self, request: Request, data: bytes) -> None:
            if request.command == "HEAD":
                super().reply_object(request, data)
                return
            length = len(data) - int(request.headers["Range"].removeprefix("bytes=").partition("-")[0])
            request.send_response(206)
            request.send_header("Content-Length", str(length))
            request.send_header("Content-Range", f"bytes {len(data) - length}-{len(data) - 1}/{len(data)}")
            request.end_headers()
            request.wfile.write(b"x")

    with (
        scripted(monkeypatch, Miser({"image.tif": bytes(200)})) as server,
        pytest.raises(UserError, match=r"image\.tif: no usable answer"),
    ):
        store.fetch_prefix("s3://bucket/image.tif", tmp_path / "fetched")
    assert len(server.requests) < 50


@pytest.mark.usefixtures("little_patience")
def test_a_server_that_takes_an_upload_and_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER_S", 0.3)
    over = threading.Event()
    with (
        scripted(monkeypatch, lambda request: over.wait()),
        pytest.raises(UserError, match=r"s3://bucket/a: the connection to 127\.0\.0\.1:\d+ stalled in every attempt"),
    ):
        try:
            store.put("s3://bucket/a", b"data")
        finally:
            over.set()


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_slow_transfer_takes_as_long_as_it_takes(s3: str, s3_server, tmp_path, monkeypatch, caplog, way: str) -> None:
    """Neither the time to connect nor that for some progress limits the whole."""
    for name in ("CONNECT_S", "STALL_S", "ANSWER_S"):
        monkeypatch.setattr(limits, name, 3.0)
    monkeypatch.setattr(limits, "MIN_PROGRESS_BYTES", 200_000)  # arrive in several pieces
    sent, uri = artifact(tmp_path / "sent", size=SIZE), f"{s3}/slow-{way}"
    if way == "down":
        store.send(sent, uri)
    with line(monkeypatch, s3_server.endpoint, pause=0.06):  # 8 s
        (store.send(sent, uri) if way == "up" else store.fetch(uri, tmp_path / "fetched"))
    assert "trying again" not in caplog.text
    if way == "up":
        store.fetch(uri, tmp_path / "fetched")
    assert verify(tmp_path / "fetched") == read_manifest(sent)


def test_a_server_may_take_its_time_to_join_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amazon sends blanks until it is done; only a POST may last that long."""
    monkeypatch.setattr(limits, "STALL_S", 0.2)
    monkeypatch.setattr(limits, "COMPLETION_S", 30.0)

    from shared.store.multipart_requests import complete_upload

    def answer(request: Request) -> None:
        request.rfile.read(int(request.headers["Content-Length"]))
        request.send_response(200)
        request.send_header("Content-Type", "application/xml")
        request.end_headers()
        for _ in range(10):
            request.wfile.write(b" ")
            threading.Event().wait(0.1)
        request.wfile.write(b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")

    with scripted(monkeypatch, answer) as server:
        complete_upload("bucket", "key", "upload", {1: "etag"})
    assert [request.command for request in server.requests] == ["POST"]

"""Interrupted transfers: by a server that is killed, and by a connection that breaks within a body."""

import threading
from pathlib import Path

import pytest
from minio import Minio
from store_for_tests import artifact, counted, line

from shared import store
from shared.artifacts.kinds import Files
from shared.artifacts.manifest import read_manifest, seal, verify
from shared.store import download, multipart, retries, upload
from shared.system.errors import UserError


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_server_that_is_killed_and_comes_back(own_server, tmp_path: Path, monkeypatch, way: str) -> None:
    """The transfer waits for it and continues."""
    sent, uri = artifact(tmp_path / "sent", size=17_000_000), f"s3://{own_server.bucket}/killed"
    threads: list[threading.Thread] = []

    def kill(count: int) -> None:
        if count == 2 and not threads:
            own_server.kill()
            threads.append(threading.Thread(target=own_server.start))
            threads[0].start()

    if way == "down":
        store.send(sent, uri)
        counted(monkeypatch, download, "read_range", kill)
        store.fetch(uri, tmp_path / "fetched")
    else:
        counted(monkeypatch, upload, "_is_there", kill)
        store.send(sent, uri)
    threads[0].join()
    if way == "up":
        store.fetch(uri, tmp_path / "fetched")
    assert verify(tmp_path / "fetched") == read_manifest(sent)


SIZE = 9_000_000


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_long_transfer_is_tried_again_however_long_it_took(s3: str, s3_server, tmp_path, monkeypatch, way) -> None:
    """The time limit counts from the first failure, and anew from one that got further; not from the start."""
    sent, uri = artifact(tmp_path / "sent", size=SIZE), f"{s3}/long-{way}"
    monkeypatch.setattr(retries, "MAX_OUTAGE_S", 0.3)
    if way == "down":
        store.send(sent, uri)
        with line(monkeypatch, s3_server.endpoint, cuts=2, pause=0.01) as slow:  # 0.5 s to each cut
            store.fetch(uri, tmp_path / "fetched")
        assert slow.cuts == 0
        assert slow.carried < 1.5 * SIZE, "what had arrived did not travel again"
    else:
        with line(monkeypatch, s3_server.endpoint, cuts=5, pause=0.01) as slow:  # urllib3 itself tries four times
            store.send(sent, uri)
        assert slow.cuts == 0
        store.fetch(uri, tmp_path / "fetched")
    assert verify(tmp_path / "fetched") == read_manifest(sent)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_server_that_is_killed_within_a_body(own_server, tmp_path: Path, monkeypatch, way: str) -> None:
    sent, uri = artifact(tmp_path / "sent", size=SIZE), f"s3://{own_server.bucket}/within"
    threads = [threading.Thread(target=own_server.start)]

    def cut() -> None:
        own_server.kill()
        threads[0].start()

    if way == "down":
        store.send(sent, uri)
    with line(monkeypatch, own_server.endpoint, cut=cut, cuts=1) as slow:
        (store.send(sent, uri) if way == "up" else store.fetch(uri, tmp_path / "fetched"))
    threads[0].join()
    assert slow.cuts == 0
    if way == "up":
        store.fetch(uri, tmp_path / "fetched")
    assert verify(tmp_path / "fetched") == read_manifest(sent)


# --- interrupted uploads ------------------------------------------------------------------------------------------


def unfinished(s3_server) -> list[str]:
    return [item.object_name for item in s3_server.client()._list_multipart_uploads(s3_server.bucket).uploads]


def send_and_break_off(folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin an upload, and end it like SIGKILL once two parts have arrived."""

    def stop(count: int) -> None:
        if count == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        counted(patch, multipart.Upload, "_send", stop)
        with pytest.raises(KeyboardInterrupt):
            store.send(folder, uri)


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_was_broken_off_goes_on(s3: str, s3_server, tmp_path: Path, monkeypatch) -> None:
    sent = artifact(tmp_path / "sent", size=17_000_000)
    send_and_break_off(sent, f"{s3}/goes-on", monkeypatch)
    assert unfinished(s3_server) == ["goes-on/shards/000.tar"]
    parts = counted(monkeypatch, multipart.Upload, "_send")
    store.send(sent, f"{s3}/goes-on")
    assert len(parts) == 4 - 2
    assert unfinished(s3_server) == []
    store.fetch(f"{s3}/goes-on", tmp_path / "fetched")
    assert verify(tmp_path / "fetched") == read_manifest(sent)


@pytest.mark.usefixtures("small_parts")
def test_parts_of_something_else_are_given_up(s3: str, s3_server, tmp_path: Path, monkeypatch) -> None:
    """Whether the parts that have arrived differ, or only those that are still missing."""
    sent = artifact(tmp_path / "sent", size=17_000_000)
    for name, change in (("first", 0), ("last", 16_000_000)):
        other = artifact(tmp_path / name, size=17_000_000)
        with (other / "shards/000.tar").open("r+b") as stream:
            stream.seek(change)
            stream.write(b"something else")
        seal(other, Files)
        send_and_break_off(sent, f"{s3}/given-up-{name}", monkeypatch)
        store.send(other, f"{s3}/given-up-{name}")
        assert unfinished(s3_server) == []
        store.fetch(f"{s3}/given-up-{name}", tmp_path / f"fetched-{name}")
        assert verify(tmp_path / f"fetched-{name}") == read_manifest(other)


@pytest.mark.usefixtures("small_parts")
def test_a_client_without_its_requests_for_parts_is_named_before_anything_is_sent(
    s3: str, s3_server, tmp_path: Path, monkeypatch
) -> None:
    """Another version of minio may lack a private function; the last one is needed when all parts have arrived."""
    monkeypatch.delattr(Minio, "_complete_multipart_upload")
    with pytest.raises(UserError, match=r"minio [\d.]+: _complete_multipart_upload is missing.*install the version in"):
        store.send(artifact(tmp_path / "sent", size=17_000_000), f"{s3}/without")
    assert unfinished(s3_server) == []

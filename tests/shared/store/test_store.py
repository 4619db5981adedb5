"""The object store, against a real S3 server on this machine."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from minio import Minio
from s3_server import Server
from store_for_tests import artifact, counted

from shared import store
from shared.artifacts import manifest as artifacts
from shared.artifacts.kinds import Files, ImageSet, LabelSet
from shared.artifacts.manifest import read_manifest, verify
from shared.store import download, retries, transfer
from shared.store.connection import client
from shared.store.environment import split_uri
from shared.system.errors import ArtifactError, UserError

ROOT = Path(__file__).parents[3]


def test_objects(s3: str) -> None:
    uri = f"{s3}/objects/ä b+c.txt"
    assert not store.exists(uri)
    store.put(uri, b"first")
    store.put(uri, b"second")
    assert store.exists(uri)
    assert store.get(uri) == b"second"
    assert not store.exists(f"{s3}/objects/ä b"), "only whole names exist"
    with pytest.raises(UserError, match="no such object"):
        store.get(f"{s3}/objects/none")


def test_an_artifact_comes_back_as_it_was(s3: str, tmp_path: Path) -> None:
    sent = artifact(tmp_path / "sent")
    store.send(sent, f"{s3}/round/trip/")
    store.fetch(f"{s3}/round/trip", tmp_path / "deep/fetched")
    assert verify(tmp_path / "deep/fetched", Files) == read_manifest(sent)
    for path in sent.rglob("*"):
        if path.is_file():
            assert (tmp_path / "deep/fetched" / path.relative_to(sent)).read_bytes() == path.read_bytes()
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["fetched"], "nothing half-fetched is left"


def test_large_files_travel_in_parts(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PART_BYTES", 5 * 2**20)  # the least that S3 takes
    sent = artifact(tmp_path / "sent", size=17_000_000)
    store.send(sent, f"{s3}/large")
    etags = {name: etag for name, _, etag in store.listing(f"{s3}/large")}
    assert etags["shards/000.tar"].endswith("-4"), "S3 marks an object of four parts so"
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "sha256_file", lambda path: pytest.fail(f"{path} is read once more to be checked"))
        store.fetch(f"{s3}/large", tmp_path / "fetched")
    verify(tmp_path / "fetched")


def test_the_manifest_arrives_last(s3: str, tmp_path: Path) -> None:
    sent = artifact(tmp_path / "sent")
    store.send(sent, f"{s3}/order")
    other = artifact(tmp_path / "other", size=2000)
    (other / "shards/000.tar").unlink()  # the second upload breaks off half-way
    with pytest.raises(FileNotFoundError):
        store.send(other, f"{s3}/order")
    assert not store.exists(f"{s3}/order/artifact.json"), "a half-replaced artifact is none"
    with pytest.raises(ArtifactError, match=r"no artifact\.json"):
        store.fetch(f"{s3}/order", tmp_path / "fetched")


@pytest.mark.parametrize("name", ["shards/000.tar", "index.jsonl"])
def test_a_flipped_byte_is_noticed(s3: str, tmp_path: Path, name: str) -> None:
    store.send(artifact(tmp_path / "sent"), f"{s3}/flipped")
    data = bytearray(store.get(f"{s3}/flipped/{name}"))
    data[len(data) // 2] ^= 1
    store.put(f"{s3}/flipped/{name}", bytes(data))
    with pytest.raises(ArtifactError, match=rf"s3://.*/flipped/{name}: its contents differ"):
        store.fetch(f"{s3}/flipped", tmp_path / "fetched")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sent"]


def test_a_missing_file_is_noticed(s3: str, s3_server, tmp_path: Path) -> None:
    store.send(artifact(tmp_path / "sent"), f"{s3}/missing")
    s3_server.client().remove_object(s3_server.bucket, "missing/index.jsonl")
    with pytest.raises(UserError, match=r"missing.*no such object|missing.*expected"):
        store.fetch(f"{s3}/missing", tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_the_cache_serves_and_heals(s3: str, s3_server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLOOM_CACHE", str(tmp_path / "cache"))
    store.send(artifact(tmp_path / "sent"), f"{s3}/cached")
    store.fetch(f"{s3}/cached", tmp_path / "one")
    s3_server.client().remove_object(s3_server.bucket, "cached/shards/000.tar")
    store.fetch(f"{s3}/cached", tmp_path / "two")  # only the cache still has it
    verify(tmp_path / "two")
    kept = next((tmp_path / "cache/artifacts").glob("*/index.jsonl"))
    kept.unlink()
    kept.write_text("damaged")
    store.send(tmp_path / "sent", f"{s3}/cached")
    store.fetch(f"{s3}/cached", tmp_path / "three")
    verify(tmp_path / "three")
    assert kept.read_text() != "damaged"


def test_the_cache_serves_several_processes_at_a_time(s3: str, tmp_path: Path) -> None:
    store.send(artifact(tmp_path / "sent", size=3_000_000), f"{s3}/shared")
    code = "import sys; from pathlib import Path; from shared import store; store.fetch(sys.argv[1], Path(sys.argv[2]))"
    environment = {**os.environ, "CYTOLOOM_CACHE": str(tmp_path / "cache")}
    started = [
        subprocess.Popen([sys.executable, "-c", code, f"{s3}/shared", tmp_path / name], cwd=ROOT, env=environment)
        for name in "abcd"
    ]
    assert [process.wait() for process in started] == [0, 0, 0, 0]
    for name in "abcd":
        verify(tmp_path / name)
    (kept,) = (tmp_path / "cache/artifacts").iterdir()
    verify(kept)


def fetch_and_break_off(uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a download, and stop it as Ctrl-C does once three parts have arrived."""

    def stop(count: int) -> None:
        if count == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        counted(patch, download, "read_range", stop)
        with pytest.raises(KeyboardInterrupt):
            store.fetch(uri, folder)


@pytest.mark.usefixtures("small_parts")
def test_a_download_that_was_broken_off_goes_on(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.send(artifact(tmp_path / "sent", size=17_000_000), f"{s3}/broken")
    fetch_and_break_off(f"{s3}/broken", tmp_path / "fetched", monkeypatch)
    assert not (tmp_path / "fetched").exists()
    calls = counted(monkeypatch, download, "read_range")
    store.fetch(f"{s3}/broken", tmp_path / "fetched")
    verify(tmp_path / "fetched")
    assert len(calls) == 5 - 3  # four parts and the index
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fetched", "sent"]


@pytest.mark.usefixtures("small_parts")
def test_what_a_broken_download_left_is_not_trusted(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.send(artifact(tmp_path / "sent", size=17_000_000), f"{s3}/spoiled")
    fetch_and_break_off(f"{s3}/spoiled", tmp_path / "fetched", monkeypatch)
    (left,) = tmp_path.glob(".fetched.partial-*/shards/000.tar")
    with left.open("r+b") as stream:
        stream.write(b"not what it was")
    store.fetch(f"{s3}/spoiled", tmp_path / "fetched")
    verify(tmp_path / "fetched")


def test_what_is_there_already_is_not_sent_again(s3: str, tmp_path: Path) -> None:
    sent = artifact(tmp_path / "sent")
    store.send(sent, f"{s3}/twice")
    before = modified(f"{s3}/twice/shards/000.tar")
    time.sleep(1.1)  # the server counts in seconds
    store.put(f"{s3}/twice/index.jsonl", b"something else")
    store.send(sent, f"{s3}/twice")
    assert modified(f"{s3}/twice/shards/000.tar") == before < modified(f"{s3}/twice/index.jsonl")
    store.fetch(f"{s3}/twice", tmp_path / "fetched")
    verify(tmp_path / "fetched")


def modified(uri: str):
    return client().stat_object(*split_uri(uri)).last_modified


def test_an_unreachable_server_is_reported_at_once(monkeypatch: pytest.MonkeyPatch, s3: str, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"no usable answer from 127\.0\.0\.1:9"):
        store.fetch(f"{s3}/x", tmp_path / "x")
    assert time.monotonic() - began < retries.MAX_OUTAGE_S / 2


def test_kubeflow_writes_minio_for_its_own_store(s3: str, tmp_path: Path) -> None:
    sent = artifact(tmp_path / "sent")
    store.send(sent, f"{s3}/scheme".replace("s3://", "minio://"))
    store.fetch(f"{s3}/scheme", tmp_path / "fetched")
    assert verify(tmp_path / "fetched") == read_manifest(sent)


def test_minios_own_client_reads_what_we_wrote_and_writes_what_we_read(s3: str, s3_server: Server, tmp_path) -> None:
    host = s3_server.endpoint.removeprefix("http://")
    theirs = Minio(host, s3_server.key, s3_server.secret, secure=False, region="us-east-1")
    sent = artifact(tmp_path / "sent", size=9_000_000)
    store.send(sent, f"{s3}/ours")
    for item in theirs.list_objects(s3_server.bucket, "ours/", recursive=True):
        theirs.fget_object(s3_server.bucket, item.object_name, str(tmp_path / item.object_name))
    assert verify(tmp_path / "ours", Files) == read_manifest(sent)
    for path in sorted(sent.rglob("*")):
        if path.is_file():
            name = f"theirs/{path.relative_to(sent).as_posix()}"
            theirs.fput_object(s3_server.bucket, name, str(path), part_size=5 * 2**20)
    store.fetch(f"{s3}/theirs", tmp_path / "fetched")
    assert verify(tmp_path / "fetched", Files) == read_manifest(sent)


@pytest.mark.parametrize("style", ["path", "auto"])
def test_addressing_style_comes_from_the_environment(s3: str, monkeypatch: pytest.MonkeyPatch, style: str) -> None:
    monkeypatch.setenv("AWS_S3_ADDRESSING_STYLE", style)
    store.put(f"{s3}/style", style.encode())
    assert store.get(f"{s3}/style") == style.encode()
    monkeypatch.setenv("AWS_S3_ADDRESSING_STYLE", "both")
    with pytest.raises(UserError, match="AWS_S3_ADDRESSING_STYLE"):
        store.get(f"{s3}/style")


def test_plain_objects(s3: str, tmp_path: Path) -> None:
    for name in ("a.tif", "plate1/a.tif", "plate1/b.tif", "plate10/c.tif"):
        store.put(f"{s3}/plain-objects/{name}", name.encode())
    assert [name for name, _, _ in store.listing(f"{s3}/plain-objects")] == [
        "a.tif",
        "plate1/a.tif",
        "plate1/b.tif",
        "plate10/c.tif",
    ]
    assert [(name, size) for name, size, _ in store.listing(f"{s3}/plain-objects/plate1")] == [
        ("a.tif", 12),
        ("b.tif", 12),
    ]
    store.fetch_prefix(f"{s3}/plain-objects/plate1/", tmp_path / "plate")
    assert sorted(p.name for p in (tmp_path / "plate").iterdir()) == ["a.tif", "b.tif"]
    store.fetch_prefix(f"{s3}/plain-objects/a.tif", tmp_path / "one")
    assert (tmp_path / "one/a.tif").read_bytes() == b"a.tif"
    with pytest.raises(UserError, match="no object there"):
        store.fetch_prefix(f"{s3}/plain-objects/plate2", tmp_path / "none")


@pytest.mark.usefixtures("small_parts")
def test_plain_objects_that_were_being_fetched_are_not_fetched_again(s3: str, tmp_path: Path, monkeypatch) -> None:
    """A killed process leaves them in the cache; while the cache is in use, another process fetches for itself."""
    monkeypatch.setenv("CYTOLOOM_CACHE", str(tmp_path / "cache"))
    for name in "abcde":
        store.put(f"{s3}/plain/{name}.tif", name.encode())

    def kill(count: int) -> None:
        if count == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        counted(patch, download, "read_range", kill)
        with pytest.raises(KeyboardInterrupt), store.borrowed_prefix(f"{s3}/plain"):
            pytest.fail("it is not there yet")
    calls = counted(monkeypatch, download, "read_range")
    with store.borrowed_prefix(f"{s3}/plain") as first, store.borrowed_prefix(f"{s3}/plain") as second:
        assert len(calls) == 2 + 5
        assert first.is_relative_to(tmp_path) and not second.is_relative_to(tmp_path / "cache")
        for folder in (first, second):
            assert {path.name: path.read_text() for path in folder.iterdir()} == {f"{n}.tif": n for n in "abcde"}
    assert list((tmp_path / "cache/sources").iterdir()) == [] and not second.exists()
    monkeypatch.setenv("CYTOLOOM_CACHE", "/proc/nope")
    with store.borrowed_prefix(f"{s3}/plain") as folder:
        assert len(list(folder.iterdir())) == 5


def test_an_object_and_others_below_its_name(s3: str, tmp_path: Path) -> None:
    """A folder cannot hold both."""
    for name in ("clash/a", "clash/a/b.tif", "clash/c.tif"):
        store.put(f"{s3}/{name}", name.encode())
    with pytest.raises(UserError, match=r"/clash: 'a' is both an object and a folder of others; rename"):
        store.fetch_prefix(f"{s3}/clash", tmp_path / "all")
    with pytest.raises(UserError, match=r"/clash/a: both an object and a folder of others; s3.*/clash/a/ means"):
        store.fetch_prefix(f"{s3}/clash/a", tmp_path / "a")
    store.fetch_prefix(f"{s3}/clash/a/", tmp_path / "below")
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["b.tif"]


def test_a_changed_object_changes_the_listing(s3: str) -> None:
    store.put(f"{s3}/print/a", b"one")
    before = store.listing(f"{s3}/print")
    store.put(f"{s3}/print/a", b"two")
    assert store.listing(f"{s3}/print") != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "0123456789wrong"}, "refused the keys"),
        ({"AWS_ACCESS_KEY_ID": "nobody4711"}, "refused the keys"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: not in the environment; set them"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, r"no usable answer from 127\.0\.0\.1:1 .*AWS_ENDPOINT_URL"),
        ({"AWS_ENDPOINT_URL": "127.0.0.1:8333"}, "AWS_ENDPOINT_URL: not of the form"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:99999"}, "AWS_ENDPOINT_URL: port out of range"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:soon"}, "AWS_ENDPOINT_URL: port could not be cast"),
        ({"AWS_ENDPOINT_URL": "http://[::1:9000"}, "AWS_ENDPOINT_URL: "),
    ],
)
def test_wrong_settings_are_named(
    s3: str, s3_server, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], message: str, tmp_path: Path
) -> None:
    store.put(f"{s3}/there", b"x")
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    sent = artifact(tmp_path / "sent")
    calls = [
        lambda: store.exists(f"{s3}/there"),
        lambda: store.get(f"{s3}/there"),
        lambda: store.put(f"{s3}/there", b"y"),
        lambda: store.listing(s3),
        lambda: store.send(sent, f"{s3}/sent"),
        lambda: store.fetch(f"{s3}/sent", tmp_path / "fetched"),
    ]
    for call in calls if not str(change).endswith("127.0.0.1:1'}") else calls[:1]:
        with pytest.raises(UserError, match=message) as caught:
            call()
        for secret in (s3_server.secret, s3_server.key, "0123456789wrong", "nobody4711"):
            assert secret not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3:/bucket/x", "s3://", "gs://bucket/x", "/plain/path", "s3:///x"])
def test_not_an_s3_uri(uri: str) -> None:
    with pytest.raises(UserError, match="not of the form s3://bucket/name"):
        store.exists(uri)


def test_no_such_bucket(s3: str, tmp_path: Path) -> None:
    sent = artifact(tmp_path / "sent")
    calls = [
        lambda: store.exists("s3://no-such-bucket/x"),
        lambda: store.put("s3://no-such-bucket/x", b""),
        lambda: store.get("s3://no-such-bucket/x"),
        lambda: store.listing("s3://no-such-bucket/x"),
        lambda: store.send(sent, "s3://no-such-bucket/x"),
        lambda: store.fetch("s3://no-such-bucket/x", tmp_path / "fetched"),
    ]
    for call in calls:
        with pytest.raises(UserError, match="no such bucket"):
            call()


def test_an_artifact_needs_a_name(s3: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a name of its own"):
        store.send(artifact(tmp_path / "sent"), s3)


def test_the_module_is_light() -> None:
    """Stages without S3 import it too: minio is imported by the first request."""
    code = "import sys, shared.store; print([m for m in ('minio', 'urllib3', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def stage(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "components", *args], cwd=ROOT, env=os.environ, capture_output=True, text=True
    )


def test_a_stage_by_hand_reads_and_writes_s3(s3: str, tmp_path: Path, nuclei) -> None:
    """`ingest` with its source and its outputs in S3 makes what it makes on local paths."""
    import tifffile

    (tmp_path / "source").mkdir()
    for i in range(2):
        tifffile.imwrite(tmp_path / f"source/crop{i}.tif", nuclei[64 * i : 64 * i + 64, :64, 0])
        store.put(f"{s3}/source/crop{i}.tif", (tmp_path / f"source/crop{i}.tif").read_bytes())
    ports = ("images", "labels", "no_labels")
    here = stage(
        "ingest", "--source", str(tmp_path / "source"), *(w for p in ports for w in (f"--{p}", f"{tmp_path}/{p}"))
    )
    assert here.returncode == 0, here.stderr
    there = stage("ingest", "--source", f"{s3}/source", *(w for p in ports for w in (f"--{p}", f"{s3}/out/{p}")))
    assert there.returncode == 0, there.stderr
    for port in ports:
        store.fetch(f"{s3}/out/{port}", tmp_path / "fetched" / port)
        kind = ImageSet if port == "images" else LabelSet
        assert verify(tmp_path / "fetched" / port, kind).digest == verify(tmp_path / port, kind).digest
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in there.stdout + there.stderr
    again = stage("ingest", "--source", f"{s3}/source", *(w for p in ports for w in (f"--{p}", f"{s3}/out/{p}")))
    assert again.returncode == 1
    assert "holds a finished artifact" in again.stderr

"""Objects with names that no file can have, or that would be one file."""

import io
import json
from pathlib import Path

import pytest
from store_for_tests import SimpleS3, artifact, counted, scripted

from shared import store
from shared.artifacts.manifest import MANIFEST
from shared.store import download
from shared.store.files.names import first_problem
from shared.system.errors import ArtifactError, UserError

BAD = [
    (("a//b.tif",), "'a//b.tif' has a part between slashes that is empty"),
    (("a/b.tif", "a//b.tif"), "'a//b.tif' has a part"),
    (("/etc/passwd",), "'/etc/passwd' has a part"),
    (("a/./b.tif",), "has a part between slashes that is empty, . or .."),
    (("a/../b.tif",), "has a part"),
    (("../up.tif",), "has a part"),
    (("..",), "has a part"),
    (("a/b.tif", "plate/"), "'plate/' has a part between slashes that is empty"),
    (("a\0b.tif",), r"'a\\x00b.tif' contains control characters"),
    (("a\nb.tif",), r"'a\\nb.tif' contains control characters"),
    (("a\x1b[31mb.tif",), r"contains control characters"),
    (("x" * 256,), "is too long: a file system holds 255 bytes between slashes"),
    (("é" * 128,), "is too long"),
    (("/".join(["x" * 200] * 6),), "is too long: .* 1024 in all"),
    (("a", "a/b.tif"), "'a' is both an object and a folder of others"),
]
GOOD = ("a.tif", "ä b+c.tif", "...", "..a", "a./b", "x" * 255, "é" * 127, "-", "a\\b", "100%.tif", "細胞.tif")
NAMES = [",".join(name[:12] for name in names).encode("unicode_escape").decode() for names, _ in BAD]


@pytest.mark.parametrize(("names", "problem"), BAD, ids=NAMES)
def test_names_that_no_file_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names, problem: str) -> None:
    """No part is fetched, and nothing is written outside of the folder."""
    with scripted(monkeypatch, SimpleS3({f"in/{name}": b"image" for name in (*names, "good.tif")})) as server:
        for call in (
            lambda: store.listing("s3://bucket/in"),
            lambda: store.fetch_prefix("s3://bucket/in/", tmp_path / "deep/fetched"),
        ):
            with pytest.raises(UserError, match=rf"s3://bucket/in/?: .*{problem}.*; rename the object, or remove it"):
                call()
        assert all("list-type" in request.path for request in server.requests)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(("names", "problem"), BAD, ids=NAMES)
def test_a_manifest_that_lists_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names, problem: str) -> None:
    manifest = json.loads((artifact(tmp_path / "sent") / MANIFEST).read_text())
    manifest["files"] |= dict.fromkeys(names, manifest["files"]["empty"])
    with (
        scripted(monkeypatch, SimpleS3({f"in/{MANIFEST}": json.dumps(manifest).encode()})),
        pytest.raises(ArtifactError, match=rf"s3://bucket/in/artifact\.json: .*{problem}.*; make the artifact again"),
    ):
        store.fetch("s3://bucket/in", tmp_path / "deep/fetched")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sent"]


@pytest.mark.parametrize("size", [-1, 2**62, 2**70])
def test_a_manifest_with_impossible_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    manifest = json.loads((artifact(tmp_path / "sent") / MANIFEST).read_text())
    manifest["files"]["index.jsonl"]["size"] = size
    with (
        scripted(monkeypatch, SimpleS3({f"in/{MANIFEST}": json.dumps(manifest).encode()})),
        pytest.raises(UserError, match=r"'index\.jsonl' (has -1 bytes|cannot be a file in )"),
    ):
        store.fetch("s3://bucket/in", tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_names_that_files_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(monkeypatch, SimpleS3({f"in/{name}": name.encode() for name in GOOD})):
        store.fetch_prefix("s3://bucket/in", tmp_path / "fetched")
    for name in GOOD:
        assert (tmp_path / "fetched" / name).read_text() == name
    assert sum(path.is_file() for path in (tmp_path / "fetched").rglob("*")) == len(GOOD)
    assert first_problem(["\ud800.tif"]) == r"'\ud800.tif' is not Unicode"


def test_names_in_a_real_bucket(s3: str, s3_server, tmp_path: Path) -> None:
    """Those that this server keeps as they are; to it, a backslash is a slash."""
    client, kept = s3_server.client(), [name for name in GOOD if "\\" not in name]
    for name in kept:
        client.put_object(s3_server.bucket, f"good/{name}", io.BytesIO(name.encode()), len(name.encode()))
    store.fetch_prefix(f"{s3}/good", tmp_path / "good")
    for name in kept:
        assert (tmp_path / "good" / name).read_text() == name
    client.put_object(s3_server.bucket, "bad/a\x01b.tif", io.BytesIO(b"image"), 5)
    with pytest.raises(UserError, match=r"/bad: 'a\\x01b\.tif' contains control characters"):
        store.fetch_prefix(f"{s3}/bad", tmp_path / "bad")


def test_a_folder_that_a_console_created(s3: str, s3_server, tmp_path: Path) -> None:
    """It is an empty object whose name ends in a slash."""
    s3_server.client().put_object(s3_server.bucket, "console/plate/", io.BytesIO(), 0)
    store.put(f"{s3}/console/plate/a.tif", b"image")
    for number, uri in enumerate(("console", "console/", "console/plate", "console/plate/")):
        store.fetch_prefix(f"{s3}/{uri}", tmp_path / str(number))
        assert [path.name for path in (tmp_path / str(number)).rglob("*.tif")] == ["a.tif"], uri


def test_the_folder_itself_with_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be lost in silence."""
    for objects in ({"in/": b"", "in/a.tif": b"image"}, {"in/": b"image", "in/a.tif": b"image"}):
        with scripted(monkeypatch, SimpleS3(objects)):
            if not objects["in/"]:
                assert [name for name, _, _ in store.listing("s3://bucket/in/")] == ["a.tif"]
                continue
            with pytest.raises(UserError, match="s3://bucket/in/: 'in/' has a part between slashes that is empty"):
                store.listing("s3://bucket/in/")


def test_an_object_below_an_empty_name_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {"in//a.tif": b"right", "in/a.tif": b"wrong", "//b.tif": b"right", "b.tif": b"wrong"}
    with scripted(monkeypatch, SimpleS3(objects)):
        for name in ("in//a.tif", "//b.tif"):
            store.fetch_prefix(f"s3://bucket/{name}", tmp_path / "fetched")
            assert [path.read_bytes() for path in (tmp_path / "fetched").iterdir()] == [b"right"]


def test_a_name_that_is_too_long_with_its_folder(s3: str, tmp_path: Path) -> None:
    store.put(f"{s3}/long/{'/'.join(['x' * 200] * 3)}", b"image")
    folder = tmp_path.joinpath(*["d" * 150] * 23)
    with pytest.raises(UserError, match=r"xxx' cannot be a file in .*: File name too long; use another folder"):
        store.fetch_prefix(f"{s3}/long", folder)
    assert not folder.exists()


def test_two_names_that_are_one_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that takes upper case for lower case; here by a link that an earlier download left."""
    objects = {"in/A.tif": b"image", "in/a.tif": b"other"}
    with scripted(monkeypatch, SimpleS3(objects)):
        with monkeypatch.context() as patch:
            counted(patch, download, "read_range", then=_stop)
            with pytest.raises(KeyboardInterrupt):
                store.fetch_prefix("s3://bucket/in", tmp_path / "fetched")
        (partial,) = [path for path in tmp_path.iterdir() if path.is_dir()]
        (partial / "a.tif").unlink()
        (partial / "a.tif").hardlink_to(partial / "A.tif")
        with pytest.raises(UserError, match=r"'A\.tif' and 'a\.tif' are one file on this file system; rename one"):
            store.fetch_prefix("s3://bucket/in", tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def _stop(count: int) -> None:
    raise KeyboardInterrupt

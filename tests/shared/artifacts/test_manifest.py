import hashlib
import json
import shutil

import pytest

from shared.artifacts.kinds import Files
from shared.artifacts.manifest import Manifest, content_digest, is_artifact, read_manifest, seal, verify
from shared.system.errors import ArtifactError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "set"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("alpha")
    (folder / "deep/b.bin").write_bytes(bytes(range(256)))
    return folder


def test_the_manifest_lists_every_file_with_its_sha256(folder):
    made = seal(folder, Files, stage="x", parameters={"k": 1}, code_version="c", inputs={"i": "d"})
    assert read_manifest(folder, Files) == verify(folder) == made
    assert list(made.files) == ["a.txt", "deep/b.bin"]
    assert made.files["a.txt"].sha256 == hashlib.sha256(b"alpha").hexdigest() and made.files["a.txt"].size == 5
    assert json.loads((folder / "artifact.json").read_text())["type"] == "Files"


def test_the_digest_is_of_the_contents_alone(folder, tmp_path):
    digest = seal(folder, Files, stage="x", parameters={"k": 1}).digest
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    for name in ("MODEL_CARD.md", "report.html", "train.log"):
        (copy / name).write_text("about it")
    assert seal(copy, Files, stage="y", parameters={}, code_version="other").digest == digest
    (copy / "a.txt").write_text("alphb")
    assert seal(copy, Files).digest != digest
    (copy / "a.txt").rename(copy / "c.txt")
    assert seal(copy, Files).digest != digest


def test_the_digest_is_the_one_that_was_published(folder):
    """Digests are compared across machines and versions: this one must not change unnoticed."""
    a, b = (hashlib.sha256(data).hexdigest() for data in (b"alpha", bytes(range(256))))
    text = f'[[["a.txt","{a}"],["deep/b.bin","{b}"]],false]'
    assert seal(folder, Files).digest == hashlib.sha256(text.encode()).hexdigest()


def test_a_skipped_artifact_has_a_digest_of_its_own(folder):
    files = seal(folder, Files).files
    (one, other) = (content_digest(files, "Files", reason) for reason in ("no labels", "another reason"))
    assert content_digest(files) != one == other
    passed_on = content_digest(files, "Model", "the loop is over")
    assert passed_on == content_digest(files), "a model that is passed on is the same model"


def change(folder):
    (folder / "deep/b.bin").write_bytes(bytes(255) + b"x")


def truncate(folder):
    (folder / "deep/b.bin").write_bytes(b"")


def add(folder):
    (folder / "deep/new").touch()


def remove(folder):
    (folder / "a.txt").unlink()


def rewrite(**values):
    def edit(folder):
        path = folder / "artifact.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return edit


def cut(folder):
    path = folder / "artifact.json"
    path.write_bytes(path.read_bytes()[:40])


def garble(folder):
    (folder / "artifact.json").write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change, ["deep/b.bin", "contents differ"]),
        (truncate, ["deep/b.bin", "0 bytes", "256"]),
        (add, ["deep/new", "not listed"]),
        (remove, ["a.txt", "missing"]),
        (rewrite(digest="0" * 64), ["digest does not match"]),
        (rewrite(type="LabelSet"), ["a Files is needed here"]),
        (rewrite(schema_version=99), ["schema version 99"]),
        (rewrite(surprise=1), ["not a readable manifest"]),
        (rewrite(files={"../../etc/passwd": {"sha256": "0", "size": 1}}), ["outside"]),
        (rewrite(files={"/etc/passwd": {"sha256": "0", "size": 1}}), ["outside"]),
        (cut, ["not a readable manifest"]),
        (garble, ["not a readable manifest"]),
        (lambda folder: (folder / "artifact.json").unlink(), ["no finished artifact"]),
        (shutil.rmtree, ["no such folder"]),
    ],
)
def test_whatever_is_wrong_is_named(folder, damage, words):
    seal(folder, Files)
    damage(folder)
    with pytest.raises(ArtifactError) as caught:
        verify(folder, Files)
    assert str(folder) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_links_are_refused(folder):
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match="symbolic links"):
        seal(folder, Files)
    assert not is_artifact(folder)
    (folder / "link").unlink()
    seal(folder, Files)
    (folder / "a.txt").rename(folder.parent / "a.txt")
    (folder / "a.txt").symlink_to(folder.parent / "a.txt")
    with pytest.raises(ArtifactError, match="symbolic link"):
        verify(folder)


def test_linked_folders_are_refused(folder):
    """What a listed file is read from must lie in the artifact."""
    (folder / "inner").mkdir()
    (folder / "inner/b.txt").write_text("b")
    seal(folder, Files)
    verify(folder)
    (folder / "inner").rename(folder.parent / "inner")
    (folder / "inner").symlink_to(folder.parent / "inner")
    with pytest.raises(ArtifactError, match=r"inner: a symbolic link"):
        verify(folder)
    with pytest.raises(ArtifactError, match="symbolic link"):
        seal(folder, Files)


def test_sealing_again_gives_the_same_bytes(folder):
    seal(folder, Files, parameters={"b": 1, "a": 2})
    before = (folder / "artifact.json").read_bytes()
    seal(folder, Files, parameters={"a": 2, "b": 1})
    assert (folder / "artifact.json").read_bytes() == before
    assert Manifest.model_validate_json(before).type == "Files"

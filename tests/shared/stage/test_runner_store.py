"""A stage with inputs and outputs in a real S3 server: checks before it computes, and outputs that are kept."""

import json
import subprocess
from pathlib import Path

import probe
import pytest
from store_for_tests import artifact

from shared import store
from shared.artifacts.kinds import LabelSet
from shared.artifacts.manifest import read_manifest, seal


@pytest.fixture(scope="module")
def tree(make_tree):
    tree = make_tree("probe")
    tree.add_stage("probe", probe.FILES)
    return tree


@pytest.fixture
def locked(s3_server):
    """Forbid writing below `locked/`."""
    resource = f"arn:aws:s3:::{s3_server.bucket}/locked/*"
    deny = {"Effect": "Deny", "Principal": "*", "Action": ["s3:PutObject"], "Resource": [resource]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    s3_server.client().set_bucket_policy(s3_server.bucket, policy)
    yield
    s3_server.client().delete_bucket_policy(s3_server.bucket)


def words(images: Path | str, first: str, second: Path, *more: object) -> list[object]:
    return ["probe", "--images", images, "--first", first, "--second", second, *more]


def message(done: subprocess.CompletedProcess) -> str:
    """Return the last line of a run that failed."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("BUCKET", "error: --first: s3://cytoloom: an artifact needs a name of its own in the bucket"),
        ("s3://no-such-bucket/x", "error: --first: s3://no-such-bucket: no such bucket at 127.0.0.1"),
        ("BUCKET/locked/x", "error: --first: s3://cytoloom/locked/x/.writable: 127.0.0.1"),
        (
            "BUCKET/strangers",
            "error: --first: s3://cytoloom/strangers holds objects that are no part of an artifact (a.tif)",
        ),
        ("BUCKET/finished", "error: --first: s3://cytoloom/finished holds a finished artifact"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_computing(
    tree, s3, locked, small_images, tmp_path, place: str, expected: str
) -> None:
    """If the stage computed first, its own failure would be reported."""
    store.put(f"{s3}/strangers/a.tif", b"another's image")
    store.send(artifact(tmp_path / "finished"), f"{s3}/finished")
    done = tree.run(*words(small_images, place.replace("BUCKET", s3), tmp_path / "second", "--mode", "raise"))
    assert message(done).startswith(expected)
    if "/locked" in place:
        assert "AccessDenied" in message(done)
    if "/strangers" in place:
        assert [name for name, _, _ in store.listing(f"{s3}/strangers")] == ["a.tif"]


@pytest.mark.parametrize("place", ["BUCKET", "s3://no-such-bucket/report.html"])
def test_a_page_that_cannot_be_written_is_refused_before_computing(tree, s3, small_images, tmp_path, place) -> None:
    given = words(small_images, tmp_path / "first", tmp_path / "second", "--mode", "raise")
    done = tree.run(*given, "--report", place.replace("BUCKET", s3))
    assert message(done).startswith("error: --report: s3://")


def test_probes_leave_nothing(tree, s3, small_images, tmp_path) -> None:
    done = tree.run(*words(small_images, f"{s3}/look/first", tmp_path / "second", "--report", f"{s3}/look/r.html"))
    assert done.returncode == 0, done.stderr
    names = [name for name, _, _ in store.listing(f"{s3}/look")]
    assert names == ["first/artifact.json", "first/index.jsonl", "first/labelset.json", "r.html"]


def test_an_artifact_that_appears_meanwhile_is_kept(tree, s3, small_images, tmp_path) -> None:
    """Another process writes an artifact to the same place while the stage computes."""
    for more, kept in (([], True), (["--overwrite"], False)):
        uri, folder = f"{s3}/meanwhile/{kept}", tmp_path / str(kept)
        folder.mkdir()
        process = subprocess.Popen(
            tree.command(*words(small_images, uri, folder / "second", "--mode", "pause", *more)),
            cwd=tree.root,
            env=tree.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "waiting\n"
        (folder / "theirs").mkdir()
        (folder / "theirs/index.jsonl").write_text("")
        (folder / "theirs/labelset.json").write_text('{"origin": "truth"}')
        theirs = seal(folder / "theirs", LabelSet)
        store.send(folder / "theirs", uri)
        _, stderr = process.communicate("go on\n", timeout=60)
        assert process.returncode == (1 if kept else 0), stderr
        store.fetch(uri, folder / "fetched")
        assert (read_manifest(folder / "fetched") == theirs) == kept
        assert not kept or f"--first: {uri} holds a finished artifact" in stderr
        assert (folder / "second").exists() != kept, "all outputs or none"


def test_an_input_of_another_kind_is_named_before_it_is_fetched(tree, s3, tmp_path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/index.jsonl").write_text("")
    (tmp_path / "labels/labelset.json").write_text('{"origin": "truth"}')
    seal(tmp_path / "labels", LabelSet)
    store.send(tmp_path / "labels", f"{s3}/labels")
    store.remove(f"{s3}/labels/index.jsonl")  # fetching it would report this missing file
    done = tree.run(*words(f"{s3}/labels", tmp_path / "first", tmp_path / "second"))
    expected = f"error: --images: {s3}/labels: an ImageSet is needed here, this one's type is LabelSet; give another"
    assert message(done) == expected


@pytest.mark.parametrize("kept", ["/proc/nope", "FILE/below"])
def test_a_stage_runs_without_checkpoints_that_cannot_be_written(tree, small_images, tmp_path, kept: str) -> None:
    (tmp_path / "file").write_text("")
    given = words(small_images, tmp_path / "first", tmp_path / "second")
    done = tree.run(*given, env={"CYTOLOOM_CHECKPOINTS": kept.replace("FILE", str(tmp_path / "file"))})
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "CYTOLOOM_CHECKPOINTS" in line]
    assert "going on without checkpoints" in line
    assert read_manifest(tmp_path / "first").stage == "probe"

"""The form of each kind's payload: what its writers make is accepted, anything else is refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_segmentor import CONFIG

from shared.artifacts.feature_set import FeatureWriter
from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import ARTIFACT_KINDS, Artifact, FeatureSet, Files, ImageSet, LabelSet, Model, Scores
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.manifest import hash_folder, read_manifest, seal, verify
from shared.models.files import save_model
from shared.models.segmentor import Segmentor
from shared.system.errors import ArtifactError


def write_images(folder: Path, keys: tuple[str, ...] = ("a", "b")) -> None:
    with ImageWriter(folder) as writer:
        for key in keys:
            writer.add(key, np.zeros((8, 8, 1), np.uint8), source=f"{key}.tif")


def write_labels(folder: Path, keys: tuple[str, ...] = ("a", "b")) -> None:
    with LabelWriter(folder, "truth") as writer:
        for key in keys:
            writer.add(key, np.ones((8, 8), np.uint8), "instances")
            writer.classify(key, "positive")


def write_features(folder: Path, keys: tuple[str, ...] = ("a", "b")) -> None:
    with FeatureWriter(folder) as writer:
        for key in keys:
            writer.add(key, np.zeros((1, 1, 4)), stride=8, size=(8, 8), probability=np.zeros((8, 8)))


def write_model(folder: Path) -> None:
    save_model(folder, Segmentor(CONFIG).state_dict(), CONFIG, "card")


def write_scores(folder: Path) -> None:
    folder.mkdir()
    (folder / "scores.json").write_text('{"overall": {}, "n": 0}')
    (folder / "scores.csv").write_text("image,dice\n")


def write_files(folder: Path) -> None:
    (folder / "labels").mkdir(parents=True)
    (folder / "labels/a.tif").write_bytes(b"II")
    (folder / "cells.csv").write_text("key,area_px\n")


WRITERS = {
    ImageSet: write_images,
    LabelSet: write_labels,
    FeatureSet: write_features,
    Model: write_model,
    Scores: write_scores,
    Files: write_files,
}


def test_every_kind_is_tried_here() -> None:
    assert set(WRITERS) == set(ARTIFACT_KINDS.values())


@pytest.fixture(params=WRITERS, ids=lambda kind: kind.__name__)
def written(request, tmp_path: Path) -> tuple[type[Artifact], Path]:
    """A kind, and a folder that its writer filled."""
    WRITERS[request.param](tmp_path / "payload")
    return request.param, tmp_path / "payload"


def test_what_the_writers_make_is_sealed_and_verified(written) -> None:
    kind, folder = written
    (folder / "report.html").write_text("beside the payload")
    (folder / "train.log").write_text("beside the payload")
    assert seal(folder, kind) == verify(folder, kind)


def test_a_payload_is_sealed_as_its_own_kind_alone(written) -> None:
    """Files may hold anything; no folder passes for two of the others."""
    kind, folder = written
    for other in set(WRITERS) - {kind, Files}:
        with pytest.raises(ArtifactError, match=str(folder)):
            seal(folder, other)
    assert not (folder / "artifact.json").exists()


def test_a_manifest_that_claims_another_kind_is_refused(written) -> None:
    kind, folder = written
    seal(folder, kind)
    path = folder / "artifact.json"
    for other in set(WRITERS) - {kind, Files}:
        path.write_text(json.dumps({**json.loads(path.read_text()), "type": other.__name__}))
        with pytest.raises(ArtifactError, match=str(folder)):
            verify(folder, other)
    path.write_text(json.dumps({**json.loads(path.read_text()), "type": "Thesis"}))
    with pytest.raises(ArtifactError, match="type 'Thesis' is not one of ImageSet, LabelSet, FeatureSet, Model"):
        verify(folder)


@pytest.mark.parametrize(
    ("kind", "write"), [(ImageSet, write_images), (LabelSet, write_labels), (FeatureSet, write_features)]
)
def test_empty_and_skipped_sets_are_sealed(kind, write, tmp_path: Path) -> None:
    write(tmp_path / "empty", ())
    seal(tmp_path / "empty", kind, skipped="nothing to do")
    assert verify(tmp_path / "empty", kind).skipped == "nothing to do"


def test_an_exported_model_is_a_model(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    for name in ("model.onnx", "model.engine", "export.json"):
        (tmp_path / "model" / name).write_text("{}")
    assert set(seal(tmp_path / "model", Model).files) >= {"model.onnx", "model.engine", "export.json"}


@pytest.mark.parametrize(
    ("kind", "name", "text", "message"),
    [
        (ImageSet, "index.jsonl", None, "index.jsonl: missing, an ImageSet always holds it; make the artifact again"),
        (ImageSet, "labels-00000.tar", b"", "labels-00000.tar: not a file of an ImageSet; remove it, or give"),
        (ImageSet, "images-00000.tar", b"no tar", "images-00000.tar: not a .tar file"),
        (ImageSet, "index.jsonl", b"{", "index.jsonl: not readable as JSON"),
        (ImageSet, "index.jsonl", b"[]\n", "index.jsonl: no 'key' in it, so this is not an ImageSet"),
        (ImageSet, "index.jsonl", b'{"key": "a"}\n', "index.jsonl: no 'source' in it"),
        (LabelSet, "labelset.json", None, "labelset.json: missing, a LabelSet always holds it"),
        (LabelSet, "labelset.json", b"{}", "labelset.json: no 'origin' in it"),
        (FeatureSet, "features-00000.npy", b"no array", "features-00000.npy: not a .npy file"),
        (FeatureSet, "deep/features-00000.npy", b"", "deep/features-00000.npy: not a file of a FeatureSet"),
        (Model, "model.safetensors", None, "model.safetensors: missing, a Model always holds it"),
        (Model, "model.safetensors", b"\x80\x02}q\x00X\x01\x00\x00\x00", "model.safetensors: not a .safetensors file"),
        (Model, "config.json", b'{"width": 128}', "config.json: no 'kind' in it, so this is not a Model"),
        (Model, "weights.pth", b"", "weights.pth: not a file of a Model"),
        (Scores, "scores.csv", None, "scores.csv: missing, a Scores always holds it"),
        (Scores, "scores.json", b"[1]", "scores.json: no 'overall' in it"),
        (Scores, "notes.txt", b"", "notes.txt: not a file of a Scores"),
    ],
)
def test_a_wrong_file_is_named_when_sealed_and_when_verified(tmp_path: Path, kind, name, text, message) -> None:
    folder = tmp_path / "payload"
    WRITERS[kind](folder)
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text)
    with pytest.raises(ArtifactError) as caught:
        seal(folder, kind)
    assert str(folder / name) in str(caught.value) and message in str(caught.value)
    seal(folder, Files)  # nothing is asked of its files, so the manifest can be forged
    path = folder / "artifact.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "type": kind.__name__}))
    with pytest.raises(ArtifactError) as caught:
        verify(folder, kind)
    assert message in str(caught.value)


def test_the_model_card_is_no_payload(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    digest = seal(tmp_path / "model", Model).digest
    shutil.copytree(tmp_path / "model", tmp_path / "other")
    (tmp_path / "other/MODEL_CARD.md").write_text("other words")
    assert seal(tmp_path / "other", Model).digest == digest == read_manifest(tmp_path / "model").digest
    assert "MODEL_CARD.md" in hash_folder(tmp_path / "other")

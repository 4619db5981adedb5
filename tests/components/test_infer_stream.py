"""`infer` over many images: bad ones are listed, memory is bounded, and boxes and masks are kept side by side."""

import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from real_labels import wheel_nuclei
from small_classifier import crops, write_classifier
from small_segmentor import CONFIG, trained, write_images, write_model

from components.evaluate.component import Evaluate
from components.evaluate.main import run as evaluate
from components.infer import image_batches
from components.infer.component import Infer
from components.infer.main import run
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import LabelSet, Model
from shared.artifacts.label_set import LabelReader, LabelWriter
from shared.artifacts.manifest import seal
from shared.models.config import DetectorArchitecture, DetectorConfig, ModelInput, ResNetArchitecture
from shared.models.files import save_model
from shared.stage.declaration import Result
from shared.system.errors import UserError

CROPS, TRUTH = crops(12, "lower", seed=3)
IMAGE, _ = wheel_nuclei()


def infer(images: Path, out: Path, **fields) -> tuple[Result, LabelReader]:
    for name in ("predictions", "files"):
        (out / name).mkdir(parents=True)
    result = run(Infer(images=images, predictions=out / "predictions", files=out / "files", **fields))
    seal(out / "predictions", LabelSet)
    return result, LabelReader(out / "predictions")


def failures(out: Path) -> dict[str, str]:
    with (out / "files/failures.csv").open(newline="") as stream:
        return {row["source"]: row["reason"] for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("i") / "i", {f"c{i:02d}": crop for i, crop in enumerate(CROPS)})


def damage(images: Path, key: str, folder: Path) -> Path:
    """Copy an image set; the pixels of one image are lost."""
    member = ImageReader(images).entries[key].member
    folder.mkdir(parents=True)
    for path in images.iterdir():
        data = bytearray(path.read_bytes())
        if path.name == member.shard:
            data[member.offset + 20 : member.offset + member.size] = bytes(member.size - 20)
        (folder / path.name).write_bytes(data)
    return folder


def test_an_image_that_cannot_be_read_is_listed_and_the_others_are_predicted(images, tmp_path):
    damaged = damage(images, "c05", tmp_path / "images")
    (damaged / "rejects.csv").write_text("source,reason\nold.tif,truncated\nmask.png,label: of another size\n")
    result, reader = infer(damaged, tmp_path / "o", segmentor=write_model(tmp_path / "m"))
    assert reader.keys() == [f"c{i:02d}" for i in range(12) if i != 5]
    listed = failures(tmp_path / "o")
    assert set(listed) == {"c05.tif", "old.tif"} and listed["c05.tif"].startswith("cannot be read: ")
    assert result.metrics["failed"] == 2 and result.metrics["images"] == 11
    page = result.page.html()
    assert (
        "Not predicted (2)" in page and "old.tif" in page and "Images that could not be predicted: 2" in result.remark
    )


def test_evaluate_leaves_out_what_could_not_be_predicted(images, tmp_path):
    damaged = damage(images, "c05", tmp_path / "images")
    models = {"classifier": write_classifier(tmp_path / "c"), "segmentor": write_model(tmp_path / "m")}
    _, reader = infer(damaged, tmp_path / "o", **models, target_error="none", distance_quantile="none")
    assert reader.info.notes["failed"] == ["c05"]
    with LabelWriter(tmp_path / "truth", "truth") as writer:
        for number, (key, entry) in enumerate(sorted(ImageReader(images).entries.items())):
            writer.classify(key, "positive" if TRUTH[number] else "negative")
            writer.add(key, np.ones((entry.height, entry.width), np.uint8), "instances")
    seal(tmp_path / "truth", LabelSet)
    (tmp_path / "s").mkdir()
    given = {"images": damaged, "truth": tmp_path / "truth", "predictions": tmp_path / "o/predictions"}
    result = evaluate(Evaluate(**given, scores=tmp_path / "s"))
    assert result.metrics["images"] == 11
    assert "1 more image is left out, because infer could not predict it" in result.remark
    with (tmp_path / "s/scores.csv").open(newline="") as stream:
        assert "c05" not in {row["image"] for row in csv.DictReader(stream)}


def test_output_that_is_not_finite_is_listed_and_stops_only_a_run_without_any_result(images, tmp_path):
    state = {name: torch.full_like(value, float("nan")) for name, value in trained().state_dict().items()}
    save_model(tmp_path / "broken", state, CONFIG, "# Broken")
    seal(tmp_path / "broken", Model)
    given = {"segmentor": tmp_path / "broken", "distance_quantile": "none", "target_error": "none"}
    gate = write_classifier(tmp_path / "classifier")
    result, reader = infer(images, tmp_path / "o", classifier=gate, **given)
    listed = failures(tmp_path / "o")
    assert set(listed) == {f"c{i:02d}.tif" for i in range(12) if TRUTH[i]}, "the positive ones, which it saw"
    assert set(listed.values()) == {"cannot be predicted: the segmentor's output is not finite"}
    assert set(reader.classes().values()) == {"negative"} and len(reader.classes()) == 6 == result.metrics["failed"]
    with pytest.raises(UserError, match=r"--images: none of 12 images can be predicted; c11.tif: .*not finite"):
        infer(images, tmp_path / "alone", segmentor=tmp_path / "broken")


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    """The share that is read ahead is small here, so that few images fill it."""
    monkeypatch.setattr(image_batches, "_BATCH_BYTES", 2**19)
    monkeypatch.setattr(image_batches, "_AHEAD_BYTES", 2**20)
    gate = write_classifier(tmp_path / "classifier")
    peaks = {}
    for count in (30, 330):
        cuts = {f"i{i:03d}": np.roll(IMAGE, 7 * i, 1)[:256, :256, None] for i in range(count)}  # 128 KiB each
        folder = write_images(tmp_path / f"i{count}", cuts)
        del cuts
        tracemalloc.start()
        infer(folder, tmp_path / f"o{count}", classifier=gate, target_error="none")
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    grown = (peaks[330] - peaks[30]) / 300
    assert grown < 10_000, f"{grown:.0f} bytes for each image of 131072"


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    """Of random weights: what it finds is of no use, but it must arrive."""
    from shared.models.detector import Detector

    torch.manual_seed(0)
    backbone = ResNetArchitecture()
    architecture = DetectorArchitecture.preset("small", backbone, ("large", "small"), queries=20)
    config = DetectorConfig(architecture=architecture, input=ModelInput(channels=1, crop_px=64))
    folder = tmp_path_factory.mktemp("d") / "detector"
    save_model(folder, Detector(config).state_dict(), config, "# Detector")
    seal(folder, Model)
    return folder


def test_boxes_and_masks_are_kept_side_by_side(images, detector, tmp_path):
    from shared.models.box_predictor import BoxPredictor
    from shared.models.detector import Detector
    from shared.models.load import load_model

    scores = {"score_threshold": 0.0}
    segmentor = write_model(tmp_path / "m")
    result, reader = infer(images, tmp_path / "o", detector=detector, segmentor=segmentor, **scores)
    predictor = BoxPredictor.of(load_model(detector, Detector), "cpu", batch_size=16)
    found = reader.annotations()
    assert reader.keys() == sorted(found) == [f"c{i:02d}" for i in range(12)]
    for i, key in enumerate(sorted(found)):
        expected = predictor(CROPS[i]).annotations(("large", "small"))
        assert [box.category for box in found[key]] == [box.category for box in expected]
        assert np.allclose([box.bbox for box in found[key]], [box.bbox for box in expected], atol=0.01)
        assert [box.score for box in found[key]] == pytest.approx([box.score for box in expected], abs=1e-4)
    count = sum(map(len, found.values()))
    assert result.metrics["boxes"] == count > 0 and result.metrics["cells"] > 0
    files = tmp_path / "o/files"
    coco = COCO(str(files / "detections.coco.json"))
    assert len(coco.getAnnIds()) == count and len(json.loads((files / "coco.json").read_text())["annotations"]) > 0
    assert {path.name for path in (files / "overlays").iterdir()} == {f"{key}.png" for key in found}


def test_onnx_files_give_the_same_as_the_weights(images, tmp_path):
    """The gate's outcomes and the masks; auto takes the ONNX files where there is no GPU."""
    from components.export_model.exportable import load_exportable
    from components.export_model.onnx_export import write_onnx

    folders = {"classifier": write_classifier(tmp_path / "c"), "segmentor": write_model(tmp_path / "s")}
    for folder in folders.values():
        write_onnx(load_exportable(folder), folder / "model.onnx")
        seal(folder, Model)
    found = {}
    for runtime in ("pytorch", "onnx", "auto"):
        result, reader = infer(images, tmp_path / runtime, **folders, runtime=runtime, target_error=0.05)
        found[runtime] = reader
        page = result.page.html()
        assert page.count(f"<td>{'pytorch' if runtime == 'pytorch' else 'onnx'}</td>") == 2
    ours, theirs, chosen = (reader.image_classes() for reader in found.values())
    assert list(ours) == list(theirs) and chosen == theirs
    for key, expected in ours.items():
        assert (theirs[key].outcome, theirs[key].name) == (expected.outcome, expected.name)
        assert theirs[key].probabilities == pytest.approx(dict(expected.probabilities), abs=1e-4)
        assert theirs[key].distance == pytest.approx(expected.distance, rel=1e-3)
    assert found["onnx"].keys() == found["pytorch"].keys() != []
    for key in found["onnx"].keys():  # noqa: SIM118, not a dict
        assert (found["onnx"].mask(key) != found["pytorch"].mask(key)).mean() < 1e-3
    with pytest.raises(UserError, match=r"--classifier: --runtime onnx_int8: .*model.int8.onnx: no such file"):
        infer(images, tmp_path / "int8", **folders, runtime="onnx_int8")

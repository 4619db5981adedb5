"""Train detectors on the nuclei of `small_detector_data`: the artifacts, and the stage with short settings."""

from dataclasses import dataclass
from pathlib import Path

from small_detector_data import nuclei_boxes, quarters, write_boxes, write_encoder, write_images

from components.train_detector.component import TrainDetector
from components.train_detector.labelled_images import LabelledImages, labelled_images
from components.train_detector.main import run
from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import Model
from shared.artifacts.manifest import seal
from shared.stage.declaration import Result

QUICK = {"crop": 64, "batch_size": 2, "steps": 2, "valid_every": 1}
VALID = ("part00", "part05", "part10", "part15")


@dataclass(frozen=True)
class Data:
    """Artifacts of the nuclei: 12 images of split train, 4 of split val."""

    root: Path
    images: Path
    truth: Path
    few: Path
    """Boxes of six training images and the held-out ones."""
    encoder: Path
    boxes: dict[str, list[Annotation]]


def write_data(root: Path) -> Data:
    parts = quarters()
    boxes = {key: nuclei_boxes(labels) for key, (_, labels) in parts.items()}
    images = write_images(
        root / "images", {key: image for key, (image, _) in parts.items()}, dict.fromkeys(VALID, "val"), {}
    )
    some = {key: boxes[key] for key in (*VALID, *sorted(set(boxes) - set(VALID))[:6])}
    truth, few = write_boxes(root / "truth", boxes), write_boxes(root / "few", some)
    return Data(root, images, truth, few, write_encoder(root / "encoder"), boxes)


def train(data: Data, folder: Path, **options) -> Result:
    folder.mkdir(parents=True)
    given = {"images": data.images, "truth": data.truth, "encoder": data.encoder, **QUICK, **options}
    result = run(TrainDetector(detector=folder, **given))
    seal(folder, Model, skipped=result.skipped)
    return result


def stage(data: Data, **options) -> TrainDetector:
    given = {"images": data.images, "truth": data.truth, "encoder": data.encoder, "detector": data.root, **options}
    return TrainDetector(**given)


def learned(data: Data, **options) -> LabelledImages:
    made = stage(data, **options)
    return labelled_images(made, ImageReader(made.images))

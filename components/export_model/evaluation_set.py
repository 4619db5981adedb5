"""Read the images that the files are compared on, with their labels, and the images that calibrate INT8."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from components.export_model.component import ExportModel
from components.export_model.exportable import Exportable
from shared.artifacts.annotation import Annotation
from shared.artifacts.coco import instance_annotations
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.imaging.tiling import centre_crop
from shared.system.errors import ArtifactError, UserError

_MAX_SIDE = 1024
"""px; of larger images the centre is compared."""
_MIN_VISIBLE = 0.5
"""Share of a box within that centre from which on the object has to be found."""
_MAX_IMAGES, _MAX_CLASSIFIED = 8, 512


@dataclass(frozen=True)
class MaskTruth:
    """The true label image of an image."""

    labels: np.ndarray
    """(H, W); 0 is background."""
    known: np.ndarray | None
    """(H, W) bool, where the truth is known; None: everywhere."""
    instances: bool
    """Whether instances are told apart."""


Truth = MaskTruth | int | list[Annotation]
"""Of a segmentor, a classifier (position in its classes), a detector."""


@dataclass(frozen=True)
class EvaluationSet:
    """Images to compare on."""

    images: list[np.ndarray]
    """(H, W, C) each."""
    truth: list[Truth]
    """One for each image, or none at all."""
    calibration: list[np.ndarray]
    """(H, W, C) each; images to calibrate INT8 on, others than `images` where there are any."""


def read_evaluation_set(stage: ExportModel, subject: Exportable) -> EvaluationSet:
    """Read the images. Raises UserError if there are none, ArtifactError if the truth is of other images."""
    reader = ImageReader(stage.images)
    labelled, read_truth = _truth(stage.truth, subject, reader)
    wanted = stage.max_images
    if wanted == "auto":
        wanted = _MAX_CLASSIFIED if subject.kind == "classifier" else _MAX_IMAGES
    keys = evenly_spaced(_first_known(reader, labelled) or reader.keys("test") or reader.keys(), wanted)
    if not keys:
        raise UserError("--images: no image to compare on; give a set that is not empty")
    others = sorted(set(reader.keys()) - set(keys)) or keys
    calibration = evenly_spaced(others, stage.calibration_images)
    return EvaluationSet(
        [_centre(reader.read(key)) for key in keys],
        [read_truth(key) for key in keys] if labelled else [],
        [_centre(reader.read(key)) for key in calibration],
    )


def _first_known(reader: ImageReader, labelled: Collection[str]) -> list[str]:
    """Labelled images of the split test, else of val, else of any."""
    for splits in (("test",), ("val",), ()):
        if keys := [key for key in reader.keys(*splits) if key in labelled]:
            return keys
    return []


def _truth(
    folder: Path | None, subject: Exportable, images: ImageReader
) -> tuple[Collection[str], Callable[[str], Truth]]:
    """Keys of the images whose truth tells how good this kind of model is, and what reads it."""
    if folder is None or subject.kind == "encoder":
        return (), _no_truth
    truth = LabelReader(folder)
    if subject.kind == "segmentor":
        _check_keys(truth.entries, images)
        return truth.entries, partial(_mask, truth)
    names = subject.metadata.classes
    if subject.kind == "classifier":
        classes = {key: names.index(name) for key, name in truth.classes().items() if name in names}
        _check_keys(classes, images)
        return classes, classes.__getitem__
    boxes = truth.annotations() or {key: _boxes_of(truth.mask(key)) for key in truth.entries}
    _check_keys(boxes, images)
    if not any(item.category in names for items in boxes.values() for item in items):
        return (), _no_truth
    return boxes, lambda key: _visible(boxes[key], (images.entries[key].height, images.entries[key].width))


def _no_truth(key: str) -> Truth:
    raise KeyError(key)


def _check_keys(labelled: Collection[str], images: ImageReader) -> None:
    for key in labelled:
        if key not in images.entries:
            raise ArtifactError(
                f"--truth: {key!r} has labels, but is no image of {images.folder}; give images and labels of one ingest"
            )


def _centre(image: np.ndarray) -> np.ndarray:
    return centre_crop(image, _MAX_SIDE)


def _mask(truth: LabelReader, key: str) -> MaskTruth:
    known = _centre(truth.conf(key)) > 0 if "conf" in truth.entries[key].members else None
    return MaskTruth(_centre(truth.mask(key)), known, truth.entries[key].kind == "instances")


def _boxes_of(labels: np.ndarray) -> list[Annotation]:
    """Boxes of the instances of a label image (H, W)."""
    rows = instance_annotations(labels, 1)
    return [Annotation("cell", tuple(row["bbox"]), float(row["area"])) for row in rows]


def _visible(boxes: list[Annotation], size: tuple[int, int]) -> list[Annotation]:
    """Boxes within the centre of an image of `size` (H, W); those that are mostly outside do not count."""
    if max(size) <= _MAX_SIDE:
        return boxes
    top, left = (max(0, (length - _MAX_SIDE) // 2) for length in size)
    bottom, right = (min(length, _MAX_SIDE) for length in size)
    found = []
    for item in boxes:
        x, y, width, height = item.bbox
        x0, x1 = (min(max(corner - left, 0), right) for corner in (x, x + width))
        y0, y1 = (min(max(corner - top, 0), bottom) for corner in (y, y + height))
        if x1 > x0 and y1 > y0:
            share = (x1 - x0) * (y1 - y0) / (width * height)
            crowd = item.iscrowd if share >= _MIN_VISIBLE else 1
            found.append(replace(item, bbox=(x0, y0, x1 - x0, y1 - y0), area=item.area * share, iscrowd=crowd))
    return found

"""Images, boxes and an encoder of real cells, for the tests of training a detector."""

from pathlib import Path

import numpy as np
import torch
from real_labels import wheel_nuclei
from scipy.ndimage import find_objects

from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.manifest import seal
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig
from shared.models.files import save_model

SIDE = 128
LARGE_PX = 380
"""px² of the box from which a nucleus is of the class `large`."""


def quarters() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """16 parts of the wheel's image: key -> image (128, 128, 1) and label image (128, 128)."""
    image, labels = wheel_nuclei()
    starts = [(y, x) for y in range(0, 512, SIDE) for x in range(0, 512, SIDE)]
    return {
        f"part{i:02}": (image[y : y + SIDE, x : x + SIDE, None], labels[y : y + SIDE, x : x + SIDE])
        for i, (y, x) in enumerate(starts)
    }


def nuclei_boxes(labels: np.ndarray) -> list[Annotation]:
    """Boxes of the instances of a label image, of two classes, `large` and `small`."""
    found = []
    for spans in filter(None, find_objects(labels.astype(np.int32))):
        (y0, y1), (x0, x1) = ((span.start, span.stop) for span in spans)
        area = float((y1 - y0) * (x1 - x0))
        name = "large" if area >= LARGE_PX else "small"
        found.append(Annotation(name, (float(x0), float(y0), float(x1 - x0), float(y1 - y0)), area))
    return found


def write_images(folder: Path, images: dict[str, np.ndarray], splits: dict[str, str], groups: dict[str, str]) -> Path:
    """An ImageSet; splits and groups by key, where they are not train and none."""
    with ImageWriter(folder) as writer:
        for key in sorted(images):
            split, group = splits.get(key, "train"), groups.get(key, "")
            writer.add(key, images[key], source=f"{key}.tif", split=split, group=group)
    seal(folder, ImageSet)
    return folder


def write_boxes(folder: Path, boxes: dict[str, list[Annotation]], size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """A LabelSet of boxes, origin truth."""
    with LabelWriter(folder, "truth") as writer:
        for key in sorted(boxes):
            writer.annotate(key, size, boxes[key])
    seal(folder, LabelSet)
    return folder


def write_masks(folder: Path, masks: dict[str, np.ndarray], origin: str = "pseudo", **options) -> Path:
    """A LabelSet of label images; options: keyword arguments of `LabelWriter.add` by key, `{name: {key: value}}`."""
    with LabelWriter(folder, origin) as writer:
        for key in sorted(masks):
            writer.add(key, masks[key], "instances", **{name: one.get(key) for name, one in options.items()})
    seal(folder, LabelSet)
    return folder


def write_encoder(folder: Path, channels: int = 1) -> Path:
    """An encoder of random weights."""
    config = EncoderConfig.preset("nano", patch=8, channels=channels, crop=64)
    torch.manual_seed(0)
    save_model(folder, Encoder(config).state_dict(), config, "# Untrained")
    seal(folder, Model)
    return folder

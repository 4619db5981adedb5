"""Which labelled images are scored, and which of their pixels."""

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelReader, learned_labels
from shared.system.errors import ArtifactError


def scorable(truth: LabelReader, images: ImageReader, use_labels: int) -> tuple[list[str], bool, str]:
    """Keys of the labelled images that were not learned from; where there are none, of those that were.

    Also whether they were learned from, and what the page says of them.
    """
    learned = set(learned_labels(truth, set(images.keys("train")), use_labels))
    others = sorted(set(truth.entries) - learned)
    if not others:
        return truth.keys(), True, "The model learned from the labels of these images, so the scores are too high."
    if not learned:
        return others, False, ""
    return others, False, f"{len(learned)} more are left out: the model learned from their labels."


def read_pair(images: ImageReader, truth: LabelReader, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, C) and its true label image (H, W). Raises ArtifactError where they do not belong together."""
    if key not in images.entries:
        raise ArtifactError(
            f"--truth: labels of {key!r}, which is no image of {images.folder}; give images and labels of one ingest"
        )
    image, mask = images.read(key), truth.mask(key)
    if image.shape[:2] != mask.shape:
        raise ArtifactError(f"--truth: the labels of {key!r} are {mask.shape}, the image is {image.shape[:2]}")
    return image, mask


def known_pixels(truth: LabelReader, key: str) -> np.ndarray:
    """(H, W) bool: where the truth is known. Pixels of confidence 0 count on neither side."""
    entry = truth.entries[key]
    if "conf" not in entry.members:
        return np.ones((entry.height, entry.width), bool)
    return truth.conf(key) > 0

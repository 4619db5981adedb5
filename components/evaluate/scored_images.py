"""Choose the labelled images to score, and read them."""

from dataclasses import dataclass

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelReader, learned_labels
from shared.system.errors import ArtifactError


@dataclass(frozen=True)
class ScoredImages:
    """Labelled images to score."""

    keys: list[str]
    """In ascending order."""
    learned_from: bool
    """Whether the model learned from their labels."""
    left_out: int
    """Labelled images that are not scored, because the model learned from their labels."""


def choose_images(truth: LabelReader, images: ImageReader, use_labels: int) -> ScoredImages:
    """Choose the labelled images that the model did not learn from; if there are none, those that it did."""
    learned = set(learned_labels(truth, set(images.keys("train")), use_labels))
    others = sorted(set(truth.entries) - learned)
    return ScoredImages(others, False, len(learned)) if others else ScoredImages(truth.keys(), True, 0)


def read_pair(images: ImageReader, truth: LabelReader, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Read an image (H, W, C) and its true label image (H, W).

    Raises ArtifactError where the truth is of another ImageSet, or of another size.
    """
    if key not in images.entries:
        raise ArtifactError(
            f"--truth: {key!r} has labels, but is no image of {images.folder}; give images and labels of one ingest"
        )
    image, labels = images.read(key), truth.mask(key)
    if image.shape[:2] != labels.shape:
        raise ArtifactError(
            f"--truth: the labels of {key!r} are {labels.shape}, the image is {image.shape[:2]}; "
            "give images and labels of one ingest"
        )
    return image, labels


def known_pixels(truth: LabelReader, key: str) -> np.ndarray | None:
    """(H, W) bool, where the truth is known: where its confidence is not 0. None: everywhere."""
    return truth.conf(key) > 0 if "conf" in truth.entries[key].members else None

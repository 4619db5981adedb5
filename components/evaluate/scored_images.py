"""Choose the labelled images to score, and read them."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import NOTE_FAILED, LabelReader
from shared.data.labelled_images import Split, foreign_label
from shared.system.errors import ArtifactError


@dataclass(frozen=True)
class SplitImages:
    """Images of the split that is scored."""

    keys: list[str]
    """In ascending order; none where the split has no labels."""
    split: Split
    """Never auto."""
    learned_from: bool
    """Whether the model may have learned from labels of them: some are of the split train."""

    def remarks(self) -> list[str]:
        """Sentences on which images these are."""
        texts = [] if self.split == "all" else [f"Images of the split {self.split}."]
        if self.learned_from:
            texts.append("The model may have learned from their labels, so the scores may be too high.")
        return texts


def choose_split(labelled: Collection[str], images: ImageReader, split: Split) -> SplitImages:
    """Choose among labelled images. auto: those of test, else of val, else of train.

    Raises ArtifactError where a labelled image is not among the images.
    """
    for key in labelled:
        if key not in images.entries:
            raise ArtifactError(foreign_label(key, images))
    if split != "auto":
        chosen = images.keys() if split == "all" else images.keys(split)
        keys = [key for key in chosen if key in labelled]
        return SplitImages(keys, split, any(images.entries[key].split == "train" for key in keys))
    tried: tuple[Split, ...] = ("test", "val", "train")
    for name in tried:
        if keys := [key for key in images.keys(name) if key in labelled]:
            return SplitImages(keys, name, name == "train")
    return SplitImages([], "train", False)


@dataclass(frozen=True)
class PredictedImages:
    """Images with predictions, and how many are left out because they have none."""

    keys: list[str]
    failed: int = 0
    """Images that `infer` could not predict."""
    abstained: int = 0
    """Images that the classifier of gated inference abstained from."""

    def remarks(self) -> list[str]:
        """Sentences on the images left out."""
        texts = []
        if self.failed:
            texts.append(f"{_left_out(self.failed)}, because infer could not predict {_them(self.failed)}.")
        if self.abstained:
            texts.append(f"{_left_out(self.abstained)}, because the classifier abstained from {_them(self.abstained)}.")
        return texts


def _left_out(count: int) -> str:
    return "1 more image is left out" if count == 1 else f"{count} more images are left out"


def _them(count: int) -> str:
    return "it" if count == 1 else "them"


def without_failed(keys: list[str], predictions: LabelReader | None) -> PredictedImages:
    """Leave out the images that `infer` failed on; predictions: None where a model predicts instead."""
    failed = set(predictions.info.notes.get(NOTE_FAILED, [])) if predictions is not None else set()
    left = [key for key in keys if key not in failed]
    return PredictedImages(left, failed=len(keys) - len(left))


def without_abstained(images: PredictedImages, predictions: LabelReader, found: Collection[str]) -> PredictedImages:
    """Leave out the images that the classifier abstained from as well, so that no objects were searched.

    found: keys of the images with predictions of the kind that is scored.
    """
    classes = predictions.image_classes()
    left = [key for key in images.keys if key in found or key not in classes or classes[key].outcome != "abstain"]
    return replace(images, keys=left, abstained=len(images.keys) - len(left))


def read_pair(images: ImageReader, truth: LabelReader, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Read an image (H, W, C) and its true label image (H, W).

    Raises ArtifactError where the truth is of another ImageSet, or of another size.
    """
    if key not in images.entries:
        raise ArtifactError(foreign_label(key, images))
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

"""Choose among images with labels: those that the EM loop learns from, and those that a model is scored on."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelReader

Split = Literal["auto", "train", "val", "test", "all"]


def learned_labels(truth: LabelReader, train: Collection[str], use_labels: int) -> list[str]:
    """Return the keys of the images whose labels the loop learns from: the first `use_labels` labelled ones of `train`.

    Every stage that uses labels calls this function, so that images learned from can be told from images scored.
    """
    return [key for key in sorted(truth.entries) if key in train][:use_labels]


@dataclass(frozen=True)
class ScoredImages:
    """Labelled images to score."""

    keys: list[str]
    """In ascending order."""
    learned_from: bool
    """Whether the model learned from their labels."""
    left_out: int
    """Labelled images that are not scored, because the model learned from their labels."""


def choose_images(truth: LabelReader, images: ImageReader, use_labels: int, split: Split = "auto") -> ScoredImages:
    """Choose the label images that the model did not learn from; if there are none, those that it did.

    split: chooses among the images of one split; auto is all.
    """
    learned = set(learned_labels(truth, set(images.keys("train")), use_labels))
    labelled = set(truth.entries) if split in ("auto", "all") else set(truth.entries) & set(images.keys(split))
    others = sorted(labelled - learned)
    return ScoredImages(others, False, len(labelled & learned)) if others else ScoredImages(sorted(labelled), True, 0)


def foreign_label(key: str, images: ImageReader) -> str:
    """Error of a label whose image is not in the set."""
    return f"--truth: {key!r} has labels, but is no image of {images.folder}; give images and labels of one ingest"

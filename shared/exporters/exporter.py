"""Define what an exporter is given and does."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from shared.artifacts.annotation import Annotation, ImageClass
from shared.artifacts.image_set import ImageEntry

Content = Literal["class", "boxes", "instances"]
"""What a prediction may hold of an image."""


@dataclass
class Instances:
    """The instances of an image."""

    mask: np.ndarray
    """(H, W) uint8 {0, 1}, foreground."""
    labels: np.ndarray
    """(H, W) uint16 or uint32, instances."""
    scores: np.ndarray
    """(n,) float in [0, 1], of the instances 1..n."""
    estimated_dice: float | None = None
    """Of `shared.assessment.estimated_dice`; None where there is no instance, or where it is not known."""


@dataclass
class PredictedImage:
    """An image and its prediction, which holds any of the contents."""

    number: int
    """Position in the set, from 1."""
    entry: ImageEntry
    image: np.ndarray
    """(H, W, C)"""
    image_class: ImageClass | None = None
    """Class and outcome; None where no classifier was applied."""
    boxes: list[Annotation] | None = None
    """Boxes with class and score, the highest score first; None where no detector was applied."""
    instances: Instances | None = None
    """None where no segmentor was applied."""


class Exporter(AbstractContextManager, Protocol):
    """Write one format into a folder. Images come in the order of their keys."""

    needs: ClassVar[frozenset[Content]]
    """The format is written if the predictions hold any of these; an image may still lack it."""

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        """folder: an existing folder for the files; entries: all images that may come."""

    def prepare(self, item: PredictedImage) -> Any:
        """Do the work on one image, in any thread: write the image's own files, or return what `append` needs."""

    def append(self, prepared: Any) -> None:
        """Add what `prepare` returned to a file of all images. Called in the images' order, one call at a time."""

"""Define what an exporter is given and does."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shared.artifacts.image_set import ImageEntry


@dataclass
class PredictedImage:
    """An image and its prediction."""

    number: int
    """Position in the set, from 1."""
    entry: ImageEntry
    image: np.ndarray
    """(H, W, C)"""
    mask: np.ndarray
    """(H, W) uint8 {0, 1}, foreground."""
    labels: np.ndarray
    """(H, W) uint16 or uint32, instances."""
    scores: np.ndarray
    """(n,) float in [0, 1], of the instances 1..n."""


class Exporter(AbstractContextManager, Protocol):
    """Write one format into a folder. Images come in the order of their keys."""

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        """folder: an existing folder for the files; entries: all images that will come."""

    def prepare(self, item: PredictedImage) -> Any:
        """Do the work on one image, in any thread: write the image's own files, or return what `append` needs."""

    def append(self, prepared: Any) -> None:
        """Add what `prepare` returned to a file of all images. Called in the images' order, one call at a time."""

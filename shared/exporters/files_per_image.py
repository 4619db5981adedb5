"""Base class of the exporters that write one file for each image."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import imagecodecs
import numpy as np

from shared.artifacts.image_set import ImageEntry
from shared.exporters.exporter import PredictedImage


class FilesPerImage:
    """Write `SUBFOLDER/KEY.EXTENSION` for each image."""

    subfolder: ClassVar[str]
    extension: ClassVar[str]

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        self.folder = folder / self.subfolder
        self.folder.mkdir()

    def path(self, item: PredictedImage) -> Path:
        """Path of an image's file."""
        return self.folder / f"{item.entry.key}.{self.extension}"

    def append(self, prepared: None) -> None:
        """Do nothing: no file is common to all images."""

    def __enter__(self) -> "FilesPerImage":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write (H, W) or (H, W, 3) uint8 as PNG."""
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(picture), 1))

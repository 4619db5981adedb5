"""Base of the exporters that write a file for each image."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import imagecodecs
import numpy as np

from shared.artifacts.image_set import ImageEntry
from shared.exporters import PredictedImage


class FilesPerImage:
    """Writes `SUBFOLDER/KEY.ENDING` for each image."""

    subfolder: ClassVar[str]
    ending: ClassVar[str]

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        self.folder = folder / self.subfolder
        self.folder.mkdir()

    def path(self, item: PredictedImage) -> Path:
        """File of an image."""
        return self.folder / f"{item.entry.key}.{self.ending}"

    def append(self, prepared: None) -> None:
        """Nothing: there is no file of all images."""

    def __enter__(self) -> "FilesPerImage":
        return self

    def __exit__(self, *_: object) -> None:
        return None


def write_png(path: Path, picture: np.ndarray) -> None:
    """PNG of (H, W) or (H, W, 3) uint8."""
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(picture), 1))

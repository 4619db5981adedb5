"""Base classes of the exporters: one file for each image, one CSV file of all images."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import imagecodecs
import numpy as np

from shared.artifacts.image_set import ImageEntry
from shared.exporters.exporter import Content, PredictedImage
from shared.system.names import cells


class FilesPerImage:
    """Write `SUBFOLDER/KEY.EXTENSION` for each image."""

    needs: ClassVar[frozenset[Content]] = frozenset(["instances"])
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


class CsvTable:
    """Write rows to `FILE` as they come. Columns that a row lacks are empty."""

    needs: ClassVar[frozenset[Content]]
    file: ClassVar[str]

    def __init__(self, folder: Path, columns: Sequence[str]) -> None:
        self._stream = (folder / self.file).open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._stream, columns, restval="", lineterminator="\n")
        self._writer.writeheader()

    def append(self, prepared: list[dict[str, Any]]) -> None:
        """Write the rows of one image."""
        self._writer.writerows(map(cells, prepared))

    def __enter__(self) -> "CsvTable":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

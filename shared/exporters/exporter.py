"""Define what an exporter is given and does, and open exporters by the names of their formats."""

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shared.artifacts.image_set import ImageEntry
from shared.exporters import Format


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


def open_exporters(formats: Sequence[Format], folder: Path, entries: Sequence[ImageEntry]) -> list[Exporter]:
    """Open an exporter for each format; see `Exporter` for the arguments."""
    return [_exporter_class(name)(folder, entries) for name in formats]


def _exporter_class(name: Format) -> type[Exporter]:
    module = importlib.import_module(f"shared.exporters.{name}")
    found: type[Exporter] = getattr(module, "".join(word.title() for word in name.split("_")))
    return found

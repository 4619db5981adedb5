"""Write predictions as the files that people and other programs open, one format in each module.

An exporter is a class with the methods of `Exporter`. A new one is a module with such a class, and an entry in
`EXPORTERS`; the stage `infer` then takes its name in `formats`.
"""

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shared.artifacts.image_set import ImageEntry


@dataclass
class PredictedImage:
    """One image and what was predicted of it."""

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
    """(n,) float, score of the instances 1..n in [0, 1]."""


class Exporter(AbstractContextManager, Protocol):
    """Writes one format into a folder. Images come in the order of their keys."""

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        """folder: for the files, existing; entries: all images that will come."""

    def prepare(self, item: PredictedImage) -> Any:
        """The work on one image, in any thread: write the image's own files, or return what `append` needs."""

    def append(self, prepared: Any) -> None:
        """Add what `prepare` returned to a file of all images; called in the images' order, one at a time."""


EXPORTERS = {
    "label_tiff": "LabelTiff",
    "foreground_png": "ForegroundPng",
    "overlay_png": "OverlayPng",
    "cells_csv": "CellsCsv",
    "coco_json": "CocoJson",
}
"""Format, which is also the module's name -> the exporter's class."""


def open_exporters(formats: Sequence[str], folder: Path, entries: Sequence[ImageEntry]) -> list[Exporter]:
    """An exporter for each format."""
    modules = [importlib.import_module(f"shared.exporters.{name}") for name in formats]
    return [getattr(module, EXPORTERS[name])(folder, entries) for name, module in zip(formats, modules, strict=True)]

"""Open exporters by the names of their formats."""

from collections.abc import Sequence
from pathlib import Path

from shared.artifacts.image_set import ImageEntry
from shared.exporters import Format
from shared.exporters.cells_csv import CellsCsv
from shared.exporters.coco_json import CocoJson
from shared.exporters.exporter import Exporter
from shared.exporters.foreground_png import ForegroundPng
from shared.exporters.label_tiff import LabelTiff
from shared.exporters.overlay_png import OverlayPng

EXPORTERS: dict[Format, type[Exporter]] = {
    "label_tiff": LabelTiff,
    "foreground_png": ForegroundPng,
    "overlay_png": OverlayPng,
    "cells_csv": CellsCsv,
    "coco_json": CocoJson,
}


def open_exporters(formats: Sequence[Format], folder: Path, entries: Sequence[ImageEntry]) -> list[Exporter]:
    """Open an exporter for each format; see `Exporter` for the arguments."""
    return [EXPORTERS[name](folder, entries) for name in formats]

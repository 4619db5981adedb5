"""Open exporters by the names of their formats."""

from collections.abc import Collection, Sequence
from pathlib import Path

from shared.artifacts.image_set import ImageEntry
from shared.exporters import Format
from shared.exporters.cells_csv import CellsCsv
from shared.exporters.classes_csv import ClassesCsv
from shared.exporters.coco_json import CocoJson
from shared.exporters.detections_coco_json import DetectionsCocoJson
from shared.exporters.detections_csv import DetectionsCsv
from shared.exporters.exporter import Content, Exporter
from shared.exporters.foreground_png import ForegroundPng
from shared.exporters.label_tiff import LabelTiff
from shared.exporters.overlay_png import OverlayPng
from shared.exporters.summary_csv import SummaryCsv

EXPORTERS: dict[Format, type[Exporter]] = {
    "summary_csv": SummaryCsv,
    "classes_csv": ClassesCsv,
    "label_tiff": LabelTiff,
    "foreground_png": ForegroundPng,
    "overlay_png": OverlayPng,
    "cells_csv": CellsCsv,
    "coco_json": CocoJson,
    "detections_csv": DetectionsCsv,
    "detections_coco_json": DetectionsCocoJson,
}


def open_exporters(
    formats: Sequence[Format], contents: Collection[Content], folder: Path, entries: Sequence[ImageEntry]
) -> list[Exporter]:
    """Open an exporter for each format that the contents of the predictions allow; see `Exporter` for the rest."""
    return [EXPORTERS[name](folder, entries) for name in formats if EXPORTERS[name].needs & set(contents)]

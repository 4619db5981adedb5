"""Write the page of `export_model`."""

from collections.abc import Sequence

import numpy as np

from components.export_model.exported_files import WEIGHTS, ExportedFile, ModelExport
from components.export_model.predictions import Predictions
from shared.imaging.overlays import outline, outline_boxes, to_rgb8
from shared.reporting.page import Page

_PANELS = 3
"""Images that are shown."""


def make_page(export: ModelExport, files: Sequence[ExportedFile], remark: str) -> Page:
    """Show the comparison of each file with the weights, their speed, and what both find.

    remark: what became of the files.
    """
    page = Page("export_model")
    page.text(remark)
    _compare(page, export, files)
    _speed(page, export)
    _attempts(page, files)
    metadata = export.subject.metadata
    page.text(f"Inside the graph: {', '.join(metadata.inside)}. Left to the program: {', '.join(metadata.outside)}.")
    for i in range(min(_PANELS, len(export.images.images))):
        panels = [(WEIGHTS, export.weights), *((file.name, file.predictions) for file in files)]
        rgb = to_rgb8(export.images.images[i])
        drawn = [(_drawn(export, rgb, found, i), name) for name, found in panels]
        shown = [(picture, name) for picture, name in drawn if picture is not None]
        if shown:
            page.images([(rgb, "input"), *shown])
    return page


def _compare(page: Page, export: ModelExport, files: Sequence[ExportedFile]) -> None:
    first = files[0].compared
    labels = "the truth" if first.against == "truth" else "what the weights find"
    page.heading("Agreement")
    page.text(f"Compared on {len(export.images.images)} images. Metrics are against {labels}.")
    names = list(first.metrics)
    rows: list[list[object]] = [[WEIGHTS, "float32", "", *(first.reference.get(name, "") for name in names), ""]]
    for file in files:
        compared = file.compared
        values = [compared.metrics.get(name, "") for name in names]
        verdict = "accepted" if file.accepted else f"deleted: {file.rejection}"
        rows.append([file.name, file.precision, compared.max_difference, *values, verdict])
    page.table(["", "precision", "largest difference", *names, ""], rows)


def _speed(page: Page, export: ModelExport) -> None:
    if not export.timings:
        return
    shape = " x ".join(str(length) for length in export.timed_tile.shape[1:])
    page.heading("Speed")
    page.text(f"Time of a batch of tiles of {shape} on {export.device}, after a warm-up; the networks take turns.")
    header = ["", "tiles in a batch", "median, ms", "95th percentile, ms", "tiles per s", "runs"]
    rows = [
        [name, timing.batch, timing.median_ms, timing.p95_ms, timing.per_second, timing.runs]
        for name, timings in export.timings.items()
        for timing in timings
    ]
    page.table(header, rows)


def _attempts(page: Page, files: Sequence[ExportedFile]) -> None:
    rows = [[file.name, attempt] for file in files for attempt in file.attempts]
    if rows:
        page.heading("Refused before")
        page.table(["", ""], rows)


def _drawn(export: ModelExport, rgb: np.ndarray, found: Predictions, i: int) -> np.ndarray | None:
    """What was found in image i, drawn on it; None where there is nothing to draw."""
    if found.labels:
        return outline(rgb, found.labels[i])
    if found.detections:
        metadata = export.subject.metadata
        shown = found.detections[i].above(metadata.postprocessing["score_threshold"])
        return outline_boxes(rgb, [item.bbox for item in shown.annotations(metadata.classes)], width=2)
    return None

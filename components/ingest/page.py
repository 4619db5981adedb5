"""Build the page of `ingest`: images, labels, rejects with their reasons, and thumbnails."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from shared.artifacts.annotation import BoundingBox
from shared.artifacts.image_set import ImageEntry, ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.imaging.overlays import TRUTH_COLOUR, outline, outline_boxes, to_rgb8
from shared.readers.ingestion import REJECTS_FILE, IngestSummary
from shared.reporting.page import Page

MAX_THUMBNAILS = 12
MAX_TABLE_ROWS = 200
"""Rows of a table on the page; the artifact has all."""
THUMBNAIL_SIDE = 640
"""px of a thumbnail's longer side."""


def make_page(source: str, summary: IngestSummary, images: Path, labels: Path) -> Page:
    """Report counts, layout, rejects, sizes, and thumbnails with their labels.

    images, labels: folders with the payloads that were just written.
    """
    page, truth = Page("ingest"), LabelReader(labels, sealed=False)
    page.text(
        f"{source}: {len(summary.images)} images, {summary.labelled_images} with labels; "
        f"{summary.rejected_images} images rejected."
    )
    page.text(f"Layout: {summary.layout}.")
    page.text(f"Labels: {truth.contents()}.")
    if summary.ignored_files:
        counts = summary.ignored_files.items()
        others = ", ".join(f"{number} {f'.{suffix}' if suffix else 'without suffix'}" for suffix, number in counts)
        page.text(f"Ignored files, neither images nor labels: {others}.")
    if summary.class_counts:
        page.table(["class", "images"], sorted(summary.class_counts.items()))
    _add_list(page, "Rejects", ["file", "reason"], summary.rejects, f"{REJECTS_FILE} of the ImageSet lists all")
    _add_list(page, "Remarks", ["file", "remark"], summary.remarks, "they are not listed")
    _add_sizes(page, summary)
    page.heading("Images")
    reader = ImageReader(images, sealed=False)
    boxes, classes = truth.boxes(), truth.classes()
    chosen = evenly_spaced(summary.images, MAX_THUMBNAILS)
    shown = [_thumbnail(entry, reader, truth, boxes.get(entry.key)) for entry in chosen]
    named = [f"; class {classes[entry.key]}" if entry.key in classes else "" for entry in chosen]
    page.images([(rgb, text + name) for (rgb, text), name in zip(shown, named, strict=True)], width=260)
    return page


def _add_list(page: Page, title: str, header: list[str], rows: list[tuple[str, str]], rest: str) -> None:
    if not rows:
        return
    page.heading(f"{title} ({len(rows)})")
    page.table(header, rows[:MAX_TABLE_ROWS])
    if len(rows) > MAX_TABLE_ROWS:
        page.text(f"{len(rows) - MAX_TABLE_ROWS} more; {rest}.")


def _add_sizes(page: Page, summary: IngestSummary) -> None:
    """Report sizes, types, splits, groups and the number of labelled objects."""
    page.heading("Sizes")
    kinds = Counter((e.width, e.height, e.channels, e.dtype, e.um_per_px or "unknown") for e in summary.images)
    rows = [[*kind, number] for kind, number in kinds.most_common(MAX_TABLE_ROWS)]
    page.table(["width, px", "height, px", "channels", "type", "um per px", "images"], rows)
    splits = Counter(entry.split for entry in summary.images)
    groups = len({entry.group for entry in summary.images})
    named = ", ".join(f"{name} {number}" for name, number in sorted(splits.items()))
    page.text(f"Splits: {named}. Groups (plates, wells, movies): {groups}.")
    if summary.instance_count or summary.annotation_count:
        page.text(
            f"Instances in label images: {summary.instance_count}. Annotated objects: {summary.annotation_count}."
        )


def _thumbnail(
    entry: ImageEntry, images: ImageReader, truth: LabelReader, boxes: list[BoundingBox] | None
) -> tuple[np.ndarray, str]:
    """Return an image (H, W, 3) uint8 with its labels in green, and the caption."""
    image = images.read(entry.key)
    scale = min(1.0, THUMBNAIL_SIDE / max(image.shape[:2]))
    step = max(1, int(1 / scale / 2))  # subsample huge images before the area average
    size = (max(1, round(entry.width * scale)), max(1, round(entry.height * scale)))
    rgb = cv2.resize(to_rgb8(image[::step, ::step]), size, interpolation=cv2.INTER_AREA)
    caption = f"{entry.source}: {entry.width} x {entry.height}, {entry.channels} x {entry.dtype}"
    if entry.key in truth.entries:
        labels = truth.mask(entry.key)
        kind = truth.entries[entry.key].kind
        caption += f"; {labels.max(initial=0)} objects" if kind == "instances" else "; foreground mask"
        return _with_outlines(rgb, labels), caption
    if boxes is not None:
        return outline_boxes(rgb, boxes, TRUTH_COLOUR, scale=scale), f"{caption}; {len(boxes)} boxes"
    return rgb, caption


def _with_outlines(rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Outline the objects of a label image (H, W) on a thumbnail of another size."""
    rows = np.arange(rgb.shape[0]) * labels.shape[0] // rgb.shape[0]
    columns = np.arange(rgb.shape[1]) * labels.shape[1] // rgb.shape[1]
    return outline(rgb, labels[rows[:, None], columns], TRUTH_COLOUR)

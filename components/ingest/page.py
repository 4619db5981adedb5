"""The page of `ingest`: what was found, what was rejected and why, and some of the pictures."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from shared.artifacts.image_set import decode
from shared.artifacts.label_set import COCO, LabelEntry, decode_labels
from shared.artifacts.shards import read_member
from shared.imaging.overlays import TRUTH, outline, to_rgb8
from shared.readers.ingestion import REJECTS, Summary
from shared.reporting.page import Page

THUMBNAILS = 12
LISTED = 200
"""Rows of a table; the artifact has all."""
SIDE = 640
"""px of a picture's longer side."""


def make_page(source: str, summary: Summary, images: Path, labels: Path) -> Page:
    """Counts, layout, rejects, sizes, and up to 12 pictures with the outlines of their labels."""
    page = Page("ingest")
    counts = f"{len(summary.images)} images, {len(summary.labelled)} of them with labels"
    page.text(f"{source}: {counts}; {summary.rejected_images} images rejected.")
    page.text(f"Layout: {summary.layout}.")
    if summary.ignored:
        others = ", ".join(
            f"{number} {f'.{end}' if end else 'without ending'}" for end, number in summary.ignored.items()
        )
        page.text(f"Neither images nor labels, and passed over: {others}.")
    if summary.classes:
        page.table(["class", "images"], sorted(summary.classes.items()))
    _listed(page, "Rejects", ["file", "reason"], summary.rejects, f"all are in the ImageSet's {REJECTS}")
    _listed(page, "Remarks", ["file", "remark"], summary.remarks, "the log has the rest")
    page.heading("Sizes")
    kinds = Counter((e.width, e.height, e.channels, e.dtype, e.um_per_px or "unknown") for e in summary.images)
    rows = [[*kind, number] for kind, number in kinds.most_common(LISTED)]
    page.table(["width, px", "height, px", "channels", "type", "um per px", "images"], rows)
    _splits(page, summary)
    page.heading("Images")
    page.images(_thumbnails(summary, images, labels), width=260)
    return page


def _listed(page: Page, title: str, header: list[str], rows: list[tuple[str, str]], rest: str) -> None:
    if not rows:
        return
    page.heading(f"{title} ({len(rows)})")
    page.table(header, rows[:LISTED])
    if len(rows) > LISTED:
        page.text(f"and {len(rows) - LISTED} more; {rest}.")


def _splits(page: Page, summary: Summary) -> None:
    splits = Counter(entry.split for entry in summary.images)
    groups = len({entry.group for entry in summary.images})
    named = ", ".join(f"{name} {number}" for name, number in sorted(splits.items()))
    page.text(f"Splits: {named}. Groups (plates, wells, movies): {groups}.")
    if summary.instances or summary.boxes:
        page.text(f"Objects drawn: {summary.instances}. Boxes and outlines ({COCO}): {summary.boxes}.")


def _thumbnails(summary: Summary, images: Path, labels: Path) -> list[tuple[np.ndarray, str]]:
    """Pictures evenly over the keys, label outlines in green."""
    drawn = {entry.key: entry for entry in summary.labels}
    boxes = _boxes(labels)
    chosen = np.unique(np.linspace(0, len(summary.images) - 1, THUMBNAILS).round().astype(int))
    pictures = []
    for entry in (summary.images[i] for i in chosen):
        image = decode(read_member(images, entry.member))
        scale = min(1.0, SIDE / max(image.shape[:2]))
        step = max(1, int(1 / scale / 2))  # thin huge images out before they are averaged down
        size = (max(1, round(entry.width * scale)), max(1, round(entry.height * scale)))
        rgb = cv2.resize(to_rgb8(image[::step, ::step]), size, interpolation=cv2.INTER_AREA)
        caption = f"{entry.source}: {entry.width} x {entry.height}, {entry.channels} x {entry.dtype}"
        if entry.key in drawn:
            rgb, number = _outlined(rgb, drawn[entry.key], labels)
            caption += f"; {number} objects" if drawn[entry.key].kind == "instances" else "; foreground mask"
        elif entry.key in boxes:
            for x, y, w, h in boxes[entry.key]:
                corners = [round(value * scale) for value in (x, y, x + w, y + h)]
                cv2.rectangle(rgb, (corners[0], corners[1]), (corners[2] - 1, corners[3] - 1), TRUTH)
            caption += f"; {len(boxes[entry.key])} boxes"
        pictures.append((rgb, caption))
    return pictures


def _boxes(labels: Path) -> dict[str, list[list[float]]]:
    """Key -> boxes (x, y, width, height; px), of the images with annotations."""
    if not (labels / COCO).is_file():
        return {}
    coco = json.loads((labels / COCO).read_text())
    keys = {image["id"]: image["file_name"] for image in coco["images"]}
    found: dict[str, list[list[float]]] = {key: [] for key in keys.values()}
    for row in coco["annotations"]:
        found[keys[row["image_id"]]].append(row["bbox"])
    return found


def _outlined(rgb: np.ndarray, entry: LabelEntry, labels: Path) -> tuple[np.ndarray, int]:
    """The picture with outlines, and the number of objects."""
    mask = decode_labels(read_member(labels, entry.members["mask"]))
    rows = np.arange(rgb.shape[0]) * mask.shape[0] // rgb.shape[0]
    columns = np.arange(rgb.shape[1]) * mask.shape[1] // rgb.shape[1]
    return outline(rgb, mask[rows[:, None], columns], TRUTH), int(mask.max(initial=0))

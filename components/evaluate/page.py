"""The page of `evaluate`."""

from typing import Any

from components.evaluate.extremes import Extremes
from components.evaluate.score_files import score_of
from shared.metrics.pixel_confusion import Pixels
from shared.metrics.tally import NAMES, Tally
from shared.reporting.page import Page

ROWS = 60
"""Images that the table lists."""


def make_page(
    metrics: dict[str, float],
    total: Tally,
    pixels: Pixels,
    rows: list[dict[str, Any]],
    extremes: Extremes,
    remark: str,
) -> Page:
    """Overall metrics, the best and worst images, and a line for each image; remark: which images these are."""
    page = Page("evaluate")
    of = f"{total.true} true and {total.predicted} predicted objects" if total.instance_images else "foreground only"
    page.text(f"{total.images} labelled images, {of}. {remark}".rstrip())
    names = [name for name in NAMES if name in metrics]
    page.table(names, [[metrics[name] for name in names]])
    page.text(
        "Counts are pooled over the images; aji is the mean over images, seg over true objects. "
        "f1, precision, recall and pq are at IoU 0.5; map is the mean of ap over IoU 0.5 to 0.9."
    )
    page.heading("Pixels")
    header = ["", "predicted background", "predicted cell"]
    page.table(header, [[f"true {label}", *row] for label, row in pixels.rows()])
    page.text("Pixels of all images together, without those whose truth is not known.")
    for title, panels in (("Worst", extremes.worst()), ("Best", extremes.best())):
        if panels:
            page.heading(f"{title}: input, truth (green), prediction (yellow)")
            page.images([(picture, f"{source}: {score:.3f}") for score, source, picture in panels], width=640)
    _images(page, names, rows)
    return page


def _images(page: Page, names: list[str], rows: list[dict[str, Any]]) -> None:
    page.heading("Images")
    ranked = sorted(rows, key=lambda row: (score_of(row), row["image"]))[:ROWS]
    header = ["source", *names]
    page.table(header, [[row.get(name, "") for name in header] for row in ranked])
    if len(rows) > len(ranked):
        page.text(f"The {len(ranked)} worst of {len(rows)}; scores.csv lists all.")

"""Show the scores of label images on the page of `evaluate`."""

from typing import Any

from components.evaluate.ranked_panels import RankedPanels
from components.evaluate.score_files import ranking_score
from shared.metrics.tally import NAMES, Tally
from shared.reporting.page import Page

_ROWS = 60
"""Images that the table lists."""


def show_masks(
    page: Page, total: Tally, rows: list[dict[str, Any]], panels: RankedPanels, remark: str, level: int
) -> None:
    """Show the overall metrics, the confusion matrix, the worst and best images, and a line for each image.

    total: all images; rows: lines of `scores.csv`; remark: which images these are; level: of the headings.
    """
    objects = f"{total.true} true and {total.predicted} predicted objects"
    page.text(f"{total.images} labelled images, {objects if total.instance_images else 'foreground only'}. {remark}")
    metrics = total.metrics()
    names = [name for name in NAMES if name in metrics]
    page.table(names, [[metrics[name] for name in names]])
    page.text(
        "Counts are pooled over the images; aji is the mean over images, seg over true objects. "
        "f1, precision, recall and pq are at IoU 0.5; map is the mean of ap over IoU 0.5 to 0.9."
    )
    page.heading("Pixels", level)
    header = ["", "predicted background", "predicted cell"]
    page.table(header, [["true background", *total.confusion[0]], ["true cell", *total.confusion[1]]])
    page.text("Pixels of all images together. Pixels whose truth is not known are not counted.")
    for title, shown in (("Worst", panels.worst()), ("Best", panels.best())):
        if shown:
            page.heading(f"{title}: input, truth (green), prediction (yellow)", level)
            page.images([(picture, f"{source}: {score:.3f}") for score, source, picture in shown], width=640)
    _images(page, names, rows, level)


def _images(page: Page, names: list[str], rows: list[dict[str, Any]], level: int) -> None:
    page.heading("Images", level)
    ranked = sorted(rows, key=lambda row: (ranking_score(row), row["image"]))[:_ROWS]
    header = ["source", *names]
    page.table(header, [[row.get(name, "") for name in header] for row in ranked])
    if len(rows) > len(ranked):
        page.text(f"The {len(ranked)} worst of {len(rows)} images; scores.csv lists all.")

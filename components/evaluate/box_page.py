"""Show the scores of boxes on the page of `evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from components.evaluate.box_truth import BoxSet
from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.imaging.overlays import PREDICTION_COLOUR, TRUTH_COLOUR, outline_boxes, side_by_side, to_rgb8
from shared.metrics.boxes import ALL, NAMES, PrecisionRecall, best_threshold
from shared.metrics.classification import Classification
from shared.reporting.page import Page

_SHOWN = 3
"""Images shown at either end."""
_SIDE = 640
"""px; larger images are scaled down to it."""
_WIDTH = 960
"""px of a pair of images on the page."""
_ROWS = 60
"""Images that the table lists."""
_MAX_POINTS = 200
"""Points of a curve that are drawn."""
_MAX_CURVES = 8


@dataclass(frozen=True)
class BoxResults:
    """What is known of the boxes of the scored images."""

    truth: BoxSet
    kept: BoxSet
    """Predictions from the threshold on."""
    metrics: dict[str, float]
    """Names begin with `box_`."""
    curves: dict[str, PrecisionRecall]
    confusion: Classification
    rows: list[dict[str, Any]]
    """A line for each image."""
    threshold: float
    remark: str


def show_boxes(page: Page, results: BoxResults, images: ImageReader) -> None:
    """Show average precision, curves, confusion, and the worst and best images."""
    true, found = (sum(row[name] for row in results.rows) for name in ("true_boxes", "found_boxes"))
    page.text(f"{len(results.rows)} images, {true} true and {found} predicted boxes. {results.remark}")
    overall = [name for name in NAMES if f"box_{name}" in results.metrics]
    page.table(overall, [[results.metrics[f"box_{name}"] for name in overall]])
    page.text(
        "COCO's average precision: ap is the mean over classes and over IoU 0.5 to 0.95, ap50 and ap75 are at one IoU; "
        "small, medium and large objects are below 32² px², up to 96² px² and above. ar is the recall. They count "
        "boxes of all scores. "
        f"All else in this section is at IoU 0.5 and counts {_counted(results.threshold)}."
    )
    _by_class(page, results)
    _confusion(page, results.confusion)
    ranked = sorted(results.rows, key=lambda row: (row["box_f1"], row["image"]))
    worst = ranked[: min(_SHOWN, (len(ranked) + 1) // 2)]
    best = ranked[len(worst) :][::-1][:_SHOWN]
    for title, shown in (("Worst", worst), ("Best", best)):
        if shown:
            page.heading(f"{title}: truth (green), prediction (yellow)", 3)
            page.images([_panel(images, results, row) for row in shown], width=_WIDTH)
    _images(page, ranked)


def _counted(threshold: float) -> str:
    return f"boxes whose score is {threshold:.3g} or more" if threshold else "all boxes that were given"


def _by_class(page: Page, results: BoxResults) -> None:
    page.heading("Average precision and best threshold by class", 3)
    rows = []
    for name, curve in results.curves.items():
        threshold, f1 = best_threshold(curve)
        suffix = "" if name == ALL else f"_{name}"
        ap, ap50 = (results.metrics.get(f"box_{metric}{suffix}", "") for metric in ("ap", "ap50"))
        rows.append([name, curve.objects, ap, ap50, f1, threshold])
    page.table(["class", "true boxes", "ap", "ap50", "best F1", "at score"], rows)
    lines = {name: _points(curve) for name, curve in list(results.curves.items())[:_MAX_CURVES]}
    page.plot("Precision and recall at IoU 0.5", lines, x="recall", y="precision")


def _points(curve: PrecisionRecall) -> list[tuple[float, float]]:
    points = list(zip(curve.recall.tolist(), curve.precision.tolist(), strict=True))
    return evenly_spaced(points, _MAX_POINTS)


def _confusion(page: Page, confusion: Classification) -> None:
    page.heading("Classes of boxes", 3)
    header = ["", *(f"predicted {name}" for name in confusion.labels)]
    counts = zip(confusion.labels, confusion.confusion, strict=True)
    page.table(header, [[f"true {name}", *(int(number) for number in row)] for name, row in counts])
    page.text("Objects by the class of the box that matches them. Last row: boxes that match no object.")


def _images(page: Page, ranked: list[dict[str, Any]]) -> None:
    page.heading("Images", 3)
    names = ["source", "true_boxes", "found_boxes", "box_f1", "box_precision", "box_recall"]
    page.table(names, [[row[name] for name in names] for row in ranked[:_ROWS]])
    if len(ranked) > _ROWS:
        page.text(f"The {_ROWS} worst of {len(ranked)} images; scores.csv lists all.")


def _panel(images: ImageReader, results: BoxResults, row: dict[str, Any]) -> tuple[np.ndarray, str]:
    key = row["image"]
    picture = draw_boxes(images.read(key), results.truth[key], results.kept.get(key, []))
    return picture, f"{row['source']}: F1 {row['box_f1']:.3f}"


def draw_boxes(image: np.ndarray, truth: Sequence[Annotation], found: Sequence[Annotation]) -> np.ndarray:
    """Draw the truth and the prediction on the image (H, W, C), side by side: (h, w, 3) uint8."""
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    rgb = cv2.resize(to_rgb8(image), size, interpolation=cv2.INTER_AREA)
    named = len({item.category for item in (*truth, *found)}) > 1
    sides = []
    for items, colour in ((truth, TRUTH_COLOUR), (found, PREDICTION_COLOUR)):
        drawn = outline_boxes(rgb, [item.bbox for item in items], colour, width=2, scale=scale)
        sides.append(_with_names(drawn, items, colour, scale) if named else drawn)
    return side_by_side(sides)


def _with_names(rgb: np.ndarray, items: Sequence[Annotation], colour: tuple[int, int, int], scale: float) -> np.ndarray:
    """Write the class into the upper left corner of every box, (h, w, 3) uint8."""
    drawn = np.ascontiguousarray(rgb)
    for item in items:
        at = round(item.bbox[0] * scale) + 3, round(item.bbox[1] * scale) + 14
        cv2.putText(drawn, item.category, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 2, cv2.LINE_AA)
        cv2.putText(drawn, item.category, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return drawn

"""The page of `train_detector`."""

from collections.abc import Sequence

import cv2
import numpy as np

from components.train_detector.labelled_images import LabelledImages
from components.train_detector.training_record import TrainingRecord
from components.train_detector.validation import Predictions
from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.imaging.overlays import PREDICTION_COLOUR, TRUTH_COLOUR, outline_boxes, side_by_side, to_rgb8
from shared.metrics.boxes import ALL, PrecisionRecall, best_threshold, precision_recall
from shared.reporting.page import Page
from shared.training.history import History, plot_points

SHOWN = 3
"""Images of each kind."""
SIDE = 420
"""px; larger images are shown at this length of the longer side."""
MAX_POINTS = 200
"""Points of a precision-recall curve."""
MAX_CURVES = 6
"""Classes whose curves are drawn."""


def make_page(
    record: TrainingRecord, history: History, labelled: LabelledImages, predictions: Predictions, reader: ImageReader
) -> Page:
    """Page of the training, of precision and recall, of the classes, and of some of the images that are scored."""
    page = Page("train_detector")
    _scores(page, labelled, predictions)
    _training(page, record, history)
    for title, keys in _chosen(predictions).items():
        if keys:
            page.heading(f"{title}: image, truth (green), prediction (yellow)")
            page.images([(_panel(reader.read(key), predictions, key), key) for key in keys], width=3 * SIDE)
    return page


def _scores(page: Page, labelled: LabelledImages, predictions: Predictions) -> None:
    threshold, f1 = predictions.threshold
    page.text(
        f"{len(labelled.train)} training images, {_scored(labelled)}, with {labelled.origin}. F1 is highest, {f1:.3f}, "
        f"at score {threshold:.3f}, which the model stores. AP counts boxes of all scores."
    )
    learned, scored = labelled.counts(labelled.train), labelled.counts(labelled.valid)
    rows = []
    for name in (ALL, *labelled.classes):
        suffix = "" if name == ALL else f"_{name}"
        numbers = [predictions.metrics.get(f"{metric}{suffix}", "") for metric in ("ap", "ap50")]
        curve = predictions.curves.get(name)
        at = list(best_threshold(curve)) if curve else ["", ""]
        counts = [one.total() if name == ALL else one[name] for one in (learned, scored)]
        rows.append([name, *counts, *numbers, *reversed(at)])
    page.table(["class", "training boxes", "scored boxes", "AP", "AP50", "best F1", "at score"], rows)
    shown = {name: predictions.curves[name] for name in list(predictions.curves)[:MAX_CURVES]}
    lines = {name: _points(curve) for name, curve in shown.items()}
    if ALL in shown:
        lines[f"threshold {threshold:.2f}"] = [_point_at(shown[ALL], threshold)]
    page.plot("precision and recall at IoU 0.5", lines, x="recall", y="precision")


def _scored(labelled: LabelledImages) -> str:
    if labelled.held_out:
        return f"{len(labelled.valid)} held-out images"
    return "which are scored as well, so the scores are too high"


def _training(page: Page, record: TrainingRecord, history: History) -> None:
    page.heading("Training")
    page.plot("loss", {"total": plot_points(history)}, x="step", y="loss")
    page.plot("parts of the loss", {name: plot_points(row) for name, row in record.parts.items()}, x="step", y="loss")
    names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
    page.plot("average precision", {title: record.curve(name) for name, title in names.items()}, x="step", y="AP")


def _points(curve: PrecisionRecall) -> list[tuple[float, float]]:
    return evenly_spaced(list(zip(curve.recall.tolist(), curve.precision.tolist(), strict=True)), MAX_POINTS)


def _point_at(curve: PrecisionRecall, threshold: float) -> tuple[float, float]:
    """Recall and precision at a score threshold."""
    at = max(0, int((curve.thresholds >= threshold).sum()) - 1)
    return float(curve.recall[at]), float(curve.precision[at])


def _chosen(predictions: Predictions) -> dict[str, list[str]]:
    """Keys of the images of the lowest and highest F1, and of those with most scores close to the threshold."""
    threshold, _ = predictions.threshold
    f1 = {key: _f1(predictions, key, threshold) for key in predictions.truth}
    unsure = {
        key: sum(abs((one.score or 0.0) - threshold) < threshold / 2 for one in found)
        for key, found in predictions.found.items()
    }
    order = sorted(f1, key=lambda key: (f1[key], key))
    worst = order[:SHOWN]
    best = [key for key in reversed(order) if key not in worst][:SHOWN]
    least_sure = sorted(unsure, key=lambda key: (-unsure[key], key))
    others = [key for key in least_sure if key not in (*worst, *best)][:SHOWN]
    return {"Worst": worst, "Best": best, "Least sure": others}


def _f1(predictions: Predictions, key: str, threshold: float) -> float:
    """F1 of one image; 1 where nothing is there and nothing was found."""
    curves = precision_recall({key: predictions.truth[key]}, {key: _kept(predictions.found[key], threshold)})
    if not curves:
        return float(not _kept(predictions.found[key], threshold))
    f1 = curves[ALL].f1
    return float(f1[-1]) if len(f1) else 0.0


def _kept(found: Sequence[Annotation], threshold: float) -> list[Annotation]:
    return [one for one in found if (one.score or 0.0) >= threshold]


def _panel(image: np.ndarray, predictions: Predictions, key: str) -> np.ndarray:
    """Image, truth and prediction side by side, RGB uint8; the class is written into every box."""
    scale = min(1.0, SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    rgb8 = cv2.resize(to_rgb8(image), size, interpolation=cv2.INTER_AREA)
    kept = _kept(predictions.found[key], predictions.threshold[0])
    sides = [(predictions.truth[key], TRUTH_COLOUR), (kept, PREDICTION_COLOUR)]
    return side_by_side([rgb8, *(_drawn(rgb8, items, colour, scale) for items, colour in sides)])


def _drawn(rgb8: np.ndarray, items: Sequence[Annotation], colour: tuple[int, int, int], scale: float) -> np.ndarray:
    drawn = outline_boxes(rgb8, [item.bbox for item in items], colour, scale=scale)
    for item in items if len({item.category for item in items}) > 1 else ():
        at = round(item.bbox[0] * scale) + 3, round(item.bbox[1] * scale) + 11
        cv2.putText(drawn, item.category[:8], at, cv2.FONT_HERSHEY_SIMPLEX, 0.32, colour, 1, cv2.LINE_AA)
    return drawn

"""Score boxes: find or read them, and compare them with the truth."""

from functools import partial
from typing import Any

import numpy as np

from components.evaluate.box_page import BoxResults, show_boxes
from components.evaluate.box_predictions import PredictedBoxes, detector_predictions, stored_boxes
from components.evaluate.box_truth import BoxSet, boxes_of, comparable
from components.evaluate.component import Evaluate
from components.evaluate.scored_images import (
    PredictedImages,
    SplitImages,
    choose_split,
    without_abstained,
    without_failed,
)
from components.evaluate.scored_part import ScoredPart
from components.evaluate.subject import Subject
from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.metrics.box_matching import match_boxes
from shared.metrics.boxes import ALL, PrecisionRecall, best_threshold, box_metrics, categories, precision_recall
from shared.metrics.classification import Classification

_COLUMNS = ["image", "source", "true_boxes", "found_boxes", "box_f1", "box_precision", "box_recall"]


def score_boxes(stage: Evaluate, subject: Subject, images: ImageReader, truth: LabelReader) -> ScoredPart | None:
    """Score the images whose boxes are known; None where the split has none."""
    true = boxes_of(truth)
    chosen = choose_split(true, images, stage.split)
    found = subject.predictions
    left = without_failed(chosen.keys, found)
    left = left if found is None else without_abstained(left, found, boxes_of(found))
    if not left.keys:
        return None
    keys = left.keys if stage.max_images == "all" else evenly_spaced(left.keys, stage.max_images)
    predicted = _predict(stage, subject, images, keys)
    pair = comparable({key: true[key] for key in keys}, predicted.boxes, predicted.classes)
    most = None if stage.max_detections == "all" else stage.max_detections
    curves = precision_recall(pair.truth, pair.found)
    threshold = predicted.score_threshold
    kept = {key: [item for item in items if _score(item) >= threshold] for key, items in pair.found.items()}
    rows = [_row(images, key, pair.truth, kept) for key in keys]
    metrics = box_metrics(pair.truth, pair.found, max_detections=most)
    metrics = {f"box_{name}": value for name, value in metrics.items()} | _at_threshold(rows, curves, threshold)
    confusion = _confusion(pair.truth, kept)
    remark = _remark(chosen, left, pair.remark)
    results = BoxResults(pair.truth, kept, metrics, curves, confusion, rows, threshold, remark)
    return ScoredPart(
        title="Boxes",
        metrics=metrics,
        columns=_COLUMNS,
        rows=[{name: row[name] for name in _COLUMNS} for row in rows],
        classification=confusion,
        show=partial(show_boxes, results=results, images=images),
        counts={name: sum(row[name] for row in rows) for name in ("true_boxes", "found_boxes")},
        learned_from=chosen.learned_from,
        remark=remark,
    )


def _predict(stage: Evaluate, subject: Subject, images: ImageReader, keys: list[str]) -> PredictedBoxes:
    if subject.model is not None:
        return detector_predictions(stage, subject.model, images, keys)
    assert subject.predictions is not None
    return stored_boxes(subject.predictions, keys)


def _score(item: Annotation) -> float:
    return 1.0 if item.score is None else item.score


def _at_threshold(rows: list[dict[str, Any]], curves: dict[str, PrecisionRecall], threshold: float) -> dict[str, float]:
    """Pooled precision, recall and F1 of the boxes above the threshold, and the threshold of the best F1."""
    hits, wrong, true = (sum(row[name] for row in rows) for name in ("hits", "wrong", "true_boxes"))
    found = {"box_threshold": threshold} | _rates(hits, wrong, true)
    if curves:
        found["box_best_threshold"], found["box_best_f1"] = best_threshold(curves[ALL])
    return found


def _rates(hits: int, wrong: int, true: int) -> dict[str, float]:
    """F1, precision and recall; 1 where there is nothing to find and nothing was found."""
    found = hits + wrong
    return {
        "box_f1": 2 * hits / (found + true) if found + true else 1.0,
        "box_precision": hits / found if found else float(not true),
        "box_recall": hits / true if true else float(not found),
    }


def _row(images: ImageReader, key: str, truth: BoxSet, kept: BoxSet) -> dict[str, Any]:
    """One line of `scores.csv`, with the numbers of right and of wrong boxes."""
    hits = wrong = true = 0
    items, found = truth[key], kept.get(key, [])
    for name in categories({key: items}, {key: found}):
        true_boxes, boxes = ([item for item in side if item.category == name] for side in (items, found))
        matches = match_boxes(true_boxes, boxes)
        right = int(matches.hits.sum())
        hits, wrong = hits + right, wrong + int((~matches.ignored).sum()) - right
        true += matches.objects
    row: dict[str, Any] = {"image": key, "source": images.entries[key].source, "true_boxes": true}
    return row | {"found_boxes": len(found), "hits": hits, "wrong": wrong} | _rates(hits, wrong, true)


def _confusion(truth: BoxSet, kept: BoxSet) -> Classification:
    """Count objects by their true class and the class of the box that matches them, whatever its class.

    The last row has boxes that match no object, the last column objects that are missed.
    """
    names = categories(truth, kept)
    nothing = "nothing" if "nothing" not in names else "no object"
    index = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names) + 1, len(names) + 1))
    for key, true in truth.items():
        found = kept.get(key, [])
        matches = match_boxes(true, found)
        missed = {number for number, item in enumerate(true) if not item.iscrowd}
        for number, partner, hit, ignored in zip(*_columns(matches), strict=True):
            column = index[found[number].category]
            if hit:
                counts[index[true[partner].category], column] += 1
                missed.discard(partner)
            elif not ignored:
                counts[-1, column] += 1
        for number in missed:
            counts[index[true[number].category], -1] += 1
    return Classification(labels=[*names, nothing], confusion=counts.tolist())


def _columns(matches: Any) -> tuple[list[int], list[int], list[bool], list[bool]]:
    return matches.order.tolist(), matches.partner.tolist(), matches.hits.tolist(), matches.ignored.tolist()


def _remark(chosen: SplitImages, left: PredictedImages, on_classes: str) -> str:
    return " ".join([*chosen.remarks(), *left.remarks(), *([on_classes] if on_classes else [])])

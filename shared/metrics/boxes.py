"""Evaluator: boxes with classes and scores, by COCO's average precision (Lin et al. 2014, arXiv:1405.0312).

faster-coco-eval, which counts as pycocotools does, is imported late.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.artifacts.annotation import Annotation
from shared.metrics.box_matching import IOU_THRESHOLD, match_boxes

Boxes = Mapping[str, Sequence[Annotation]]
"""Key of an image -> its objects."""
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar")
"""Names of the metrics over all classes, in the order in which tables show them."""
ALL = "all"
"""Name of the curve over the boxes of all classes."""
MIN_MAX_DETECTIONS = 100
"""COCO's limit of the boxes of a class in an image; ours is at least that."""
_SIZES = ("all", "small", "medium", "large")
"""COCO's ranges of areas, cut at 32² and 96² px²."""


def categories(*sets: Boxes) -> list[str]:
    """Names of all classes of objects, in alphabetical order."""
    return sorted({item.category for boxes in sets for found in boxes.values() for item in found})


def box_metrics(truth: Boxes, found: Boxes, *, max_detections: int | None = None) -> dict[str, float]:
    """Average precision (COCO): name -> number in [0, 1].

    truth: the objects of every scored image, crowd regions with `iscrowd`; found: predictions with scores. Predictions
    on other images are not counted. A class without true objects has no metric and no part in the means; without any
    true object, the result is empty.
    max_detections: boxes of a class in an image that count, the ones of highest score; at least as many as there are
    if None.
    ap: mean over the classes and over IoU 0.5 to 0.95; ap50, ap75: at one IoU; ap_small, ap_medium, ap_large: objects
    below 32² px², to 96² px² and above; ar: recall, over IoU 0.5 to 0.95; ap_CLASS, ap50_CLASS: of one class.
    """
    names = categories(truth)
    most = max_detections or max([MIN_MAX_DETECTIONS, *(len(found.get(key, ())) for key in truth)])
    if not names:
        return {}
    precision, recall = _accumulate(truth, found, names, most)
    values = {"ap": precision[..., 0], "ap50": precision[0, ..., 0], "ap75": precision[5, ..., 0]}
    values |= {f"ap_{size}": precision[..., i] for i, size in enumerate(_SIZES) if i}
    values |= {"ar": recall[..., 0]}
    for number, name in enumerate(names):
        values |= {f"ap_{name}": precision[:, :, number, 0], f"ap50_{name}": precision[0, :, number, 0]}
    return {name: float(value[value > -1].mean()) for name, value in values.items() if (value > -1).any()}


def _accumulate(truth: Boxes, found: Boxes, names: list[str], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision (10 IoU, 101 recalls, classes, 4 sizes) and recall (10 IoU, classes, 4 sizes); -1 where undefined."""
    from faster_coco_eval import COCO, COCOeval_faster

    images = [{"id": number} for number in range(1, len(truth) + 1)]
    head = {"images": images, "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)]}
    found = {key: found.get(key, ()) for key in truth}
    sets = [COCO(head | {"annotations": _rows(boxes, names, predicted=boxes is found)}) for boxes in (truth, found)]
    evaluation = COCOeval_faster(*sets, iouType="bbox")
    evaluation.params.maxDets = [most]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]


def _rows(boxes: Boxes, names: list[str], *, predicted: bool) -> list[dict[str, Any]]:
    """Annotations as COCO has them, numbered from 1. A prediction has the area of its box, as in pycocotools."""
    ids = {name: number for number, name in enumerate(names, 1)}
    rows: list[dict[str, Any]] = []
    for image_id, items in enumerate(boxes.values(), 1):
        for item in items:
            if item.category not in ids:
                continue
            row: dict[str, Any] = {"id": len(rows) + 1, "image_id": image_id, "category_id": ids[item.category]}
            row |= {"bbox": list(item.bbox), "area": item.area, "iscrowd": item.iscrowd}
            if predicted:
                score = 1.0 if item.score is None else float(item.score)
                row |= {"area": item.bbox[2] * item.bbox[3], "iscrowd": 0, "score": score}
            rows.append(row)
    return rows


@dataclass(frozen=True)
class PrecisionRecall:
    """A precision-recall curve: what is right and found of the boxes whose score is at least the threshold."""

    thresholds: np.ndarray
    """(n,) float64, scores of the predictions, each once, descending."""
    precision: np.ndarray
    """(n,) float64 in [0, 1]."""
    recall: np.ndarray
    """(n,) float64 in [0, 1], ascending."""
    objects: int
    """True objects."""

    @property
    def f1(self) -> np.ndarray:
        """(n,) float64 in [0, 1], harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)


def precision_recall(truth: Boxes, found: Boxes, iou: float = IOU_THRESHOLD) -> dict[str, PrecisionRecall]:
    """Curve of each class that has true objects, at one IoU, and over the boxes of all classes as `ALL`.

    Boxes on crowd regions do not count. `ALL` counts predictions of classes without true objects as wrong. It is left
    out where there is no true object.
    """
    curves, pooled = dict[str, PrecisionRecall](), list[tuple[np.ndarray, np.ndarray]]()
    objects = 0
    for name in categories(truth, found):
        scores, hits, count = _pooled_hits(truth, found, name, iou)
        pooled.append((scores, hits))
        objects += count
        if count:
            curves[name] = _curve(scores, hits, count)
    if not objects:
        return {}
    scores, hits = (np.concatenate(parts) for parts in zip(*pooled, strict=True))
    return {ALL: _curve(scores, hits, objects)} | curves


def _pooled_hits(truth: Boxes, found: Boxes, name: str, iou: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores (n,) of the predictions of a class, which are right (n,) bool, and the number of true objects."""
    scores, hits, objects = [np.empty(0)], [np.empty(0, bool)], 0
    for key, items in truth.items():
        true, predicted = ([item for item in side if item.category == name] for side in (items, found.get(key, ())))
        matches = match_boxes(true, predicted, iou)
        scores.append(matches.scores[~matches.ignored])
        hits.append(matches.hits[~matches.ignored])
        objects += matches.objects
    return np.concatenate(scores), np.concatenate(hits), objects


def _curve(scores: np.ndarray, hits: np.ndarray, objects: int) -> PrecisionRecall:
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1) if len(scores) else np.empty(0, int)
    return PrecisionRecall(scores[order][last], right[last] / (last + 1), right[last] / objects, objects)


def best_threshold(curve: PrecisionRecall) -> tuple[float, float]:
    """Score threshold of the highest F1, and that F1; the highest such threshold, and (1, 0) without predictions."""
    if not len(curve.thresholds):
        return 1.0, 0.0
    best = int(np.argmax(curve.f1))
    return float(curve.thresholds[best]), float(curve.f1[best])

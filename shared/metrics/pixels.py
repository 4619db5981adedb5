"""Evaluator: pixels of the foreground.

A new pixel metric is one more `yield` in `pixel_metrics`: tables, CSV columns and pages take its name from there.
"""

from collections.abc import Iterator

import numpy as np

from shared.metrics.ratio import ratio


def _dice(true_positives: int, false_positives: int, false_negatives: int) -> float:
    return ratio(2 * true_positives, 2 * true_positives + false_positives + false_negatives)


def pixel_metrics(
    true_positives: int, false_positives: int, false_negatives: int, true_negatives: int
) -> Iterator[tuple[str, float]]:
    """(name, value) from pooled counts of pixels.

    dice: Dice coefficient 2 TP / (2 TP + FP + FN), Dice 1945, Ecology 26:297. iou: TP / (TP + FP + FN).
    """
    union = true_positives + false_positives + false_negatives
    yield "dice", _dice(true_positives, false_positives, false_negatives)
    yield "iou", ratio(true_positives, union)


NAMES = tuple(dict(pixel_metrics(0, 0, 0, 0)))
"""Names of the metrics that this evaluator yields."""


def count_pixels(truth: np.ndarray, predicted: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Count the pixels of one image: (4,) int64, true positives, false positives, false negatives, true negatives.

    truth, predicted: masks or label images (H, W), foreground above 0. known: (H, W) bool, where the truth is known;
    other pixels are not counted. None: everywhere.
    """
    is_true, is_predicted = truth > 0, predicted > 0
    if known is not None:
        is_true, is_predicted = is_true & known, is_predicted & known
    hits = np.count_nonzero(is_true & is_predicted)
    false_positives, false_negatives = np.count_nonzero(is_predicted) - hits, np.count_nonzero(is_true) - hits
    counted = truth.size if known is None else np.count_nonzero(known)
    return np.array([hits, false_positives, false_negatives, counted - hits - false_positives - false_negatives])


def dice_masks(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two masks (H, W), of the pixels above 0; 1 where both are empty."""
    return _dice(*count_pixels(a, b)[:3].tolist())

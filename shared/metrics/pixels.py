"""Evaluator: pixels of the foreground."""

from collections.abc import Iterator

import numpy as np

from shared.metrics.ratio import ratio

NAMES = ("dice", "iou")
"""Metrics that this evaluator yields."""


def pixel_metrics(true_positives: int, false_positives: int, false_negatives: int) -> Iterator[tuple[str, float]]:
    """(name, value) of counts of pixels.

    dice: Dice coefficient 2 TP / (2 TP + FP + FN), Dice 1945, Ecology 26:297. iou: TP / (TP + FP + FN).
    """
    union = true_positives + false_positives + false_negatives
    yield "dice", ratio(2 * true_positives, union + true_positives)
    yield "iou", ratio(true_positives, union)


def dice_masks(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two masks (H, W), of the pixels above 0; 1 where both are empty."""
    a, b = a > 0, b > 0
    return ratio(2 * int(np.count_nonzero(a & b)), int(np.count_nonzero(a) + np.count_nonzero(b)))

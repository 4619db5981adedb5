"""Count what the evaluators need of an image, pool the counts of many images, and turn them into metrics.

A label image is (height, width) of integers; 0 is background, any other number one instance.

>>> truth = np.zeros((20, 20), int); truth[2:8, 2:8] = 1; truth[12:18, 2:8] = 2
>>> predicted = np.where(truth == 1, 7, 0)
>>> metrics = tally(truth, predicted).metrics()
>>> metrics["recall"], metrics["precision"], metrics["ap50"]
(0.5, 1.0, 0.5)

Where the truth is empty, a metric is 1 if the prediction is empty too, else 0. It is never NaN.
"""

from dataclasses import dataclass, field, fields

import numpy as np

from shared.metrics import instances, pixels, tracking_challenge
from shared.metrics.contingency import Overlap, match, overlap
from shared.metrics.instances import THRESHOLDS, aggregated_jaccard, instance_metrics
from shared.metrics.pixels import count_pixels, pixel_metrics
from shared.metrics.tracking_challenge import covered, tracking_metrics

NAMES = (*pixels.NAMES, *instances.NAMES, *tracking_challenge.NAMES)
"""Names of all metrics, in the order in which tables show them."""


@dataclass
class Tally:
    """Counts of one image or of many; `a + b` pools them."""

    images: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(4, np.int64))
    """(4,) foreground pixels: true positives, false positives, false negatives, true negatives."""
    instance_images: int = 0
    """Images whose instances are known; the others count in pixels only."""
    true: int = 0
    """True objects."""
    predicted: int = 0
    """Predicted objects."""
    matched: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS), np.int64))
    """Matched pairs at each of THRESHOLDS."""
    matched_iou: float = 0.0
    """Sum of IoU over the pairs matched at 0.5."""
    aji_sum: float = 0.0
    """Sum of the AJI over the images; AJI is averaged over images, so that one merged blob does not dominate."""
    covered_iou: float = 0.0
    """Sum of IoU over the true objects that are covered, for SEG."""
    operations: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    """(3,) splits, missed and spurious objects, for DET."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def confusion(self) -> list[list[float]]:
        """Confusion matrix of the pixels, background first: a row for each true class, a column for each predicted."""
        true_positives, false_positives, false_negatives, true_negatives = self.pixels.tolist()
        return [[true_negatives, false_positives], [false_negatives, true_positives]]

    def metrics(self) -> dict[str, float]:
        """Name -> number of every evaluator; the pixels' alone where no image has known instances."""
        found = dict(pixel_metrics(*self.pixels.tolist()))
        if not self.instance_images:
            return found
        matched = dict(zip(THRESHOLDS, self.matched.tolist(), strict=True))
        mean_aji = self.aji_sum / self.instance_images
        found |= instance_metrics(self.true, self.predicted, matched, self.matched_iou, mean_aji)
        found |= tracking_metrics(self.true, self.predicted, self.covered_iou, *self.operations.tolist())
        return found


def tally(
    truth: np.ndarray, predicted: np.ndarray, *, known: np.ndarray | None = None, instances: bool = True
) -> Tally:
    """Compare the label images (H, W) of one image.

    known: (H, W) bool, where the truth is known; other pixels count for neither side. None: everywhere.
    instances: False compares the foregrounds alone.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"label images of one image differ in size: {truth.shape} and {predicted.shape}")
    one = Tally(images=1, pixels=count_pixels(truth, predicted, known))
    if not instances:
        return one
    return one + _tally_objects(
        overlap(truth, predicted) if known is None else overlap(truth * known, predicted * known)
    )


def _tally_objects(pairs: Overlap) -> Tally:
    matches = [match(pairs, threshold) for threshold in THRESHOLDS]
    hits = covered(pairs)
    covering = len(np.unique(pairs.predicted[hits]))
    true, predicted = len(pairs.true_area), len(pairs.predicted_area)
    return Tally(
        instance_images=1,
        true=true,
        predicted=predicted,
        matched=np.array([len(pair) for pair in matches]),
        matched_iou=float(pairs.iou[matches[0]].sum()),
        aji_sum=aggregated_jaccard(pairs),
        covered_iou=float(pairs.iou[hits].sum()),
        operations=np.array([len(hits) - covering, true - len(hits), predicted - covering]),
    )

"""Count what all evaluators need of an image, pool the counts of many, and turn them into metrics.

A label image is (height, width) of integers; 0 is background, any other number one instance.

>>> truth = np.zeros((20, 20), int); truth[2:8, 2:8] = 1; truth[12:18, 2:8] = 2
>>> predicted = np.where(truth == 1, 7, 0)
>>> metrics = tally(truth, predicted).metrics()
>>> metrics["recall"], metrics["precision"], metrics["ap50"]
(0.5, 1.0, 0.5)

Where nothing is to be found, a metric is 1 when nothing was found either, else 0. It is never NaN.
"""

from dataclasses import dataclass, field, fields

import numpy as np

from shared.metrics import instances, pixels, tracking_challenge
from shared.metrics.contingency import match, overlap
from shared.metrics.instances import THRESHOLDS, aggregated_jaccard, instance_metrics
from shared.metrics.pixels import pixel_metrics
from shared.metrics.tracking_challenge import covered, tracking_metrics

NAMES = (*pixels.NAMES, *instances.NAMES, *tracking_challenge.NAMES)
"""All metrics, in the order in which tables show them."""


@dataclass
class Tally:
    """Counts of one image or of many; `a + b` pools them."""

    images: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    """Foreground pixels: true positives, false positives, false negatives."""
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
    jaccard: float = 0.0
    """Sum of the AJI over the images: one merged blob must not outweigh all other images."""
    covered_iou: float = 0.0
    """Sum of IoU over the true objects that are covered, for SEG."""
    operations: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    """Splits, missed and spurious objects, for DET."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def metrics(self) -> dict[str, float]:
        """Name -> number in [0, 1], from every evaluator; pixels alone where no image has known instances."""
        found = dict(pixel_metrics(*self.pixels.tolist()))
        if not self.instance_images:
            return found
        matched = dict(zip(THRESHOLDS, self.matched.tolist(), strict=True))
        mean_aji = self.jaccard / self.instance_images
        found |= instance_metrics(self.true, self.predicted, matched, self.matched_iou, mean_aji)
        found |= tracking_metrics(self.true, self.predicted, self.covered_iou, *self.operations.tolist())
        return found


def tally(truth: np.ndarray, predicted: np.ndarray, instances: bool = True) -> Tally:
    """Compare the label images (H, W) of one image; without `instances` their foregrounds alone."""
    if truth.shape != predicted.shape:
        raise ValueError(f"label images of one image differ in size: {truth.shape} and {predicted.shape}")
    is_true, is_predicted = truth > 0, predicted > 0
    found = np.count_nonzero(is_true & is_predicted)
    counts = np.array([found, np.count_nonzero(is_predicted) - found, np.count_nonzero(is_true) - found])
    if not instances:
        return Tally(images=1, pixels=counts)
    pairs = overlap(truth, predicted)
    matches = [match(pairs, threshold) for threshold in THRESHOLDS]
    hits = covered(pairs)
    nodes = len(np.unique(pairs.predicted[hits]))
    true, found_objects = len(pairs.true_area), len(pairs.predicted_area)
    return Tally(
        images=1,
        pixels=counts,
        instance_images=1,
        true=true,
        predicted=found_objects,
        matched=np.array([len(pair) for pair in matches]),
        matched_iou=float(pairs.iou[matches[0]].sum()),
        jaccard=aggregated_jaccard(pairs),
        covered_iou=float(pairs.iou[hits].sum()),
        operations=np.array([len(hits) - nodes, true - len(hits), found_objects - nodes]),
    )

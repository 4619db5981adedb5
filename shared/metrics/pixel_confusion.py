"""Background against cell, pixel by pixel: what the confusion matrix and the ROC curve are made of."""

from dataclasses import dataclass, field

import numpy as np

from shared.metrics.classification import Classification

LABELS = ["background", "cell"]
LEVELS = 256
"""Steps of the foreground probability that are told apart."""


@dataclass
class Pixels:
    """Counts of one image or of many, of pixels whose truth is known; `a + b` pools them."""

    confusion: np.ndarray = field(default_factory=lambda: np.zeros((2, 2), np.int64))
    """(2, 2) int64: rows are the truth, columns what was found; background, then cell."""
    levels: np.ndarray = field(default_factory=lambda: np.zeros((2, LEVELS), np.int64))
    """(2, LEVELS) int64: the background's and the cells' pixels by their foreground probability; 0 where none is known.

    Level i is of the probabilities from i / LEVELS to below the next one's, the last of all up to 1.
    """

    def __add__(self, other: "Pixels") -> "Pixels":
        return Pixels(self.confusion + other.confusion, self.levels + other.levels)

    def classification(self) -> Classification:
        """As Kubeflow's UI draws it."""
        return Classification(labels=LABELS, confusion=self.confusion.tolist(), roc=self.roc())

    def rows(self) -> list[tuple[str, list[int]]]:
        """True class, and how many of its pixels were found to be background and cell."""
        return list(zip(LABELS, self.confusion.tolist(), strict=True))

    def roc(self) -> list[tuple[float, float, float]]:
        """(false positive rate, true positive rate, threshold), thresholds falling: cell is what is no less than it.

        A point for each level that any pixel is of, and before them the one where nothing is cell. Empty where the
        truth lacks either class, or no probability is known.
        """
        totals = self.levels.sum(axis=1, keepdims=True)
        if not totals.all():
            return []
        falling = np.flatnonzero(self.levels.any(axis=0))[::-1]
        false_rate, true_rate = (np.cumsum(self.levels[:, falling], axis=1) / totals).tolist()
        return [(0.0, 0.0, 1.0), *zip(false_rate, true_rate, (falling / LEVELS).tolist(), strict=True)]


def count_pixels(
    true: np.ndarray, found: np.ndarray, known: np.ndarray, probability: np.ndarray | None = None
) -> Pixels:
    """Count one image: label images and whether the truth is known, (H, W); probability: (H, W) float32 in [0, 1]."""
    is_cell = (true[known] > 0).astype(np.uint16)
    counts = Pixels(np.bincount(2 * is_cell + (found[known] > 0), minlength=4).reshape(2, 2))
    if probability is not None:
        level = np.minimum(probability[known] * LEVELS, LEVELS - 1).astype(np.uint16)
        counts.levels = np.bincount(LEVELS * is_cell + level, minlength=2 * LEVELS).reshape(2, LEVELS)
    return counts

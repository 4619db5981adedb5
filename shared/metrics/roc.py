"""Count pixels by their foreground probability, and turn the counts into a ROC curve."""

from dataclasses import dataclass, field

import numpy as np

BINS = 256
"""Bins of the foreground probability."""


@dataclass
class ProbabilityHistogram:
    """Counts of one image or of many; `a + b` pools them."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros((2, BINS), np.int64))
    """(2, BINS) int64: pixels of the background and of cells. Bin i holds the probabilities in [i, i + 1) / BINS, the
    last one also 1.
    """

    def __add__(self, other: "ProbabilityHistogram") -> "ProbabilityHistogram":
        return ProbabilityHistogram(self.counts + other.counts)

    def roc(self) -> list[tuple[float, float, float]]:
        """(false positive rate, true positive rate, threshold) by descending threshold; a pixel at it counts as cell.

        One point for each bin that is not empty, after the point where nothing counts as cell. No point at all where
        one of the two classes has no pixels.
        """
        totals = self.counts.sum(axis=1, keepdims=True)
        if not totals.all():
            return []
        falling = np.flatnonzero(self.counts.any(axis=0))[::-1]
        false_rate, true_rate = (np.cumsum(self.counts[:, falling], axis=1) / totals).tolist()
        return [(0.0, 0.0, 1.0), *zip(false_rate, true_rate, (falling / BINS).tolist(), strict=True)]


def probability_histogram(
    truth: np.ndarray, probability: np.ndarray, known: np.ndarray | None = None
) -> ProbabilityHistogram:
    """Count one image: label image (H, W), foreground probability (H, W) float32 in [0, 1].

    known: (H, W) bool, where the truth is known; other pixels are not counted. None: everywhere.
    """
    chosen = np.s_[:] if known is None else known
    is_cell = (truth[chosen] > 0).astype(np.uint16).ravel()
    bins = np.minimum(probability[chosen] * BINS, BINS - 1).astype(np.uint16).ravel()
    return ProbabilityHistogram(np.bincount(BINS * is_cell + bins, minlength=2 * BINS).reshape(2, BINS))

"""Count the pixels that the objects of two label images share (contingency table), and match the objects."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

MAX_DENSE_ENTRIES = 2**24
"""Entries of the largest contingency table that is counted densely; above it the pairs are sorted."""


@dataclass(frozen=True)
class Overlap:
    """The pairs of a true and a predicted object that share pixels, and how many."""

    true_area: np.ndarray
    """(T,) px of every true object, ascending by label."""
    predicted_area: np.ndarray
    """(P,) px of every predicted object, ascending by label."""
    true: np.ndarray
    """(N,) index of the true object of each overlapping pair; pairs ascend by (true, predicted)."""
    predicted: np.ndarray
    """(N,) index of the predicted object of each pair."""
    area: np.ndarray
    """(N,) px the two share, at least 1."""

    @property
    def union(self) -> np.ndarray:
        """(N,) px of either object of each pair."""
        return self.true_area[self.true] + self.predicted_area[self.predicted] - self.area

    @property
    def iou(self) -> np.ndarray:
        """(N,) intersection over union (Jaccard index) of each pair."""
        return self.area / self.union


def overlap(truth: np.ndarray, predicted: np.ndarray) -> Overlap:
    """Contingency table of two label images (H, W) of equal size, integers from 0 or booleans."""
    if truth.shape != predicted.shape:
        raise ValueError(f"label images of one image differ in size: {truth.shape} and {predicted.shape}")
    counted = _counted(truth, predicted)
    if counted is None:  # label numbers may be large, but only a few in use
        (t, true_area), (p, predicted_area) = _compact(truth), _compact(predicted)
        counted = _counted(t, p) or _sorted(t, p, true_area, predicted_area)
    return counted


def _counted(truth: np.ndarray, predicted: np.ndarray) -> Overlap | None:
    """Count in a dense table of all label numbers; its sums are the areas. None where the table would be too large."""
    if not truth.size or min(truth.min(), predicted.min()) < 0:
        return None
    height, width = int(truth.max()) + 1, int(predicted.max()) + 1
    if height * width > min(MAX_DENSE_ENTRIES, max(2**16, 4 * truth.size)):
        return None
    combined = np.multiply(truth, width, dtype=np.int64)
    np.add(combined, predicted, out=combined, dtype=np.int64)
    counts = np.bincount(combined.ravel(), minlength=height * width).reshape(height, width)
    true_area, predicted_area, objects = counts.sum(axis=1)[1:], counts.sum(axis=0)[1:], counts[1:, 1:]
    true_index, predicted_index = np.cumsum(true_area > 0) - 1, np.cumsum(predicted_area > 0) - 1
    rows, columns = np.nonzero(objects)
    return Overlap(
        true_area[true_area > 0],
        predicted_area[predicted_area > 0],
        true_index[rows],
        predicted_index[columns],
        objects[rows, columns],
    )


def _sorted(t: np.ndarray, p: np.ndarray, true_area: np.ndarray, predicted_area: np.ndarray) -> Overlap:
    """Count pairs of compact labels by sorting them."""
    both = np.flatnonzero((t > 0) & (p > 0))
    width = len(predicted_area) + 1
    pairs, area = np.unique(t.ravel()[both].astype(np.int64) * width + p.ravel()[both], return_counts=True)
    return Overlap(true_area, predicted_area, pairs // width - 1, pairs % width - 1, area)


def _compact(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber a label image to 1..n in ascending order; also returns the area of each object (n,)."""
    shape = labels.shape
    if labels.dtype == bool:
        labels = labels.view(np.uint8)
    if labels.size and int(labels.max()) > 4 * labels.size + 2**16:  # sparse numbers: a table would be too large
        values, labels = np.unique(labels, return_inverse=True)
        labels = labels.reshape(shape) + int(values[0] != 0)
    counts = np.bincount(labels.ravel())
    present = counts[1:] > 0
    table = np.zeros(max(len(counts), 1), np.int32)
    table[1:] = np.where(present, np.cumsum(present), 0)
    return table[labels], counts[1:][present]


def match(pairs: Overlap, threshold: float) -> np.ndarray:
    """Match objects one to one: indices (M,) of the matched pairs among those with IoU >= threshold.

    The matching has the most pairs, and among such the highest sum of IoU, as in `stardist.matching`. Pairs whose
    objects are in no other pair are matched at once: above an IoU of 0.5 these are all (Kirillov et al. 2019,
    arXiv:1801.00868, section 4.1).
    """
    iou = pairs.iou
    able = np.flatnonzero(iou >= threshold)
    true, predicted = pairs.true[able], pairs.predicted[able]
    alone = (np.bincount(true, minlength=1)[true] == 1) & (np.bincount(predicted, minlength=1)[predicted] == 1)
    rivals = able[~alone]
    if not len(rivals):
        return able
    rows, row = np.unique(pairs.true[rivals], return_inverse=True)
    columns, column = np.unique(pairs.predicted[rivals], return_inverse=True)
    gain, where = np.zeros((len(rows), len(columns))), np.full((len(rows), len(columns)), -1)
    gain[row, column] = 1 + iou[rivals] / (2 * min(gain.shape))
    where[row, column] = rivals
    chosen = where[linear_sum_assignment(gain, maximize=True)]
    return np.sort(np.concatenate([able[alone], chosen[chosen >= 0]]))

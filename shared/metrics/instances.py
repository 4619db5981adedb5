"""How well a predicted label image agrees with the true one: plain functions on arrays.

A label image is (height, width) of integers; 0 is background, any other number one instance. `tally` counts what all
measures need, tallies of several images add up, and `Tally.metrics` turns the sums into numbers in [0, 1].

>>> truth = np.zeros((20, 20), int); truth[2:8, 2:8] = 1; truth[12:18, 2:8] = 2
>>> predicted = np.where(truth == 1, 7, 0)
>>> numbers = tally(truth, predicted).metrics()
>>> numbers["recall"], numbers["precision"], numbers["ap50"]
(0.5, 1.0, 0.5)

Where nothing is to be found: a measure is 1 when nothing was found either, else 0. It is never NaN.
"""

from dataclasses import dataclass, field, fields

import numpy as np
from scipy.optimize import linear_sum_assignment

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""IoU thresholds of the average precision; `map` is the mean over them."""
SPLIT, MISSED, SPURIOUS = 5.0, 10.0, 1.0
"""AOGM weights of a split, a false negative and a false positive: Matula et al. 2015, PLOS ONE 10:e0144959."""
DENSE_CELLS = 2**24
"""Largest contingency table that is counted densely; above it the pairs are sorted."""


def dice_masks(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient 2 |a n b| / (|a| + |b|) of two masks (H, W); a pixel counts where it is above 0.

    Dice 1945, Ecology 26:297. 1 where both masks are empty.
    """
    a, b = a > 0, b > 0
    return ratio(2 * int(np.count_nonzero(a & b)), int(np.count_nonzero(a) + np.count_nonzero(b)))


def ratio(part: float, whole: float, extra: float = 0.0) -> float:
    """part / whole; where the whole is 0: 1 when nothing superfluous (`extra`) was found, else 0."""
    return float(part / whole) if whole > 0 else float(extra == 0)


@dataclass(frozen=True)
class Overlap:
    """Which true object shares how many pixels with which predicted one."""

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
    """Contingency of two label images (H, W) of equal size, whole numbers from 0 or booleans."""
    if truth.shape != predicted.shape:
        raise ValueError(f"label images of one image differ in size: {truth.shape} and {predicted.shape}")
    counted = _counted(truth, predicted)
    if counted is None:  # large numbers, of which few may be in use
        (t, true_area), (p, predicted_area) = _compact(truth), _compact(predicted)
        counted = _counted(t, p) or _sorted(t, p, true_area, predicted_area)
    return counted


def _counted(truth: np.ndarray, predicted: np.ndarray) -> Overlap | None:
    """By a table of every number in one with every number in the other, whose sums are the areas; None where it would
    be too large.
    """
    if not truth.size or min(truth.min(), predicted.min()) < 0:
        return None
    height, width = int(truth.max()) + 1, int(predicted.max()) + 1
    if height * width > min(DENSE_CELLS, max(2**16, 4 * truth.size)):
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
    """Of compact labels, by sorting the pairs."""
    both = np.flatnonzero((t > 0) & (p > 0))
    width = len(predicted_area) + 1
    pairs, area = np.unique(t.ravel()[both].astype(np.int64) * width + p.ravel()[both], return_counts=True)
    return Overlap(true_area, predicted_area, pairs // width - 1, pairs % width - 1, area)


def _compact(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label image -> the same with labels 1..n in ascending order, and the area of each (n,)."""
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
    """Indices (M,) of the pairs that form the best one-to-one matching among those with IoU >= threshold.

    Most pairs first, then the highest sum of IoU, as `stardist.matching` has it. Pairs without a rival are taken
    at once: above an IoU of 0.5 that is all of them (Kirillov et al. 2019, arXiv:1801.00868, section 4.1).
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


def aggregated_jaccard(pairs: Overlap) -> float:
    """Aggregated Jaccard index (AJI) of one image: Kumar et al. 2017, IEEE TMI 36:1550, algorithm 1.

    Each true object goes with the predicted one of highest IoU (the lowest label among equals), which several may
    share; predicted objects that none goes with add to the denominator.
    """
    order = np.lexsort((pairs.predicted, -pairs.iou, pairs.true))
    true, first = np.unique(pairs.true[order], return_index=True)
    best = order[first]
    used = np.zeros(len(pairs.predicted_area), bool)
    used[pairs.predicted[best]] = True
    alone = np.ones(len(pairs.true_area), bool)
    alone[true] = False
    union = pairs.union[best].sum() + pairs.true_area[alone].sum() + pairs.predicted_area[~used].sum()
    return ratio(int(pairs.area[best].sum()), int(union))


def covered(pairs: Overlap) -> np.ndarray:
    """Indices (M,) of the pairs whose predicted object covers more than half of the true one.

    The detection test of Matula et al. 2015, which SEG uses as well. A true object is in one pair at most.
    """
    return np.flatnonzero(2 * pairs.area > pairs.true_area[pairs.true])


@dataclass
class Tally:
    """Counts of one image or of many; `a + b` pools them."""

    images: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    """Foreground pixels found, superfluous, missed."""
    instance_images: int = 0
    """Images whose instances are known; the rest counts in pixels only."""
    true: int = 0
    """Objects that are there."""
    predicted: int = 0
    """Objects that were found."""
    matched: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS), np.int64))
    """Matched pairs at each of THRESHOLDS."""
    matched_iou: float = 0.0
    """Sum of IoU over the pairs matched at 0.5."""
    jaccard: float = 0.0
    """Sum of the AJI over the images: one merged blob must not outweigh all other images."""
    covered_iou: float = 0.0
    """Sum of IoU over the true objects that are covered, of SEG."""
    operations: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))
    """Splits, missed, spurious objects, of DET."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def metrics(self) -> dict[str, float]:
        """Name -> number in [0, 1]; pixel measures alone where no image has known instances.

        dice, iou: of the foreground pixels. precision, recall, f1: of the objects at IoU 0.5.
        ap50, ap75: TP / (TP + FP + FN) at that IoU, as StarDist (arXiv:1806.03535) and Cellpose define it;
        map: its mean over THRESHOLDS. pq: panoptic quality at 0.5, Kirillov et al. 2019, equation 1.
        aji: mean over the images, Kumar et al. 2017. seg: mean over all true objects of the IoU with what covers
        them; det: 1 - AOGM-D / AOGM-D0; both of the Cell Tracking Challenge, Matula et al. 2015.
        """
        tp, fp, fn = (int(n) for n in self.pixels)
        numbers = {"dice": ratio(2 * tp, 2 * tp + fp + fn), "iou": ratio(tp, tp + fp + fn)}
        if not self.instance_images:
            return numbers
        objects, at = self.true + self.predicted, dict(zip(THRESHOLDS, self.matched.tolist(), strict=True))
        precision = [ratio(n, objects - n) for n in at.values()]
        splits, missed, spurious = (int(n) for n in self.operations)
        cost, scratch = SPLIT * splits + MISSED * missed + SPURIOUS * spurious, MISSED * self.true
        return numbers | {
            "precision": ratio(at[0.5], self.predicted, self.true),
            "recall": ratio(at[0.5], self.true, self.predicted),
            "f1": ratio(2 * at[0.5], objects),
            "ap50": precision[0],
            "ap75": precision[THRESHOLDS.index(0.75)],
            "map": float(np.mean(precision)),
            "pq": ratio(2 * self.matched_iou, objects),
            "aji": self.jaccard / self.instance_images,
            "seg": ratio(self.covered_iou, self.true, self.predicted),
            "det": ratio(scratch - min(cost, scratch), scratch, self.predicted),
        }


def tally(truth: np.ndarray, predicted: np.ndarray, instances: bool = True) -> Tally:
    """Compare the label images (H, W) of one image; without `instances` their foregrounds alone."""
    if truth.shape != predicted.shape:
        raise ValueError(f"label images of one image differ in size: {truth.shape} and {predicted.shape}")
    is_true, is_predicted = truth > 0, predicted > 0
    found = np.count_nonzero(is_true & is_predicted)
    pixels = np.array([found, np.count_nonzero(is_predicted) - found, np.count_nonzero(is_true) - found])
    if not instances:
        return Tally(images=1, pixels=pixels)
    pairs = overlap(truth, predicted)
    matches = [match(pairs, threshold) for threshold in THRESHOLDS]
    hits = covered(pairs)
    nodes = len(np.unique(pairs.predicted[hits]))
    true, found_objects = len(pairs.true_area), len(pairs.predicted_area)
    return Tally(
        images=1,
        pixels=pixels,
        instance_images=1,
        true=true,
        predicted=found_objects,
        matched=np.array([len(pair) for pair in matches]),
        matched_iou=float(pairs.iou[matches[0]].sum()),
        jaccard=aggregated_jaccard(pairs),
        covered_iou=float(pairs.iou[hits].sum()),
        operations=np.array([len(hits) - nodes, true - len(hits), found_objects - nodes]),
    )

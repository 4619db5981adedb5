"""Evaluator: classes of images, by their predicted probabilities.

`probability` is (n, K) float, rows that sum to 1; `truth` is (n,) integers, the index of the true class. With two
classes the second one is the positive one. A metric that the images cannot tell, such as the AUROC of one class alone,
is left out.
"""

from collections.abc import Iterator

import numpy as np

BINS = 15
"""Bins of the confidence, as in Guo et al. 2017, arXiv:1706.04599."""
NAMES = ("accuracy", "balanced_accuracy", "auroc", "average_precision", "ece")
"""Names of the metrics that this evaluator yields."""
RocPoint = tuple[float, float, float]
"""False positive rate, true positive rate, threshold."""


def class_metrics(probability: np.ndarray, truth: np.ndarray) -> Iterator[tuple[str, float]]:
    """(name, value) of the images with these probabilities (n, K) and true classes (n,).

    balanced_accuracy: mean recall of the classes present. auroc, average_precision: of the positive class; of more than
    two classes the mean of each present one against the rest. ece: expected calibration error, see `reliability`.
    """
    if not len(truth):
        return
    confusion = confusion_matrix(probability, truth)
    present = np.flatnonzero(confusion.sum(axis=1))
    yield "accuracy", float(np.trace(confusion) / len(truth))
    yield "balanced_accuracy", float((np.diag(confusion)[present] / confusion.sum(axis=1)[present]).mean())
    if len(present) > 1:
        ranked = [1] if probability.shape[1] == 2 else present
        yield "auroc", float(np.mean([auroc(probability[:, c], truth == c) for c in ranked]))
        yield "average_precision", float(np.mean([average_precision(probability[:, c], truth == c) for c in ranked]))
    yield "ece", expected_calibration_error(probability, truth)


def confusion_matrix(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count images (K, K) int64: a row for each true class, a column for each most probable one."""
    classes = probability.shape[1]
    pairs = classes * truth.astype(np.int64) + probability.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def roc_curve(score: np.ndarray, positive: np.ndarray) -> list[RocPoint]:
    """Points by descending threshold, one for each value of `score` (n,); a score at the threshold is positive.

    positive: (n,) bool. The first point is (0, 0) at 1. No point at all where one of the two classes has no images.
    """
    if positive.all() or not positive.any():
        return []
    threshold, true, false = _counts(score, positive)
    true_rate, false_rate = true / true[-1], false / false[-1]
    return [(0.0, 0.0, 1.0), *zip(false_rate.tolist(), true_rate.tolist(), threshold.tolist(), strict=True)]


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve of scores (n,); positive: (n,) bool, some of both."""
    _, true, false = _counts(score, positive)
    return float(np.trapezoid(np.append(0, true) / true[-1], np.append(0, false) / false[-1]))


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Average precision of scores (n,): sum of precision times the step in recall. positive: (n,) bool, some true."""
    _, true, false = _counts(score, positive)
    return float((np.diff(true, prepend=0) / true[-1]) @ (true / (true + false)))


def _counts(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores, falling, and how many positives and how many negatives score at least as much."""
    order = np.argsort(-score, kind="stable")
    falling, hits = score[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    true = np.cumsum(hits)[last]
    return falling[last], true, last + 1 - true


def reliability(probability: np.ndarray, truth: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, images) of each bin of the confidence that holds images.

    The confidence is the probability of the most probable class; bins are equally wide in [0, 1] and
    hold their upper edge.
    """
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == truth
    number = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
    counts = np.bincount(number, minlength=bins)
    sums = (np.bincount(number, weights=values, minlength=bins) for values in (confidence, right))
    rows = zip(*sums, counts, strict=True)
    return [(float(total / count), float(hits / count), int(count)) for total, hits, count in rows if count]


def expected_calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = BINS) -> float:
    """Mean over the images of |accuracy - mean confidence| in their bin (Guo et al. 2017, eq. 3)."""
    parts = reliability(probability, truth, bins)
    return sum(count * abs(accuracy - confidence) for confidence, accuracy, count in parts) / len(truth)

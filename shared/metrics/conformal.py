"""Choose thresholds by split conformal prediction: how probable a class must be, how far an image may be.

The thresholds come from a calibration set that the model did not learn from. If new images are exchangeable with it,
the true class is missing from the set of plausible classes for at most `target_error` of the images of each class
(Vovk 2012, arXiv:1209.2673, Mondrian predictors; Angelopoulos & Bates 2021, arXiv:2107.07511, section 3.2.1).
"""

import math
from collections.abc import Sequence

import numpy as np

from shared.system.errors import UserError

_TOLERANCE = 1e-9
"""0.05 * 20 must not round to less than 1."""


def min_calibration_images(target_error: float) -> int:
    """Return how many calibration images of a class the target error needs at least: 19 for 0.05.

    With n images and (n + 1) * target_error < 1 no threshold keeps the promise but one that excludes nothing.
    """
    return math.ceil(1 / target_error - _TOLERANCE) - 1


def class_thresholds(
    calibration: Sequence[Sequence[float]], target_error: float, names: Sequence[str] | None = None
) -> np.ndarray:
    """Return for each class the probability (K,) float64 from which on it is plausible.

    calibration: for each class, the probabilities of that class on calibration images of that class; names: of the
    classes, for messages. The threshold is the k-th smallest of the n probabilities, k = floor((n + 1) * target_error):
    with the score 1 - probability this is the quantile of Angelopoulos & Bates, equation 1, within each class.

    Raises UserError where a class has too few images.
    """
    needed, counts = min_calibration_images(target_error), [len(values) for values in calibration]
    short = {str(names[i] if names else i): count for i, count in enumerate(counts) if count < needed}
    if short:
        found = ", ".join(f"{count} of class {name}" for name, count in short.items())
        raise UserError(
            f"--target_error {target_error:g}: needs {needed} calibration images of every class, the classifier has "
            f"{found}; train it with more images in the split val, or raise the target error to "
            f"{_smallest_target_error(min(short.values()))}"
        )
    return np.array([_threshold(values, target_error) for values in calibration], np.float64)


def plausible_classes(probability: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return (n, K) bool, which classes are plausible: those whose probability (n, K) reaches the threshold (K,).

    A row with several is ambiguous.
    """
    return np.asarray(probability >= thresholds)


def prediction_sets(probability: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return `plausible_classes` (n, K) bool, and the most probable class of each row.

    Sets only grow by that, so the true class is missing no more often. A row without plausible classes, common where
    the classifier errs less than the target error, has one answer then; a less probable class never is the answer.
    """
    sets = plausible_classes(probability, thresholds)
    sets[np.arange(len(sets)), probability.argmax(axis=1)] = True
    return sets


def distance_limit(distances: Sequence[float], quantile: float) -> float:
    """Return the distance above which an image counts as far from the training images.

    distances: of the calibration images. The limit is the k-th smallest of n, k = ceil((n + 1) * quantile): at most
    1 - quantile of images of the same kind are farther (Bates et al. 2023, arXiv:2104.08279, equation 2). Infinity
    where there are too few images for that.
    """
    rank = math.ceil((len(distances) + 1) * quantile - _TOLERANCE)
    return float(np.sort(np.asarray(distances, np.float64))[rank - 1]) if rank <= len(distances) else math.inf


def _threshold(probabilities: Sequence[float], target_error: float) -> float:
    rank = math.floor((len(probabilities) + 1) * target_error + _TOLERANCE)
    return float(np.sort(np.asarray(probabilities, np.float64))[rank - 1])


def _smallest_target_error(count: int) -> str:
    """Return the smallest target error that `count` images allow, rounded up to three digits."""
    return f"{math.ceil(1000 / (count + 1)) / 1000:g}"

"""Threshold dark objects that lie within a dark foreground, such as nuclei in stained cytoplasm."""

import cv2
import numpy as np

_MIN_STEEPNESS_RATIO = 1.2
"""Mean slope of the inner contour relative to that of Otsu's contour, from which on the foreground is nested
(RESULTS.md, "Constants")."""
_MAX_INNER_SHARE = 0.4
"""Largest share of the foreground's area that inner objects may have (RESULTS.md, "Constants")."""
_MIN_NESTED_SHARE = 0.5
"""Share of the foreground's area that must belong to components with an inner object."""
_CONTOUR_LEVELS = 64
"""Levels whose contours are compared."""
_LENGTH_EXPONENT = 0.25
"""Exponent of a contour's length relative to its mean slope: a speck's contour may be the steepest by chance."""


def nested_threshold(values: np.ndarray, threshold: float) -> float:
    """Find a threshold for dark objects within a dark foreground; returns `threshold` itself where there are none.

    values: (H, W) float32, smoothed; threshold: Otsu's. The contours of 64 levels are compared by their mean slope
    times a power of their length. The best level is taken if its contour is clearly steeper than Otsu's, and if what is
    darker still is a small part of Otsu's foreground, and lies within most of its components.
    """
    low, high = (float(value) for value in np.percentile(values, [0.1, 99.9]))
    if not high > low:
        return threshold
    length, steepness = _contours(values, low, high)
    mean_slope = steepness / np.maximum(length, 1)
    score = np.where(length >= _CONTOUR_LEVELS, mean_slope * length**_LENGTH_EXPONENT, 0)[1:_CONTOUR_LEVELS]
    best = int(score.argmax()) + 1
    found = low + best / _CONTOUR_LEVELS * (high - low)
    otsu_level = int(np.clip(round((threshold - low) / (high - low) * _CONTOUR_LEVELS), 0, _CONTOUR_LEVELS))
    inner_share = (values < found).sum() / max(1, (values < threshold).sum())
    steep_enough = mean_slope[best] >= _MIN_STEEPNESS_RATIO * mean_slope[otsu_level]
    if found >= threshold or not steep_enough or inner_share > _MAX_INNER_SHARE:
        return threshold
    return found if _nested_share(values < threshold, values < found) >= _MIN_NESTED_SHARE else threshold


def _contours(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Length and slope, summed along it, of the contour of each level from `low` to `high`: (levels + 1,) each."""
    slope = np.hypot(cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1))
    level = ((values - low) / (high - low) * _CONTOUR_LEVELS).clip(0, _CONTOUR_LEVELS - 1).astype(np.int64)
    length, steepness = np.zeros(_CONTOUR_LEVELS + 1), np.zeros(_CONTOUR_LEVELS + 1)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        below, above = np.minimum(level[here], level[there]).ravel(), np.maximum(level[here], level[there]).ravel()
        steep = (slope[here] + slope[there]).ravel() / 2
        for weight, total in ((None, length), (steep, steepness)):  # a pair lies on the contours between its levels
            first, last = (np.bincount(side + 1, weight, _CONTOUR_LEVELS + 1) for side in (below, above))
            total += first - last
    return _smooth_profile(np.cumsum(length)), _smooth_profile(np.cumsum(steepness))


def _nested_share(foreground: np.ndarray, inner: np.ndarray) -> float:
    """Share of the foreground's area in components that contain an inner pixel; both (H, W) bool.

    Where cytoplasm surrounds nuclei it is large; where some nuclei are darker than others it is small.
    """
    count, components = cv2.connectedComponents(foreground.astype(np.uint8), connectivity=4)
    area = np.bincount(components.ravel(), minlength=count)
    nested = np.bincount(components.ravel(), inner.ravel(), minlength=count) > 0
    return area[1:][nested[1:]].sum() / area[1:].sum()


def _smooth_profile(profile: np.ndarray) -> np.ndarray:
    """Smooth a profile over levels (n,) by a Gaussian with sigma 2."""
    return cv2.GaussianBlur(np.ascontiguousarray(profile[None], np.float64), (0, 0), 2.0)[0]

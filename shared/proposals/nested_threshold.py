"""Threshold dark objects that lie within a dark foreground, such as nuclei in stained cytoplasm."""

import cv2
import numpy as np

NESTED, INNER = 1.2, 0.4
"""How many times as steep another level's contour must be for the foreground to be taken as holding darker objects, and
which share of its area they may have. DSB's cytology: 1.27 to 3.1, 0.02 to 0.33. Its tissue: medians of 1.04 to 1.06,
and where it is above 1.2, 0.45 to 0.55; but for one image (1.45, 0.35) which is the better for it, too."""
HOLDING = 0.5
"""Share of the dark foreground's area that must be of pieces which hold a darker object."""
LEVELS = 64
"""Levels whose contours are compared."""
LENGTH_WEIGHT = 0.25
"""Power of a contour's length beside its mean slope: a speck's contour may be the steepest by chance."""


def nested_threshold(values: np.ndarray, threshold: float) -> float:
    """Threshold (in units of `values`) for dark objects within a dark foreground; `threshold` itself where none show.

    values: (H, W) float32, smooth; threshold: Otsu's. The contours of 64 levels are compared by their mean slope, times
    a power of their length; what lies on the border of Otsu's foreground must be `NESTED` times less steep, and what is
    darker still no more than the share `INNER` of it.
    """
    slope = np.hypot(cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1))
    low, high = (float(value) for value in np.percentile(values, [0.1, 99.9]))
    if not high > low:
        return threshold
    level = ((values - low) / (high - low) * LEVELS).clip(0, LEVELS - 1).astype(np.int64)
    length, steepness = np.zeros(LEVELS + 1), np.zeros(LEVELS + 1)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        below, above = np.minimum(level[here], level[there]).ravel(), np.maximum(level[here], level[there]).ravel()
        steep = (slope[here] + slope[there]).ravel() / 2
        for weight, total in ((None, length), (steep, steepness)):  # a pair lies on the contours between its levels
            total += np.bincount(below + 1, weight, LEVELS + 1) - np.bincount(above + 1, weight, LEVELS + 1)
    length, steepness = (_smooth(np.cumsum(total)) for total in (length, steepness))
    mean = steepness / np.maximum(length, 1)
    score = np.where(length >= LEVELS, mean * length**LENGTH_WEIGHT, 0)[1:LEVELS]
    best = int(score.argmax()) + 1
    found = low + best / LEVELS * (high - low)
    at_otsu = mean[int(np.clip(round((threshold - low) / (high - low) * LEVELS), 0, LEVELS))]
    inner = (values < found).sum() / max(1, (values < threshold).sum())
    if found >= threshold or mean[best] < NESTED * at_otsu or inner > INNER:
        return threshold
    # in cytoplasm there is a nucleus; that a few of many nuclei are darker than the rest is no nesting
    count, pieces = cv2.connectedComponents((values < threshold).astype(np.uint8), connectivity=4)
    area = np.bincount(pieces.ravel(), minlength=count)
    holds = np.bincount(pieces.ravel(), (values < found).ravel(), minlength=count) > 0
    return found if area[1:][holds[1:]].sum() >= HOLDING * area[1:].sum() else threshold


def _smooth(profile: np.ndarray) -> np.ndarray:
    """Gaussian of two levels over a profile (n,)."""
    return cv2.GaussianBlur(np.ascontiguousarray(profile[None], np.float64), (0, 0), 2.0)[0]

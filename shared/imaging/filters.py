"""Filter a grey plane: smoothing, local standard deviation, local means of two classes."""

import math

import cv2
import numpy as np

WINDOW = 3.0
"""px; standard deviation of the window of the local standard deviation."""
_MIN_STD = 0.01
"""Added to the standard deviation, in normalised intensity: noise far below it does not count as texture."""
BALANCE_BRIGHT, BALANCE_DARK = 0.4, 0.5
"""Position of the border between the means of background (0) and foreground (1), for bright and for dark objects."""
_WINDOW_RADII, _MIN_SIGMA, _MAX_SIGMA = 0.7, 2.0, 24.0
"""Sigma of the windows of `local_means` in radii of the objects, and its limits in px."""
_GLOBAL_WEIGHT = 0.01
"""Weight of the whole image's class means relative to those of a full window."""


def smooth(plane: np.ndarray) -> np.ndarray:
    """Smooth a plane (H, W) float32 by a Gaussian with sigma 1 px."""
    return cv2.GaussianBlur(plane, (0, 0), 1.0)


def log_local_std(plane: np.ndarray, window: float = WINDOW) -> np.ndarray:
    """Compute the texture of a plane (H, W) float32: the logarithm of its local standard deviation, (H, W) float32.

    window: standard deviation in px of the Gaussian window.
    """
    mean = cv2.GaussianBlur(plane, (0, 0), window)
    variance = cv2.GaussianBlur(plane * plane, (0, 0), window) - mean * mean
    return np.log(np.sqrt(np.maximum(variance, 0)) + _MIN_STD)


def local_means(
    values: np.ndarray, mask: np.ndarray, low: float, high: float, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Means of a plane (H, W) float32 outside and inside a mask, each (H, W), in Gaussian windows of `sigma` px.

    Where a window holds little of a class, its mean tends to that of the whole image, `low` or `high`.
    """
    weight, total = _blur(mask.astype(np.float32), sigma), _blur(values * mask, sigma)
    inside = (total + _GLOBAL_WEIGHT * high) / (weight + _GLOBAL_WEIGHT)
    outside = (_blur(values, sigma) - total + _GLOBAL_WEIGHT * low) / (1 - weight + _GLOBAL_WEIGHT)
    return outside, inside


def count_transitions(mask: np.ndarray) -> int:
    """Count the pairs of neighbouring pixels, along rows and columns, in which a mask (H, W) changes."""
    return int(np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1]))


def window_sigma(area: int, transitions: int) -> float:
    """Sigma in px of the windows of `local_means` for a mask of `area` px² with `transitions`: a share of its radius.

    The radius of the objects is estimated as twice the area over the perimeter (Crofton's, from the transitions), which
    needs no splitting of touching objects.
    """
    return min(max(_WINDOW_RADII * 2 * area / max(transitions * math.pi / 4, 1), _MIN_SIGMA), _MAX_SIGMA)


def _blur(plane: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)

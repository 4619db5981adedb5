"""Threshold by the local means of foreground and background: Chan & Vese 2001, Lankton & Tannenbaum 2008."""

import math

import cv2
import numpy as np

BALANCE_BRIGHT, BALANCE_DARK = 0.4, 0.5
"""Position of the border between the means of background (0) and foreground (1), for bright and for dark objects."""
UNDECIDED_PROBABILITY = 0.4
"""Probability where an image shows no two classes: background, with low confidence."""
_STEEPNESS = 6.0
"""Logit between the two class means: they get probabilities near 0.05 and 0.95."""
_WINDOW_RADII, _MIN_SIGMA, _MAX_SIGMA = 0.7, 2.0, 24.0
"""Sigma of the windows of `local_means` in radii of the objects, and its limits in px."""
_GLOBAL_WEIGHT = 0.01
"""Weight of the whole image's class means relative to those of a full window."""
_ITERATIONS = 6
_MIN_CONTRAST_SHARE = 0.25
"""Lower limit of the local contrast between the classes, as a share of the image's."""


def local_probability(values: np.ndarray, threshold: float, balance: float) -> np.ndarray:
    """Foreground probability (H, W) float32 by the distances of a value to the local means of both classes.

    The piecewise smooth model of Chan & Vese (2001, IEEE TIP 10:266) with means in Gaussian windows (Lankton &
    Tannenbaum 2008, IEEE TIP 17:2029), without its term for the length of the border. It finds dim objects beside
    bright ones, and does not take the haze between close objects for foreground.
    values: (H, W) float32, higher in the foreground; threshold: start of the iteration; balance: position of the border
    between the means of background (0) and foreground (1).
    """
    mask = values > threshold
    if mask.all() or not mask.any():
        return np.full(values.shape, UNDECIDED_PROBABILITY, np.float32)
    low, high = float(values[~mask].mean()), float(values[mask].mean())
    for _ in range(_ITERATIONS):
        sigma = window_sigma(int(mask.sum()), count_transitions(mask))
        outside, inside = local_means(values, mask, low, high, sigma)
        border = outside + balance * (inside - outside)
        mask = values > border
    return sigmoid((values - border) / np.maximum(inside - outside, _MIN_CONTRAST_SHARE * (high - low)))


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


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function of `_STEEPNESS` times x: float32; x = -0.5 and 0.5 become 0.05 and 0.95."""
    return (1 / (1 + np.exp(-_STEEPNESS * x.astype(np.float32)))).astype(np.float32)


def _blur(plane: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)

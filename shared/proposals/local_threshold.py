"""Threshold by local means of foreground and background: Chan & Vese 2001, Lankton & Tannenbaum 2008."""

import math

import cv2
import numpy as np

STEEPNESS = 6.0
"""Logit between the two class means of a proposal: they get probabilities near 0.05 and 0.95."""
LOCAL_WINDOW, LEAST_SIGMA, MOST_SIGMA = 0.7, 2.0, 24.0
"""Sigma of the windows of `local_means`, in radii of the objects; and its limits, in px."""
LOCAL_PRIOR, LOCAL_STEPS = 0.01, 6
"""Of `local_probability`: weight of the whole image's means beside a full window's; iterations."""
LEAST_CONTRAST = 0.25
"""Share of the image's contrast between the classes, below which a local one counts as this much."""
BALANCE_BRIGHT, BALANCE_DARK = 0.4, 0.5
"""Where the border lies between the means of background (0) and foreground (1)."""
UNDECIDED = 0.4
"""Probability where an image shows no two classes: background, but not surely."""


def local_probability(values: np.ndarray, threshold: float, balance: float) -> np.ndarray:
    """Foreground probability (H, W) float32 by how near a value is to the means of either class around it.

    The piecewise smooth model of Chan & Vese (2001, IEEE TIP 10:266) with means in Gaussian windows (Lankton &
    Tannenbaum 2008, IEEE TIP 17:2029), without its term for the length of the border. Dim objects beside bright ones
    are found, and the haze between close ones is not taken for them. values: (H, W) float32, of the foreground higher;
    threshold: what to start from; balance: where between background and foreground the border lies, 0 to 1.
    """
    mask = values > threshold
    if mask.all() or not mask.any():
        return np.full(values.shape, UNDECIDED, np.float32)
    low, high = float(values[~mask].mean()), float(values[mask].mean())
    for _ in range(LOCAL_STEPS):
        outside, inside = local_means(values, mask, low, high, window(int(mask.sum()), changes(mask)))
        border = outside + balance * (inside - outside)
        mask = values > border
    return sigmoid((values - border) / np.maximum(inside - outside, LEAST_CONTRAST * (high - low)))


def local_means(
    values: np.ndarray, mask: np.ndarray, low: float, high: float, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a plane (H, W) float32 outside a mask and inside, each (H, W), in Gaussian windows of `sigma` px.

    Where a window holds little of a class, its mean tends to that of the whole image, `low` or `high`.
    """
    weight, total = _window(mask.astype(np.float32), sigma), _window(values * mask, sigma)
    inside = (total + LOCAL_PRIOR * high) / (weight + LOCAL_PRIOR)
    outside = (_window(values, sigma) - total + LOCAL_PRIOR * low) / (1 - weight + LOCAL_PRIOR)
    return outside, inside


def changes(mask: np.ndarray) -> int:
    """How often a mask (H, W) changes along its rows and columns."""
    return int(np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1]))


def window(area: int, changes: int) -> float:
    """Sigma in px of the windows that suit a mask of so many px² with so many changes: a share of its objects' radius.

    That is taken as twice the area over the perimeter (Crofton's, from the changes), which needs no parting of objects
    that touch.
    """
    return min(max(LOCAL_WINDOW * 2 * area / max(changes * math.pi / 4, 1), LEAST_SIGMA), MOST_SIGMA)


def _window(plane: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function of `STEEPNESS` times x, float32."""
    return (1 / (1 + np.exp(-STEEPNESS * x.astype(np.float32)))).astype(np.float32)

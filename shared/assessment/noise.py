"""Tell an empty field, which holds only noise, from an image of anything."""

import cv2
import numpy as np

_LAG_PX, _MAX_CORRELATION = 4, 0.03
"""Distance at which pixels of noise have nothing in common any more, and what chance and slight blur leave of it."""
_WINDOW, _MAX_SPREAD = 2.0, 0.25
"""px, window of the local deviation; and the spread of its logarithm over an image of noise, up to 0.2 with blur."""
_FLAT_WINDOW = 16.0
"""px; the mean in windows of this size is subtracted before pixels are compared."""


def is_noise(plane: np.ndarray) -> bool:
    """Whether a grey plane (H, W) float32 holds only noise: no correlation over 4 px, and the same contrast everywhere.

    A plane of one value, or smaller than 16 px, is none.
    """
    if min(plane.shape) < 4 * _LAG_PX or float(np.ptp(plane)) == 0:
        return False
    return _correlation(plane) < _MAX_CORRELATION and _spread_of_contrast(plane) < _MAX_SPREAD


def _correlation(plane: np.ndarray) -> float:
    """Mean correlation of pixels at the lag along rows and columns."""
    flat = plane - cv2.GaussianBlur(plane, (0, 0), _FLAT_WINDOW)
    flat -= flat.mean()
    products = (flat[_LAG_PX:] * flat[:-_LAG_PX]).mean(), (flat[:, _LAG_PX:] * flat[:, :-_LAG_PX]).mean()
    return float(np.mean(products) / max(float((flat * flat).mean()), 1e-12))


def _spread_of_contrast(plane: np.ndarray) -> float:
    """Standard deviation of the logarithm of the local standard deviation."""
    mean = cv2.GaussianBlur(plane, (0, 0), _WINDOW)
    variance = cv2.GaussianBlur(plane * plane, (0, 0), _WINDOW) - mean * mean
    return float(np.log(np.sqrt(np.maximum(variance, 1e-12))).std())

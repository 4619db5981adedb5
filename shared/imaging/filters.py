"""Filter a grey plane: smoothing and local standard deviation."""

import cv2
import numpy as np

WINDOW = 3.0
"""px; standard deviation of the window of the local standard deviation."""
_MIN_STD = 0.01
"""Added to the standard deviation, in normalised intensity: noise far below it does not count as texture."""


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

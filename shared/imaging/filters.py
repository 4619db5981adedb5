"""Smooth a grey plane, and measure its local standard deviation."""

import cv2
import numpy as np

TEXTURE_SIGMA = 3.0
"""px, of the window of the local standard deviation."""
TEXTURE_FLOOR = 0.01
"""Standard deviation, in normalised intensity, below which texture does not count."""


def intensity(plane: np.ndarray) -> np.ndarray:
    """Grey plane (H, W), smoothed with sigma 1 px."""
    return cv2.GaussianBlur(plane, (0, 0), 1.0)


def texture(plane: np.ndarray) -> np.ndarray:
    """Logarithm of the local standard deviation of a grey plane (H, W)."""
    mean = cv2.GaussianBlur(plane, (0, 0), TEXTURE_SIGMA)
    variance = cv2.GaussianBlur(plane * plane, (0, 0), TEXTURE_SIGMA) - mean * mean
    return np.log(np.sqrt(np.maximum(variance, 0)) + TEXTURE_FLOOR)

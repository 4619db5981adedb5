"""Measure the image gradient, and how well a mask's border follows it."""

import cv2
import numpy as np

_SURROUNDINGS_SIDE = 15
"""px; side of the square around a border pixel that counts as its surroundings in `edge_score`."""


def gradient(plane: np.ndarray) -> np.ndarray:
    """Compute the gradient magnitude of a plane (H, W) float32 smoothed with sigma 1 px: (H, W) float32."""
    smoothed = cv2.GaussianBlur(plane, (0, 0), 1.0)
    return np.hypot(cv2.Sobel(smoothed, cv2.CV_32F, 1, 0), cv2.Sobel(smoothed, cv2.CV_32F, 0, 1))


def edge_score(mask: np.ndarray, gradient_magnitude: np.ndarray) -> float | None:
    """Divide the mean gradient on a mask's border by the mean gradient around it; None where there is no border.

    1 means that the border does not follow edges of the image; the more above 1, the better it does.
    mask: (H, W) uint8 {0, 1}; gradient_magnitude: (H, W) of `gradient`.
    """
    border, surroundings = (near_border(mask, side) for side in (3, _SURROUNDINGS_SIDE))
    if not border.any():
        return None
    return float(gradient_magnitude[border].mean() / max(float(gradient_magnitude[surroundings].mean()), 1e-9))


def near_border(mask: np.ndarray, side: int) -> np.ndarray:
    """Select the pixels within (side - 1) / 2 px of the border of a mask (H, W) uint8, inside and outside: bool."""
    kernel = np.ones((side, side), np.uint8)
    return cv2.dilate(mask, kernel) != cv2.erode(mask, kernel)

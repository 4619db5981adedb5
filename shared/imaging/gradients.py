"""Do a mask's borders lie where the image is steep? What the E-step and the gate ask of a proposal."""

import cv2
import numpy as np

BORDER_WINDOW = 15
"""px, side of the square around a border pixel that counts as its surroundings in `edge_score`."""


def gradient(plane: np.ndarray) -> np.ndarray:
    """Magnitude of the gradient of a grey plane (H, W) float32, smoothed with sigma 1 px."""
    smooth = cv2.GaussianBlur(plane, (0, 0), 1.0)
    return np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))


def edge_score(mask: np.ndarray, slope: np.ndarray) -> float | None:
    """How much steeper the image is on a mask's border than around it; 1: no steeper. None where there is no border.

    mask: (H, W) uint8 {0, 1}; slope: (H, W) of `gradient`.
    """
    border, around = (near_border(mask, side) for side in (3, BORDER_WINDOW))
    if not border.any():
        return None
    return float(slope[border].mean() / max(float(slope[around].mean()), 1e-9))


def near_border(mask: np.ndarray, side: int) -> np.ndarray:
    """Pixels within (side - 1) / 2 px of the mask's border, on either side: (H, W) bool."""
    kernel = np.ones((side, side), np.uint8)
    return cv2.dilate(mask, kernel) != cv2.erode(mask, kernel)

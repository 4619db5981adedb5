"""Estimate the diameter of the typical object of a foreground mask, without splitting touching objects."""

import cv2
import numpy as np


def typical_diameter(mask: np.ndarray) -> float | None:
    """Estimate an object's diameter in px from a mask (H, W) uint8 {0, 1}; None for an empty or a full mask.

    Four times the mean distance to the mask's edge, where each pixel counts by that distance: exact for a disc, and
    large objects outweigh specks. Two discs that touch count as two. Elongated objects count as narrower than a disc
    of their area: cells of 81 to 91 px equivalent diameter give 59 to 74 px, round nuclei of 19 to 36 px give 18 to 29.
    """
    if mask.all() or not mask.any():
        return None
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    squared = np.rint(np.square(distance, dtype=np.float64))  # whole numbers: OpenCV's last bit varies
    return float(4 * squared.sum() / np.sqrt(squared).sum())

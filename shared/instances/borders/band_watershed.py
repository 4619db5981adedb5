"""Watershed between markers that are close to each other: Beucher & Lantuejoul 1979."""

import cv2
import numpy as np
from skimage.segmentation import watershed

BACKGROUND, FOREGROUND = 1, 2
"""Markers; 0: undecided."""


def band_watershed(levels: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """Flood the undecided pixels of an image from markers of two classes: mask (H, W) uint8 {0, 1} of the foreground.

    levels: (H, W) of integers, such as a rounded gradient, so that equal images flood in the same order everywhere;
    markers: (H, W) of integers, 0, `BACKGROUND` or `FOREGROUND`. Only the undecided pixels and those next to them are
    flooded: the inside of the markers would take most of the time.
    """
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    band = cv2.dilate((markers == 0).astype(np.uint8), cross) > 0
    flooded = watershed(levels, np.where(band, markers, 0), mask=band)
    return (np.where(band, flooded, markers) == FOREGROUND).astype(np.uint8)

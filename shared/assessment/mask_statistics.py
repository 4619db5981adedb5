"""Statistics of a mask on its image: the shape of the objects, and their contrast to what surrounds them."""

import cv2
import numpy as np
from scipy.ndimage import find_objects

from shared.instances.distance import typical_diameter

RING_SHARE = 0.2
"""Width of the surroundings that a mask is compared with, in diameters of its objects."""
MIN_STRAIGHT_PX = 16


def solidity(labels: np.ndarray, min_area: float) -> float:
    """Mean solidity of the objects of a label image (H, W), weighted by their area; 0 where none has `min_area` px².

    Solidity: the area over that of the convex hull.
    """
    areas = []
    for number, box in enumerate(find_objects(labels), 1):
        if box is None:
            continue
        contours, _ = cv2.findContours((labels[box] == number).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        areas += [(cv2.contourArea(contour), cv2.contourArea(cv2.convexHull(contour))) for contour in contours]
    counted = [(area, hull) for area, hull in areas if area >= min_area and hull > 0]
    total = sum(area for area, _ in counted)
    return sum(area * area / hull for area, hull in counted) / total if total > 0 else 0.0


def surroundings(mask: np.ndarray, diameter: float) -> np.ndarray:
    """Ring around a mask (H, W) uint8 {0, 1}, as wide as a share of the objects' diameter in px: (H, W) bool."""
    side = 2 * max(1, round(RING_SHARE * diameter)) + 1
    grown = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return (grown > 0) & (mask == 0)


def separability(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the variance of all values that is between two groups of them, (n,) and (m,): 0 to 1."""
    if not len(one) or not len(other):
        return 0.0
    total = float(np.concatenate([one, other]).var())
    if total == 0:
        return 0.0
    share = len(one) / (len(one) + len(other))
    return share * (1 - share) * float(one.mean() - other.mean()) ** 2 / total


def straight_share(labels: np.ndarray) -> float:
    """Share of a label image's foreground border that runs straight along rows or columns for long: 0 to 1.

    Long: at least `MIN_STRAIGHT_PX`, and half of the objects' diameter. Borders of cells are round; masks that end
    where two tiles of a prediction meet are not.
    """
    mask = (labels > 0).astype(np.uint8)
    diameter = typical_diameter(mask)
    if diameter is None:
        return 0.0
    length = max(MIN_STRAIGHT_PX, round(diameter / 2))
    straight = border = 0
    for plane in (mask, mask.T):
        change = np.ascontiguousarray(plane[1:] != plane[:-1]).view(np.uint8)
        border += int(np.count_nonzero(change))
        straight += int(np.count_nonzero(cv2.morphologyEx(change, cv2.MORPH_OPEN, np.ones((1, length), np.uint8))))
    return straight / max(border, 1)

"""Move a mask's border by a few pixels to where the image changes.

A network draws borders where it learned them to be, some pixels off, and closes narrow gaps between cells. Two methods
correct this, one for each kind of image set that `refine_masks` distinguishes (RESULTS.md, "Constants"):

- `means`, where cells differ from their surroundings in intensity: one step of the local model of
  `shared.proposals.local_threshold.local_probability` assigns every pixel near the border to the class whose local mean
  is nearer.
- `edges`, where they do not: watershed of the gradient (Beucher & Lantuejoul 1979) in a band along the border.
"""

import cv2
import numpy as np

from shared.artifacts.postprocessing import BorderRefinement
from shared.imaging.filters import (
    BALANCE_BRIGHT,
    BALANCE_DARK,
    count_transitions,
    local_means,
    smooth,
    window_sigma,
)
from shared.imaging.gradients import gradient
from shared.imaging.row_strips import RowStrip, row_strips
from shared.instances.borders.band_watershed import BACKGROUND, FOREGROUND, band_watershed
from shared.instances.distance import edge_distance

MAX_MEANS_PX = 3
"""px that `means` moves the border outwards, at most: what the mask leaves out stays out."""
_MAX_INWARDS_PX, _MAX_OUTWARDS_PX = 4.0, 2.0
"""px that `edges` moves the border, at most (RESULTS.md, "Constants")."""
_RIDGE_SHARE, _RIDGE_SIDE = 0.9, 9
"""Pixels with this share of the largest distance to the border in a square of this side stay foreground, so that thin
objects do not vanish."""
_GRADIENT_LEVELS = 512
"""Levels that a gradient of 1 is rounded to before the watershed."""
_MARGIN = 104
"""px; upper bound of the distance over which a pixel affects another."""


def refine_border(image: np.ndarray, mask: np.ndarray, method: BorderRefinement) -> np.ndarray:
    """Move the border of a mask (H, W) uint8 {0, 1} to where the image (H, W, C) changes: a mask of the same form.

    `none` returns the mask unchanged, as do masks of one value.
    """
    if method == "none" or not mask.any() or mask.all():
        return mask
    return _refine_by_means(image, mask) if method == "means" else _refine_by_edges(image, mask)


def _refine_by_means(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    low, high, area = _class_means(image, mask)
    sigma = window_sigma(area, count_transitions(mask))
    sign, balance = (1, BALANCE_BRIGHT) if high > low else (-1, BALANCE_DARK)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * MAX_MEANS_PX + 1, 2 * MAX_MEANS_PX + 1))
    result = np.empty_like(mask)
    for strip in row_strips(image, mask, _MARGIN):
        values = sign * smooth(strip.plane)
        outside, inside = local_means(values, strip.mask, sign * low, sign * high, sigma)
        refined = (values > outside + balance * (inside - outside)) & (cv2.dilate(strip.mask, disc) > 0)
        result[strip.rows] = refined[strip.inner]
    return result


def _class_means(image: np.ndarray, mask: np.ndarray) -> tuple[float, float, int]:
    """Mean intensity outside and inside a mask, and its area in px²."""
    sums, count = np.zeros(2), np.zeros(2, np.int64)
    for strip in row_strips(image, mask, _MARGIN):
        values, inside = smooth(strip.plane)[strip.inner], strip.mask[strip.inner].ravel()
        sums += np.bincount(inside, values.ravel(), 2)
        count += np.bincount(inside, minlength=2)
    low, high = sums / count
    return low, high, int(count[1])


def _refine_by_edges(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    result = np.empty_like(mask)
    for strip in row_strips(image, mask, _MARGIN):
        result[strip.rows] = _flood_band(strip)[strip.inner]
    return result


def _flood_band(strip: RowStrip) -> np.ndarray:
    """Mask (h, w) uint8 {0, 1} whose border follows the steepest gradient within a band along the strip's border."""
    inside = edge_distance(strip.mask)
    outside = edge_distance(1 - strip.mask)
    ridge = inside >= _RIDGE_SHARE * cv2.dilate(inside, np.ones((_RIDGE_SIDE, _RIDGE_SIDE), np.uint8))
    foreground = (inside > _MAX_INWARDS_PX) | (ridge & (inside > 0))
    markers = np.where(foreground, FOREGROUND, np.where(outside > _MAX_OUTWARDS_PX, BACKGROUND, 0))
    return band_watershed(np.rint(_GRADIENT_LEVELS * gradient(strip.plane)).astype(np.int32), markers)

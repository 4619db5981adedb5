"""A mask's border, moved by a few pixels to where the image changes.

A network draws the border where it has learned that borders are, some pixels on the wrong side, and closes narrow gaps
between cells. Two ways to put that right, for the two kinds of sets that `refine_masks` tells apart:

- `means`, where cells differ from what is around them in intensity: one step of the local model of
  `shared.proposals.local_threshold.local_probability` takes every pixel near the border to the class whose mean around it is nearer.
  Dice and F1 of a segmentor without it and with it: fluorescence .926, .884 and .929, .890; tissue .848, .661 and .854,
  .664.
- `edges`, where they do not: watershed of the gradient (Beucher & Lantuejoul 1979) in a band along the border. Phase
  contrast: .730, .523 and .745, .557.
"""

from typing import Literal

import cv2
import numpy as np
from skimage.segmentation import watershed

from shared.imaging.filters import intensity
from shared.imaging.gradients import gradient
from shared.imaging.row_strips import Strip, strips
from shared.instances.distance import edge_distance
from shared.proposals.local_threshold import BALANCE_BRIGHT, BALANCE_DARK, changes, local_means, window

BorderRefinement = Literal["none", "means", "edges"]

REACH = 3
"""px that `means` moves the border outwards, at most: what the mask leaves out stays out."""
INWARDS, OUTWARDS = 4.0, 2.0
"""px that `edges` moves the border, at most. Dice and F1 on phase contrast inwards 3, 4, 5, 7: .745, .555; .745, .557;
.741, .548; .728, .502."""
RIDGE, RIDGE_SIDE = 0.9, 9
"""What is at least this share of the largest distance to the border in a square of so many px around it stays, so that
thin objects do not vanish."""
LEVELS = 512
"""Steps that a gradient of one is rounded to before the watershed, so that equal images flood in the same order."""
MARGIN = 104
"""px that bear on a pixel, at most."""


def refine_border(image: np.ndarray, mask: np.ndarray, how: BorderRefinement) -> np.ndarray:
    """Image (H, W, C) of any dtype, may be a memory map, and mask (H, W) uint8 {0, 1} -> mask (H, W) uint8 {0, 1}."""
    if how == "none" or not mask.any() or mask.all():
        return mask
    return _by_means(image, mask) if how == "means" else _by_edges(image, mask)


def _by_means(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    sums, count = np.zeros(2), np.zeros(2, np.int64)
    for strip in strips(image, mask, MARGIN):
        values, inside = intensity(strip.plane)[strip.inner], strip.mask[strip.inner].ravel()
        sums += np.bincount(inside, values.ravel(), 2)
        count += np.bincount(inside, minlength=2)
    low, high = sums / count
    sigma = window(int(count[1]), changes(mask))
    side, balance = (1, BALANCE_BRIGHT) if high > low else (-1, BALANCE_DARK)
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * REACH + 1, 2 * REACH + 1))
    result = np.empty_like(mask)
    for strip in strips(image, mask, MARGIN):
        values = side * intensity(strip.plane)
        outside, inside = local_means(values, strip.mask, side * low, side * high, sigma)
        new = (values > outside + balance * (inside - outside)) & (cv2.dilate(strip.mask, near) > 0)
        result[strip.rows] = new[strip.inner]
    return result


def _by_edges(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    result = np.empty_like(mask)
    for strip in strips(image, mask, MARGIN):
        result[strip.rows] = _flooded(strip)[strip.inner]
    return result


def _flooded(strip: Strip) -> np.ndarray:
    """The mask (h, w) uint8 {0, 1} whose border follows the steepest gradient within the band."""
    within = edge_distance(strip.mask)
    beyond = edge_distance(1 - strip.mask)
    ridge = within >= RIDGE * cv2.dilate(within, np.ones((RIDGE_SIDE, RIDGE_SIDE), np.uint8))
    markers = np.where((within > INWARDS) | (ridge & (within > 0)), 2, np.where(beyond > OUTWARDS, 1, 0))
    levels = np.rint(LEVELS * gradient(strip.plane)).astype(np.int32)
    # only what lies next to the band matters: the inside of a marker would take most of the time
    band = cv2.dilate((markers == 0).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) > 0
    flooded = watershed(levels, np.where(band, markers, 0), mask=band)
    return (np.where(band, flooded, markers) == 2).astype(np.uint8)

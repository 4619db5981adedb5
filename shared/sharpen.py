"""A mask's border, moved to where the image changes: for cells that differ from what is around them in intensity.

A network draws the border where it has learned that borders are, some pixels on the wrong side, and closes narrow gaps
between cells. One step of the local model of `shared.proposals.local_probability` from its mask takes every pixel near
the border to the class whose mean around it is nearer. Dice and F1 of a segmentor without it and with it: fluorescence
.926, .884 and .929, .890; tissue .848, .661 and .854, .664. Where cells are told by texture it harms.
"""

import cv2
import numpy as np

from shared.proposals import BALANCE_BRIGHT, BALANCE_DARK, changes, intensity, local_means, window
from shared.strips import strips

REACH = 3
"""px that the border moves outwards, at most: what the mask leaves out stays out."""
MARGIN = 104
"""px that bear on a pixel, at most."""


def sharpened(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Image (H, W, C) of any dtype, may be a memory map, and mask (H, W) uint8 {0, 1} -> mask (H, W) uint8 {0, 1}."""
    sums, count = np.zeros(2), np.zeros(2, np.int64)
    for strip in strips(image, mask, MARGIN):
        values, inside = intensity(strip.plane)[strip.inner], strip.mask[strip.inner].ravel()
        sums += np.bincount(inside, values.ravel(), 2)
        count += np.bincount(inside, minlength=2)
    if not count.all():
        return mask
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

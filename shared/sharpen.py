"""A mask's border, moved to where the image changes: for cells that differ from what is around them in intensity.

A network draws the border where it has learned that borders are, some pixels on the wrong side, and closes narrow gaps
between cells. One step of the local model of `shared.proposals.local_probability` from its mask takes every pixel near
the border to the class whose mean around it is nearer. Held-out Dice and F1 of a segmentor without it and with it:
fluorescence .875, .827 and .887, .836; tissue .876, .670 and .879, .699. Where cells are told by texture it harms.
"""

import cv2
import numpy as np

from shared.proposals import BALANCE_BRIGHT, BALANCE_DARK, intensity, local_means
from shared.strips import strips

SIGMA = 5.0
"""px, of the window; F1 at 4, 5, 6, 8: tissue .695, .699, .698, .684, fluorescence .838, .836, .836, .836."""
REACH = 3
"""px that the border moves outwards, at most: what the mask leaves out stays out."""
MARGIN = 32
"""px that bear on a pixel, at most."""


def sharpened(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Image (H, W, C) of any dtype, may be a memory map, and mask (H, W) uint8 {0, 1} -> mask (H, W) uint8 {0, 1}."""
    sums, count = np.zeros(2), np.zeros(2)
    for strip in strips(image, mask, MARGIN):
        values, inside = intensity(strip.plane)[strip.inner], strip.mask[strip.inner].ravel()
        sums += np.bincount(inside, values.ravel(), 2)
        count += np.bincount(inside, minlength=2)
    if not count.all():
        return mask
    low, high = sums / count
    side, balance = (1, BALANCE_BRIGHT) if high > low else (-1, BALANCE_DARK)
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * REACH + 1, 2 * REACH + 1))
    result = np.empty_like(mask)
    for strip in strips(image, mask, MARGIN):
        values = side * intensity(strip.plane)
        outside, inside = local_means(values, strip.mask, side * low, side * high, SIGMA)
        new = (values > outside + balance * (inside - outside)) & (cv2.dilate(strip.mask, near) > 0)
        result[strip.rows] = new[strip.inner]
    return result

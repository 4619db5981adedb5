"""An image and its mask a few hundred rows at a time, for what must not hold a whole slide in memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shared.imaging.grey import NORMALISATION

ROWS = 512
"""Rows that are worked on at a time."""


@dataclass
class Strip:
    """Some rows of an image, and those beside them that bear on them."""

    rows: slice
    """Which rows of the image."""
    inner: slice
    """Where they are in `plane` and `mask`."""
    plane: np.ndarray
    """(h, W) float32, grey, near [0, 1]; normalised by the whole image's percentiles."""
    mask: np.ndarray
    """(h, W) uint8 {0, 1}"""


def strips(image: np.ndarray, mask: np.ndarray, margin: int) -> Iterator[Strip]:
    """Strips of an image (H, W, C) of any dtype and mask (H, W), with `margin` rows on either side where there are any.

    What is computed of a strip's inner rows from at most so many rows around each does not depend on the strips.
    """
    limits = NORMALISATION.limits(image)
    for top in range(0, len(mask), ROWS):
        bottom = min(top + ROWS, len(mask))
        first, last = max(0, top - margin), min(len(mask), bottom + margin)
        plane = NORMALISATION.apply(image[first:last], limits).mean(axis=2)
        yield Strip(slice(top, bottom), slice(top - first, bottom - first), plane, mask[first:last])

"""Iterate over an image by strips of rows, so that temporary arrays stay small however large the image is."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shared.imaging.grey import NORMALISATION
from shared.imaging.normalise import Normalisation

ROWS = 512
"""Rows of a strip."""


@dataclass
class RowStrip:
    """Rows of an image's grey plane and mask, with a margin above and below."""

    rows: slice
    """The strip's rows in the image, without the margin."""
    inner: slice
    """The same rows in `plane` and `mask`."""
    plane: np.ndarray
    """(h, W) float32, grey, about [0, 1]; normalised by the whole image's percentiles."""
    mask: np.ndarray
    """(h, W) uint8 {0, 1}"""


def row_slices(height: int, rows: int | None = None) -> Iterator[slice]:
    """Yield slices of at most `rows` rows (`ROWS` by default) that cover `height` rows."""
    rows = rows or ROWS
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def row_strips(
    image: np.ndarray, mask: np.ndarray, margin: int, normalisation: Normalisation = NORMALISATION
) -> Iterator[RowStrip]:
    """Yield the strips of an image (H, W, C) of any dtype and a mask (H, W), with a margin of up to `margin` rows.

    A filter that reads no more than `margin` rows above and below a pixel gives the same values as on the whole image.
    """
    limits = normalisation.limits(image)
    for rows in row_slices(len(mask)):
        first, last = max(0, rows.start - margin), min(len(mask), rows.stop + margin)
        plane = normalisation.apply(image[first:last], limits).mean(axis=2)
        yield RowStrip(rows, slice(rows.start - first, rows.stop - first), plane, mask[first:last])

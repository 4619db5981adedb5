"""Windows of an image side by side on one small array, so that one call works on all of them."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

Window = tuple[slice, slice]
"""Rows and columns, with start and stop."""


def batches(windows: Sequence[Window], area: int) -> Iterator[range]:
    """Indices of successive windows that have at most `area` px² together, or of one window."""
    first = size = 0
    for i, (y, x) in enumerate(windows):
        own = (y.stop - y.start) * (x.stop - x.start)
        if i > first and size + own > area:
            yield range(first, i)
            first, size = i, 0
        size += own
    if first < len(windows):
        yield range(first, len(windows))


def lay_out(windows: Sequence[Window], gap: int) -> tuple[list[Window], tuple[int, int]]:
    """Places for windows, the tallest first, row upon row with `gap` px between them; and the sheet's shape.

    Places start at even rows and columns: OpenCV numbers components by blocks of 2 x 2 px.
    """
    sizes = [_even(y.stop - y.start + gap, x.stop - x.start + gap) for y, x in windows]
    width = max([math.isqrt(sum(h * w for h, w in sizes)), *(w for _, w in sizes)])
    places: list[Window] = list(windows)
    top = left = tallest = 0
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i][0]):
        h, w = sizes[i]
        if left + w > width:
            top, left, tallest = top + tallest, 0, 0
        y, x = windows[i]
        places[i] = slice(top, top + y.stop - y.start), slice(left, left + x.stop - x.start)
        left, tallest = left + w, max(tallest, h)
    return places, (top + tallest, width)


def gather(arrays: Sequence[np.ndarray], windows: Sequence[Window], gap: int) -> tuple[list[Window], list[np.ndarray]]:
    """Windows of equally large arrays on sheets of their own: their places, and the sheets, 0 between them."""
    places, shape = lay_out(windows, gap)
    sheets = [np.zeros(shape, array.dtype) for array in arrays]
    for window, place in zip(windows, places, strict=True):
        for array, sheet in zip(arrays, sheets, strict=True):
            sheet[place] = array[window]
    return places, sheets


def _even(height: int, width: int) -> tuple[int, int]:
    return height + height % 2, width + width % 2

"""Pack boxes of an image side by side on one small canvas, so that one call works on all of them."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

Box = tuple[slice, slice]
"""Rows and columns, with start and stop."""


def batches_by_area(boxes: Sequence[Box], max_area: int) -> Iterator[range]:
    """Yield the indices of successive boxes that have at most `max_area` px² together; a larger box comes alone."""
    first = total = 0
    for i, (y, x) in enumerate(boxes):
        area = (y.stop - y.start) * (x.stop - x.start)
        if i > first and total + area > max_area:
            yield range(first, i)
            first, total = i, 0
        total += area
    if first < len(boxes):
        yield range(first, len(boxes))


def pack(boxes: Sequence[Box], gap: int) -> tuple[list[Box], tuple[int, int]]:
    """Place boxes in shelves, the tallest first, `gap` px apart; returns their places and the canvas's shape.

    Places start at even rows and columns, because OpenCV numbers components by blocks of 2 x 2 px.
    """
    sizes = [_even(y.stop - y.start + gap, x.stop - x.start + gap) for y, x in boxes]
    width = max([math.isqrt(sum(h * w for h, w in sizes)), *(w for _, w in sizes)])
    places: list[Box] = list(boxes)
    top = left = tallest = 0
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i][0]):
        h, w = sizes[i]
        if left + w > width:
            top, left, tallest = top + tallest, 0, 0
        y, x = boxes[i]
        places[i] = slice(top, top + y.stop - y.start), slice(left, left + x.stop - x.start)
        left, tallest = left + w, max(tallest, h)
    return places, (top + tallest, width)


def pack_arrays(arrays: Sequence[np.ndarray], boxes: Sequence[Box], gap: int) -> tuple[list[Box], list[np.ndarray]]:
    """Copy boxes of arrays of one shape to canvases; returns the places and the canvases, which are 0 in between."""
    places, shape = pack(boxes, gap)
    canvases = [np.zeros(shape, array.dtype) for array in arrays]
    for box, place in zip(boxes, places, strict=True):
        for array, canvas in zip(arrays, canvases, strict=True):
            canvas[place] = array[box]
    return places, canvases


def _even(height: int, width: int) -> tuple[int, int]:
    return height + height % 2, width + width % 2

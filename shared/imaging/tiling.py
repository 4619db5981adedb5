"""Cut images into tiles on one fixed grid."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass


def tile_origins(size: int, tile: int, halo: int) -> list[int]:
    """First px of every tile's core along one axis of `size` px: multiples of tile - 2 halo, from 0.

    >>> tile_origins(500, tile=256, halo=32)
    [0, 192, 384]
    """
    core = tile - 2 * halo
    if core < 1:
        raise ValueError(f"a tile of {tile} px has no core left with {halo} px of halo on either side")
    return list(range(0, size, core))


LARGER = 1.25
"""How many times as large as asked for a tile may be, where fewer pixels are computed then."""
STEP = 16
"""px; sides of tiles are multiples of it."""


def tile_spans(size: int, tile: int, halo: int, unit: int = 1) -> list[tuple[int, int, int]]:
    """Tiles along one axis of `size` px, evenly spread: first px of each, and the span [start, stop) it answers for.

    Firsts are multiples of `unit`. None reaches beyond the image by a unit or more, unless the image is smaller than
    one tile. Where two meet, both have seen at least `halo` px beyond their spans.

    >>> tile_spans(500, tile=256, halo=32)
    [(0, 0, 189), (122, 189, 311), (244, 311, 500)]
    """
    if tile <= 2 * halo:
        raise ValueError(f"a tile of {tile} px has no core left with {halo} px of halo on either side")
    if size <= tile:
        return [(0, 0, size)]
    count = math.ceil((size - 2 * halo) / (tile - 2 * halo))
    last = -(-(size - tile) // unit)
    firsts = [round(i * last / (count - 1)) * unit for i in range(count)]
    cuts = [0, *((a + b + tile) // 2 for a, b in pairwise(firsts)), size]
    return [(first, *span) for first, span in zip(firsts, pairwise(cuts), strict=True)]


def fitting_tile(size: int, tile: int, halo: int, step: int = STEP) -> int:
    """Of the sides from `tile` to a quarter more, that of which the fewest px are computed along an axis of `size` px.

    256 px take two tiles of 144 px instead of three of 128.
    """
    sides = range(tile, int(LARGER * tile) + 1, step)
    return min(sides, key=lambda side: (len(tile_spans(size, side, halo)) * side, side))


def default_halo(tile: int) -> int:
    """px of halo for a tile: an eighth of it."""
    return tile // 8


def reflect_index(start: int, stop: int, size: int) -> np.ndarray:
    """Indices start..stop-1 folded into 0..size-1 by reflection at the outermost pixels, as often as needed."""
    index = np.arange(start, stop)
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = np.abs(index) % period
    return np.where(index < size, index, period - index)


def cut_tile(image: np.ndarray, y: int, x: int, tile: int, halo: int) -> np.ndarray:
    """The tile whose core begins at (y, x): (tile, tile, C), reflected where it reaches beyond the image (H, W, C)."""
    return cut(image, y - halo, x - halo, tile, tile)


def cut(image: np.ndarray, y: int, x: int, height: int, width: int) -> np.ndarray:
    """The rectangle (height, width, C) that begins at (y, x), reflected where it reaches beyond the image (H, W, C)."""
    if y >= 0 and x >= 0 and y + height <= image.shape[0] and x + width <= image.shape[1]:
        return image[y : y + height, x : x + width]
    rows = reflect_index(y, y + height, image.shape[0])
    columns = reflect_index(x, x + width, image.shape[1])
    return image[rows[:, None], columns]


def middle(plane: np.ndarray, most: int) -> np.ndarray:
    """The middle of an image (H, W, ...), `most` px on a side at most; a view."""
    top, left = (max(0, (length - most) // 2) for length in plane.shape[:2])
    return plane[top : top + most, left : left + most]


def tile_batches(size: tuple[int, int], tile: int, halo: int, batch_size: int) -> Iterator[list[tuple[int, int]]]:
    """Core origins (y, x) of an image of `size` (H, W), row by row, `batch_size` at a time."""
    ys, xs = (tile_origins(length, tile, halo) for length in size)
    origins = [(y, x) for y in ys for x in xs]
    for first in range(0, len(origins), batch_size):
        yield origins[first : first + batch_size]

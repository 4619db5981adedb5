"""Cut an image into overlapping tiles.

Two tilings serve two needs. `tile_batches` cuts on a fixed grid whose step does not depend on the image, so that the
token grids of all tiles continue one another. `tile_spans` spreads as few tiles as possible evenly over the image, so
that none computes much beyond it.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

MAX_TILE_GROWTH = 1.25
"""Largest factor by which `fitting_tile` enlarges a tile to compute fewer pixels in total."""
_SIDE_STEP = 16
"""px; sides of tiles are multiples of it."""


def tile_origins(size: int, tile: int, halo: int) -> list[int]:
    """Return the first px of every tile's core along an axis of `size` px: multiples of tile - 2 halo, from 0.

    >>> tile_origins(500, tile=256, halo=32)
    [0, 192, 384]
    """
    return list(range(0, size, _core(tile, halo)))


def tile_batches(size: tuple[int, int], tile: int, halo: int, batch_size: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the core origins (y, x) of an image of `size` (H, W), row by row, `batch_size` at a time."""
    ys, xs = (tile_origins(length, tile, halo) for length in size)
    origins = [(y, x) for y in ys for x in xs]
    for first in range(0, len(origins), batch_size):
        yield origins[first : first + batch_size]


def tile_spans(size: int, tile: int, halo: int, unit: int = 1) -> list[tuple[int, int, int]]:
    """Spread tiles evenly along an axis of `size` px: first px of each, and the span [start, stop) it is used for.

    First pixels are multiples of `unit`. No tile reaches a unit or more beyond the image, unless the image is smaller
    than one tile. Where two spans meet, both tiles cover at least `halo` px beyond them.

    >>> tile_spans(500, tile=256, halo=32)
    [(0, 0, 189), (122, 189, 311), (244, 311, 500)]
    """
    core = _core(tile, halo)
    if size <= tile:
        return [(0, 0, size)]
    count = math.ceil((size - 2 * halo) / core)
    last = -(-(size - tile) // unit)
    firsts = [round(i * last / (count - 1)) * unit for i in range(count)]
    cuts = [0, *((a + b + tile) // 2 for a, b in pairwise(firsts)), size]
    return [(first, *span) for first, span in zip(firsts, pairwise(cuts), strict=True)]


def fitting_tile(size: int, tile: int, halo: int, step: int = _SIDE_STEP) -> int:
    """Enlarge a tile by up to a quarter where that computes fewer px along an axis of `size` px; returns its side.

    256 px take two tiles of 144 px instead of three of 128.
    """
    sides = range(tile, int(MAX_TILE_GROWTH * tile) + 1, step)
    return min(sides, key=lambda side: (len(tile_spans(size, side, halo)) * side, side))


def default_halo(tile: int) -> int:
    """Return the halo of a tile in px: an eighth of its side."""
    return tile // 8


def reflect_index(start: int, stop: int, size: int) -> np.ndarray:
    """Fold the indices start..stop-1 into 0..size-1 by reflection at the outermost pixels, as often as needed."""
    index = np.arange(start, stop)
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = np.abs(index) % period
    return np.where(index < size, index, period - index)


def cut_tile(image: np.ndarray, y: int, x: int, tile: int, halo: int) -> np.ndarray:
    """Cut the tile whose core begins at (y, x) from an image (H, W, C), reflected beyond the border."""
    return cut_reflected(image, y - halo, x - halo, tile, tile)


def cut_reflected(image: np.ndarray, y: int, x: int, height: int, width: int) -> np.ndarray:
    """Cut (height, width, C) from (y, x) on out of an image (H, W, C), reflected beyond the image's border."""
    if y >= 0 and x >= 0 and y + height <= image.shape[0] and x + width <= image.shape[1]:
        return image[y : y + height, x : x + width]
    rows = reflect_index(y, y + height, image.shape[0])
    columns = reflect_index(x, x + width, image.shape[1])
    return image[rows[:, None], columns]


def centre_crop(image: np.ndarray, max_side: int) -> np.ndarray:
    """Return the centre of an image (H, W, ...), at most `max_side` px on a side; a view."""
    top, left = (max(0, (length - max_side) // 2) for length in image.shape[:2])
    return image[top : top + max_side, left : left + max_side]


def _core(tile: int, halo: int) -> int:
    """Side of a tile without its halo, in px."""
    if tile <= 2 * halo:
        raise ValueError(f"tile {tile} px, halo {halo} px: no core is left; the tile must exceed twice the halo")
    return tile - 2 * halo

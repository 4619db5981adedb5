"""Dense prediction by tiles on one fixed grid.

Two kinds of grid: predictions take tiles that stay within the image and fit its size (`tile_spans`); features take
equal cores with a halo all around (`tile_batches`), since what is taken off a feature depends on its place in the tile.

The grid and the batches depend on the image's size, the tile, the halo and the batch size alone. So an image that is
worked on piece by piece (`predict_blocks`, into a memory map) and one in memory (`predict`) give the same pixels.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from shared.models.network import Network, as_network
from shared.normalise import match_channels

if TYPE_CHECKING:
    from shared.models.encoder import EncoderConfig
    from shared.models.segmentor import Segmentor, SegmentorConfig


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


def predict(
    segmentor: "Segmentor",
    config: "SegmentorConfig",
    image: np.ndarray,
    *,
    tile: int,
    halo: int | None = None,
    batch_size: int,
    device: str,
) -> np.ndarray:
    """Foreground probability of one image: (H, W, C) of any dtype -> (H, W) float32 in [0, 1].

    segmentor: on `device` and in evaluation mode, see `shared.models.segmentor.for_prediction`.
    tile: px on a side as the network sees it (`shrink` of its config times as many of the image), halo included, a
    multiple of 16; up to a quarter more where that fits the image better. halo: px thrown away where two tiles meet
    (default: tile / 8).
    """
    return predict_maps(segmentor, config, image, maps=1, tile=tile, halo=halo, batch_size=batch_size, device=device)[0]


def predict_maps(
    segmentor: "Segmentor",
    config: "SegmentorConfig",
    image: np.ndarray,
    *,
    maps: int | None = None,
    tile: int,
    halo: int | None = None,
    batch_size: int,
    device: str,
) -> np.ndarray:
    """As `predict`, the first so many of the segmentor's maps (default: foreground, and depth where it has it).

    Returns (maps, H, W) float32 in [0, 1].
    """
    out = np.empty((maps or config.maps, *image.shape[:2]), np.float32)
    predict_blocks(segmentor, config, image, out, tile=tile, halo=halo, batch_size=batch_size, device=device)
    return out


def predict_blocks(
    segmentor: "Segmentor",
    config: "SegmentorConfig",
    image: np.ndarray,
    out: np.ndarray,
    *,
    tile: int,
    halo: int | None = None,
    batch_size: int,
    device: str,
) -> None:
    """As `predict`, into `out` (maps, H, W) float32: the first of the segmentor's maps, the foreground before others.

    Both `image` and `out` may be memory maps; one batch of tiles is held in memory beside them. Intensities are
    normalised by the whole image's percentiles.
    """
    from shared.models.segmentor import MapsOf

    network = as_network(MapsOf(segmentor, config.encoder.shrink, len(out)), device)
    fill(network, config.encoder, image, out, tile=tile, halo=halo, batch_size=batch_size)


def fill(
    network: Network,
    config: "EncoderConfig",
    image: np.ndarray,
    out: np.ndarray,
    *,
    tile: int,
    halo: int | None = None,
    batch_size: int,
) -> None:
    """As `predict_blocks`, by a network in any form; config: of its encoder."""
    halo = default_halo(tile) if halo is None else halo
    shrink = config.shrink
    tile, halo = tile * shrink, halo * shrink
    sides = [fitting_tile(length, tile, halo, STEP * shrink) for length in image.shape[:2]]
    rows, columns = (tile_spans(*of, halo, shrink) for of in zip(image.shape[:2], sides, strict=True))
    normalisation = config.normalisation
    limits = normalisation.limits(image)
    places = [(row, column) for row in rows for column in columns]
    for first in range(0, len(places), batch_size):
        some = places[first : first + batch_size]
        tiles = [normalisation.apply(cut(image, row[0], column[0], *sides), limits) for row, column in some]
        batch = np.stack([match_channels(item, config.channels) for item in tiles]).transpose(0, 3, 1, 2)
        maps = network(np.ascontiguousarray(batch))
        for ((y, *ys), (x, *xs)), planes in zip(some, maps, strict=True):
            out[:, slice(*ys), slice(*xs)] = planes[:, ys[0] - y : ys[1] - y, xs[0] - x : xs[1] - x]

"""Dense prediction by tiles on one fixed grid.

The grid and the batches depend on the image's size, the tile, the halo and the batch size alone. So an image that is
worked on piece by piece (`predict_blocks`, into a memory map) and one in memory (`predict`) give the same pixels.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from shared.normalise import match_channels, shrunk

if TYPE_CHECKING:
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
    rows = reflect_index(y - halo, y - halo + tile, image.shape[0])
    columns = reflect_index(x - halo, x - halo + tile, image.shape[1])
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

    tile: px on a side as the network sees it (`shrink` of its config times as many of the image), halo included, a
    multiple of 16; halo: px thrown away at each side (default: tile / 8).
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
    import torch

    from shared.models.segmentor import enlarged

    halo = default_halo(tile) if halo is None else halo
    shrink = config.encoder.shrink
    tile, halo = tile * shrink, halo * shrink
    core = tile - 2 * halo
    height, width = image.shape[:2]
    normalisation = config.encoder.normalisation
    limits = normalisation.limits(image)
    segmentor.eval().to(device)
    for origins in tile_batches((height, width), tile, halo, batch_size):
        tiles = [normalisation.apply(cut_tile(image, y, x, tile, halo), limits) for y, x in origins]
        tiles = [match_channels(shrunk(item, shrink), config.encoder.channels) for item in tiles]
        batch = np.stack(tiles).transpose(0, 3, 1, 2)
        with torch.inference_mode():
            logits = segmentor(torch.from_numpy(np.ascontiguousarray(batch)).to(device))
            logits = enlarged(logits[:, : len(out)], shrink)  # (N, maps, tile, tile)
            maps = torch.sigmoid(logits).float().cpu().numpy()
        for (y, x), planes in zip(origins, maps, strict=True):
            part = out[:, y : y + core, x : x + core]
            part[...] = planes[:, halo : halo + part.shape[1], halo : halo + part.shape[2]]

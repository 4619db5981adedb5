"""Dense prediction by tiles on one fixed grid.

Two kinds of grid: predictions take tiles that stay within the image and fit its size (`tile_spans`); features take
equal cores with a halo all around (`tile_batches`), since what is taken off a feature depends on its place in the tile.

The grid and the batches depend on the image's size, the tile, the halo and the batch size alone. So an image that is
worked on piece by piece (`predict_blocks`, into a memory map) and one in memory (`predict`) give the same pixels.
"""

from typing import TYPE_CHECKING

import numpy as np

from shared.imaging.normalise import match_channels
from shared.imaging.tiling import STEP, cut, default_halo, fitting_tile, tile_spans
from shared.models.network import Network, as_network

if TYPE_CHECKING:
    from shared.models.backbones.vit import EncoderConfig
    from shared.models.segmentor import Segmentor, SegmentorConfig


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

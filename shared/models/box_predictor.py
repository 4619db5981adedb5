"""Detect the objects of images of any size, tile by tile.

Tiles overlap by more than the side of most objects, so that each object is whole in one of them, and
`shared.instances.tile_merging` makes one object of what several tiles show. A tile that uses up the network's queries
is split into four and detected again. The tiles depend on the image's size and on the predictor's settings alone: an
image in memory and the same image as a memory map give the same objects.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from shared.imaging.normalise import match_channels
from shared.imaging.resize import resize
from shared.imaging.tiling import tile_spans
from shared.instances.detections import Detections, suppress_duplicates
from shared.instances.tile_merging import merge_tiles
from shared.models.config import DetectorConfig
from shared.models.detector import SIDE_MULTIPLE, Detector, ScoredBoxes, inference_copy
from shared.models.network import Network, as_network

MIN_SCORE = 0.01
"""Boxes of a lower score are dropped at once."""
DEFAULT_TILE_PX = 320
"""Side of a tile where the model's config states no training crop."""
FULL_FRACTION = 0.9
"""A tile is full where this fraction of the queries score at least the model's threshold."""
MAX_GROWTH = 1.125
"""An image longer than a tile by at most this factor is one tile. Larger tiles lose objects: they have no
more queries, and no training crop held as many objects (RESULTS.md, "Crowded images")."""
_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class _Tile:
    """A rectangle of an image, in px of the network's input, downsampling not yet applied."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True)
class BoxPredictor:
    """A detector, and the tiling of its images."""

    network: Network
    """Normalised tiles (N, C, H, W) -> scores (N, Q, K) in [0, 1] and boxes (N, Q, 4), as ScoredBoxes returns them."""
    config: DetectorConfig
    tile: int | None = None
    """Side of a tile after downsampling, px; a multiple of 32. None: the side of the training crops."""
    batch_size: int = 8
    """Tiles in a forward pass."""

    @classmethod
    def of(cls, detector: Detector, device: str, *, tile: int | None = None, batch_size: int = 8) -> "BoxPredictor":
        """Copy a detector to `device`, ready to predict."""
        network = as_network(ScoredBoxes(inference_copy(detector, device)), device)
        return cls(network, detector.config, tile, batch_size)

    def __call__(self, image: np.ndarray, um_per_px: float | None = None) -> Detections:
        """Detect the objects of an image (H, W, C) of any dtype, which may be a memory map.

        um_per_px: pixel size of this image; where it and that of the training images are known, tiles are resampled to
        the latter. Returns all objects of a score above `MIN_SCORE`, highest first, boxes in px of the image. Besides
        them, one batch of tiles is in memory. Intensities are normalised by the percentiles of the whole image.
        """
        trained = self.config.input.um_per_px
        scale = um_per_px / trained if um_per_px and trained else 1.0
        limits = self.config.input.normalisation.limits(image)
        waiting, tiles, found = self._grid(image, scale), [], []
        while waiting:
            split: list[_Tile] = []
            for batch in self._batches(waiting):
                for tile, (detections, is_full) in zip(batch, self._detect(image, batch, scale, limits), strict=True):
                    quarters = self._split(tile) if is_full else []
                    split += quarters
                    if not quarters:
                        tiles.append(_rectangle(tile, scale))
                        found.append(Detections(*detections, full_tiles=int(is_full)))
            waiting = split
        return merge_tiles(tiles, found, image.shape[:2], self.config.postprocessing.merge_iou)

    # --- tiles ----------------------------------------------------------------------------------------------------

    @property
    def _unit(self) -> int:
        """px; sides of tiles are multiples of it."""
        return SIDE_MULTIPLE * self.config.input.downsample

    @property
    def _side(self) -> int:
        """Side of a tile before downsampling, px."""
        side = self.tile or self.config.input.crop_px or DEFAULT_TILE_PX
        return max(_round_up(side * self.config.input.downsample, self._unit), self._min_side)

    @property
    def _min_side(self) -> int:
        """Side of the smallest tile that has a position for each query, before downsampling, px."""
        return self._unit * next(
            count for count in range(1, 10_000) if positions(count * SIDE_MULTIPLE) >= self.config.architecture.queries
        )

    @property
    def _overlap(self) -> int:
        """Of neighbouring tiles, before downsampling, px."""
        overlap = self.config.postprocessing.overlap_px
        wanted = overlap * self.config.input.downsample if overlap else self._side // 4
        return min(wanted, self._side // 2)

    def _grid(self, image: np.ndarray, scale: float) -> list[_Tile]:
        """Tiles that cover an image (H, W, C), row by row."""
        axes = []
        for length in (math.ceil(length * scale) for length in image.shape[:2]):
            whole = _round_up(length, self._unit)
            if length <= MAX_GROWTH * self._side:
                axes.append([(0, max(whole, self._min_side))])
            else:
                spans = tile_spans(length, self._side, self._overlap // 2)
                axes.append([(first, self._side) for first, *_ in spans])
        return [_Tile(y, x, height, width) for y, height in axes[0] for x, width in axes[1]]

    def _split(self, tile: _Tile) -> list[_Tile]:
        """Four smaller tiles, which overlap, that cover a tile; none where they would be too small."""
        sides = []
        for side in (tile.height, tile.width):
            overlap = min(self._overlap, side // 4)  # objects are small where there are many
            sides.append(min(side, max(_round_up((side + overlap) // 2, self._unit), self._min_side)))
        ys, xs = (
            sorted({first, first + old - new})
            for first, old, new in zip((tile.y, tile.x), (tile.height, tile.width), sides, strict=True)
        )
        return [_Tile(y, x, *sides) for y in ys for x in xs] if len(ys) * len(xs) > 1 else []

    def _batches(self, tiles: list[_Tile]) -> Iterator[list[_Tile]]:
        """Tiles of equal sides, `batch_size` at a time."""
        for _, group in groupby(tiles, key=lambda tile: (tile.height, tile.width)):
            equal = list(group)
            for first in range(0, len(equal), self.batch_size):
                yield equal[first : first + self.batch_size]

    # --- detection ------------------------------------------------------------------------------------------------

    def _detect(
        self, image: np.ndarray, tiles: list[_Tile], scale: float, limits: list[tuple[float, float]]
    ) -> Iterator[tuple[tuple[np.ndarray, np.ndarray, np.ndarray], bool]]:
        """Yield boxes, scores and classes of each tile, and whether it is full."""
        batch = np.stack([self._network_input(image, tile, scale, limits) for tile in tiles])
        for tile, scores, boxes in zip(tiles, *self.network(batch), strict=True):
            classes, best = scores.argmax(axis=1), scores.max(axis=1)
            is_full = (best >= self.config.postprocessing.score_threshold).mean() >= FULL_FRACTION
            x0, y0, x1, y1 = _rectangle(tile, scale)
            corners = boxes * np.array([x1 - x0, y1 - y0] * 2) + np.array([x0, y0] * 2)
            found = Detections(corners.astype(np.float32), best.astype(np.float32), classes.astype(np.int64))
            found = found.above(MIN_SCORE)
            if self.config.postprocessing.nms_iou is not None:
                found = suppress_duplicates(found, self.config.postprocessing.nms_iou)
            yield (found.boxes, found.scores, found.classes), bool(is_full)

    def _network_input(
        self, image: np.ndarray, tile: _Tile, scale: float, limits: list[tuple[float, float]]
    ) -> np.ndarray:
        """Cut a tile from an image (H, W, C) -> (C, tile.height, tile.width) float32, normalised.

        Beyond the image it is 0, as in training.
        """
        x0, y0, x1, y1 = _rectangle(tile, scale)
        part = self.config.input.normalisation.apply(image[y0:y1, x0:x1], limits)
        part = match_channels(part, self.config.input.channels)
        below, right = y1 - y0 - part.shape[0], x1 - x0 - part.shape[1]
        part = np.pad(part, ((0, below), (0, right), (0, 0)))
        return np.ascontiguousarray(resize(part, (tile.height, tile.width)).transpose(2, 0, 1))


def positions(side: int) -> int:
    """Number of places at which a detector looks for objects in a square tile of `side` px, after downsampling."""
    return sum((side // stride) ** 2 for stride in _STRIDES)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _rectangle(tile: _Tile, scale: float) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a tile in px of an image that is resampled by `scale`."""
    y0, x0, y1, x1 = (round(corner / scale) for corner in (tile.y, tile.x, tile.y + tile.height, tile.x + tile.width))
    return x0, y0, x1, y1

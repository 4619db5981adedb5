"""Predict images of any size, tile by tile on one fixed grid.

The grid and the batches depend on the image's size, the tile, the halo and the batch size alone. So an image that is
predicted into a memory map and one in memory give the same pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from shared.imaging.normalise import match_channels
from shared.imaging.tiling import STEP, cut, default_halo, fitting_tile, tile_spans
from shared.models.config import ModelInput
from shared.models.network import Network, as_network
from shared.models.segmentor import ProbabilityMaps, Segmentor, for_prediction


@dataclass(frozen=True)
class TiledPredictor:
    """A network that gives maps of its input's size, and how images are cut up for it."""

    network: Network
    """Normalised tiles (N, C, H, W) -> maps (N, M, H, W) in [0, 1], in any form: PyTorch, ONNX, TensorRT."""
    input: ModelInput
    maps: int
    """Maps that the network gives: M."""
    tile: int = 128
    """px on the side of a tile as the network sees it, halo included, a multiple of 16; up to a quarter more where that
    fits the image better."""
    batch_size: int = 16
    """Tiles in a forward pass."""
    halo: int | None = None
    """px thrown away where two tiles meet, as the network sees them; None: an eighth of the tile."""

    @classmethod
    def of(cls, segmentor: Segmentor, device: str, *, tile: int = 128, batch_size: int = 16) -> "TiledPredictor":
        """A segmentor, copied and made ready to predict on `device`."""
        network = as_network(ProbabilityMaps(for_prediction(segmentor, device)), device)
        return cls(network, segmentor.config.input, len(segmentor.config.maps), tile, batch_size)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Image (H, W, C) of any dtype -> maps (M, H, W) float32 in [0, 1]."""
        out = np.empty((self.maps, *image.shape[:2]), np.float32)
        self.predict_into(out, image)
        return out

    def predict_into(self, out: np.ndarray, image: np.ndarray) -> None:
        """As the call, into `out` (M, H, W) float32.

        Both may be memory maps; one batch of tiles is held in memory beside them. Intensities are normalised by the
        whole image's percentiles.
        """
        halo, downsample = default_halo(self.tile) if self.halo is None else self.halo, self.input.downsample
        tile, halo = self.tile * downsample, halo * downsample
        sides = [fitting_tile(length, tile, halo, STEP * downsample) for length in image.shape[:2]]
        rows, columns = (tile_spans(*of, halo, downsample) for of in zip(image.shape[:2], sides, strict=True))
        limits = self.input.normalisation.limits(image)
        places = [(row, column) for row in rows for column in columns]
        for first in range(0, len(places), self.batch_size):
            some = places[first : first + self.batch_size]
            tiles = [cut(image, row[0], column[0], *sides) for row, column in some]
            maps = self.network(self._batch(tiles, limits))
            for ((y, *ys), (x, *xs)), planes in zip(some, maps, strict=True):
                out[:, slice(*ys), slice(*xs)] = planes[:, ys[0] - y : ys[1] - y, xs[0] - x : xs[1] - x]

    def _batch(self, tiles: list[np.ndarray], limits: list[tuple[float, float]]) -> np.ndarray:
        """Tiles (H, W, C) -> network input (N, C, H, W) float32."""
        normalised = [self.input.normalisation.apply(tile, limits) for tile in tiles]
        batch = np.stack([match_channels(tile, self.input.channels) for tile in normalised])
        return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))


def resample(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Image (H, W, C) of any dtype OpenCV knows -> (*size, C): bilinear up, by area down."""
    shrinking = size[0] < image.shape[0]
    how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    planes = [
        cv2.resize(np.ascontiguousarray(image[..., c]), size[::-1], interpolation=how) for c in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)


def predict_at_scale(predictor: TiledPredictor, image: np.ndarray, um_per_px: float | None) -> np.ndarray:
    """As the predictor's call, with the image resampled to the pixel size of the model's training images.

    um_per_px: of this image. Where it, or the model's, is unknown, the image is predicted as it is. The maps are
    resampled back: (M, H, W).
    """
    wanted = predictor.input.um_per_px
    if not um_per_px or not wanted:
        return predictor(image)
    height, width = image.shape[:2]
    size = max(1, round(height * um_per_px / wanted)), max(1, round(width * um_per_px / wanted))
    if size == (height, width):
        return predictor(image)
    maps = predictor(resample(image, size))
    return np.ascontiguousarray(resample(maps.transpose(1, 2, 0), (height, width)).transpose(2, 0, 1)).clip(0, 1)

"""Predict images of any size, tile by tile on one fixed grid.

The grid and the batches depend on the image's size, the tile, the halo and the batch size alone. An image in memory
and the same image as a memory map therefore give the same pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.imaging.normalise import match_channels
from shared.imaging.resize import RESIZABLE, resize
from shared.imaging.tiling import cut_reflected, default_halo, fitting_tile, tile_spans
from shared.models.config import ModelInput
from shared.models.network import Network, as_network
from shared.models.segmentor import SIDE_MULTIPLE, ProbabilityMaps, Segmentor, inference_copy


@dataclass(frozen=True)
class TiledPredictor:
    """A network whose output maps have the size of its input, and the tiling of its images."""

    network: Network
    """Normalised tiles (N, C, H, W) -> maps (N, M, H, W) in [0, 1], run by PyTorch, ONNX Runtime or TensorRT."""
    input: ModelInput
    maps: int
    """Number of output maps, M."""
    tile: int = 128
    """Side of a tile after downsampling, halo included, px; a multiple of 16. Tiles are up to a quarter larger where
    fewer pixels are computed then."""
    batch_size: int = 16
    """Tiles in a forward pass."""
    halo: int | None = None
    """Margin that is dropped where two tiles meet, after downsampling, px; None: an eighth of the tile."""

    @classmethod
    def of(cls, segmentor: Segmentor, device: str, *, tile: int = 128, batch_size: int = 16) -> "TiledPredictor":
        """Copy a segmentor to `device`, ready to predict."""
        network = as_network(ProbabilityMaps(inference_copy(segmentor, device)), device)
        return cls(network, segmentor.config.input, len(segmentor.config.maps), tile, batch_size)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Image (H, W, C) of any dtype -> maps (M, H, W) float32 in [0, 1]."""
        out = np.empty((self.maps, *image.shape[:2]), np.float32)
        self.predict_into(out, image)
        return out

    def predict_into(self, out: np.ndarray, image: np.ndarray) -> None:
        """Predict an image (H, W, C) into `out` (M, H, W) float32.

        Both may be memory maps; besides them, one batch of tiles is in memory. Intensities are normalised by the
        percentiles of the whole image.
        """
        _, halo = self._tile_and_halo()
        downsample, sides = self.input.downsample, self._sides(image.shape[:2])
        rows, columns = (
            tile_spans(length, side, halo, downsample) for length, side in zip(image.shape[:2], sides, strict=True)
        )
        limits = self.input.normalisation.limits(image)
        spans = [(row, column) for row in rows for column in columns]
        for first in range(0, len(spans), self.batch_size):
            batch = spans[first : first + self.batch_size]
            tiles = [cut_reflected(image, row[0], column[0], *sides) for row, column in batch]
            (maps,) = self.network(self._network_input(tiles, limits))
            for ((y, *ys), (x, *xs)), planes in zip(batch, maps, strict=True):
                out[:, slice(*ys), slice(*xs)] = planes[:, ys[0] - y : ys[1] - y, xs[0] - x : xs[1] - x]

    def is_one_tile(self, size: tuple[int, ...]) -> bool:
        """Say whether an image of `size` (H, W) is a single tile, so that others of its size fit in its batch."""
        return all(length <= side for length, side in zip(size, self._sides(size), strict=True))

    def predict_small(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Predict images (H, W, C) of one size, each a single tile, in batches: maps (N, M, H, W) float32 in [0, 1]."""
        height, width = images[0].shape[:2]
        sides, found = self._sides((height, width)), []
        for first in range(0, len(images), self.batch_size):
            batch = images[first : first + self.batch_size]
            tiles = [
                self._network_input([cut_reflected(image, 0, 0, *sides)], self.input.normalisation.limits(image))
                for image in batch
            ]
            (maps,) = self.network(np.concatenate(tiles))
            found.append(maps[:, :, :height, :width])
        return np.ascontiguousarray(np.concatenate(found), np.float32)

    def _tile_and_halo(self) -> tuple[int, int]:
        """In px of the image."""
        halo = default_halo(self.tile) if self.halo is None else self.halo
        return self.tile * self.input.downsample, halo * self.input.downsample

    def _sides(self, size: tuple[int, ...]) -> list[int]:
        """Height and width of the tiles of an image of `size` (H, W), px."""
        tile, halo = self._tile_and_halo()
        return [fitting_tile(length, tile, halo, SIDE_MULTIPLE * self.input.downsample) for length in size]

    def _network_input(self, tiles: list[np.ndarray], limits: list[tuple[float, float]]) -> np.ndarray:
        """Tiles (H, W, C) of one image -> network input (N, C, H, W) float32."""
        normalised = [self.input.normalisation.apply(tile, limits) for tile in tiles]
        batch = np.stack([match_channels(tile, self.input.channels) for tile in normalised])
        return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))


def predict_at_scale(predictor: TiledPredictor, image: np.ndarray, um_per_px: float | None) -> np.ndarray:
    """Predict an image (H, W, C) that is resampled to the pixel size of the model's training images.

    um_per_px: pixel size of this image. Where it or the model's is unknown, the image is predicted as it is. Returns
    maps (M, H, W) float32 in [0, 1], resampled to the image's size.
    """
    trained = predictor.input.um_per_px
    if not um_per_px or not trained:
        return predictor(image)
    height, width = image.shape[:2]
    size = max(1, round(height * um_per_px / trained)), max(1, round(width * um_per_px / trained))
    if size == (height, width):
        return predictor(image)
    image = image if image.dtype in RESIZABLE else image.astype(np.float32)
    maps = predictor(resize(image, size)).transpose(1, 2, 0)
    return np.ascontiguousarray(resize(maps, (height, width)).transpose(2, 0, 1)).clip(0, 1)

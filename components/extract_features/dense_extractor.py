"""Compute dense features of an image of any size, in tiles with halo on a fixed grid, at the patch's stride or half."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from shared.imaging.normalise import match_channels
from shared.imaging.resize import mean_pool
from shared.imaging.tiling import cut_tile, tile_batches
from shared.models.backbones.packed_linear import pack_linear_layers
from shared.models.backbones.vit import Encoder
from shared.models.segmentor import upsample
from shared.targets import TARGETS

if TYPE_CHECKING:
    from shared.models.segmentor import Segmentor


class DenseExtractor:
    """Applies an encoder to tiles. Memory: one batch of tiles, and the tokens of one image."""

    def __init__(self, encoder: Encoder, *, tile: int, halo: int, batch_size: int, layers: int, device: str) -> None:
        """tile: side in px as the encoder sees it, halo included; halo: margin in px that is discarded on each side;
        layers: number of last blocks whose outputs are concatenated.
        """
        self.encoder = pack_linear_layers(encoder) if device == "cpu" else encoder.eval().to(device)
        self.architecture, self.input = encoder.architecture, encoder.config.input
        self.tile, self.halo, self.batch_size, self.layers, self.device = tile, halo, batch_size, layers, device
        self.correct: Callable[[np.ndarray], np.ndarray] | None = None
        """Applied to the tokens of tile cores (N, side, side, channels) float32; see `position_correction.py`."""
        self.segmentor: Segmentor | None = None
        """The segmentor that the encoder belongs to, for its foreground probability; None: an encoder alone."""

    @property
    def channels(self) -> int:
        """Features of a token in the result."""
        return self.width

    @property
    def width(self) -> int:
        """Features of a token from the encoder."""
        return self.layers * self.architecture.width

    @property
    def patch(self) -> int:
        """Side of a patch in px of the image."""
        return self.architecture.patch * self.input.downsample

    def geometry(self, size: tuple[int, int], shifts: int) -> tuple[tuple[int, int], int, int]:
        """Token grid, stride and offset (px) for an image of `size` (H, W); every pixel belongs to a token.

        With two shifts a token covers the central half of its patch, and the first patch begins half a patch outside
        the image.
        """
        patch = self.patch
        stride = patch // shifts
        offset = 0 if shifts == 1 else -patch // 4
        rows, columns = (-(-(length - offset) // stride) for length in size)
        return (rows, columns), stride, offset

    def describe(self, image: np.ndarray, shifts: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Image (H, W, C) of any dtype -> tokens (grid_h, grid_w, channels) float16, on the grid of `geometry`.

        Also returns the foreground probability (H, W) float32 in [0, 1]; None without a segmentor.
        """
        (rows, columns), _, _ = self.geometry(image.shape[:2], shifts)
        out = np.empty((rows, columns, self.width), np.float16)
        probability = np.empty(image.shape[:2], np.float32) if self.segmentor else None
        first = 0 if shifts == 1 else -self.patch // 2
        for sy in range(shifts):
            for sx in range(shifts):
                origin = first + sy * self.patch // 2, first + sx * self.patch // 2
                self._pass(image, out[sy::shifts, sx::shifts], origin, probability if origin == (0, 0) else None)
        return out, probability

    def _pass(
        self, image: np.ndarray, out: np.ndarray, origin: tuple[int, int], probability: np.ndarray | None
    ) -> None:
        """Fill `out` (rows, columns, channels) with the tokens of the patches that begin at `origin` (y, x) in px.

        Also fills `probability` (H, W), if given; that needs the origin (0, 0).
        """
        patch, downsample, limits = self.patch, self.input.downsample, self.input.normalisation.limits(image)
        covered = out.shape[0] * patch, out.shape[1] * patch
        for corners in tile_batches(covered, self.tile * downsample, self.halo * downsample, self.batch_size):
            tiles = [self.cut(image, y + origin[0], x + origin[1], limits) for y, x in corners]
            x, maps = self._maps(tiles)
            cores = self._inner(maps)
            if self.correct is not None:
                cores = self.correct(cores)
            _place(out, cores, [(y // patch, x // patch) for y, x in corners])
            if probability is not None:
                _place(probability, self._foreground(x, maps), corners)

    def cut(self, image: np.ndarray, y: int, x: int, limits: list[tuple[float, float]]) -> np.ndarray:
        """Cut the tile (tile, tile, C) whose core begins at (y, x), normalised and downsampled for the encoder."""
        downsample = self.input.downsample
        tile = cut_tile(image, y, x, self.tile * downsample, self.halo * downsample)
        return mean_pool(self.input.normalisation.apply(tile, limits), downsample)

    def cores(self, tiles: list[np.ndarray]) -> np.ndarray:
        """Normalised tiles, (tile, tile, C) each -> tokens of their cores (N, side, side, channels) float32."""
        return self._inner(self._maps(tiles)[1])

    @torch.inference_mode()
    def _maps(self, tiles: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised tiles -> the batch (N, C, tile, tile) and its tokens (N, channels, tile/patch, tile/patch)."""
        batch = np.stack([match_channels(item, self.input.channels) for item in tiles]).transpose(0, 3, 1, 2)
        x = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device)
        return x, self.encoder.features(x, self.layers)

    def _inner(self, maps: torch.Tensor) -> np.ndarray:
        """Token maps of tiles -> tokens of their cores (N, side, side, channels) float32."""
        edge = self.halo // self.architecture.patch
        inner = maps[:, :, edge : maps.shape[2] - edge, edge : maps.shape[3] - edge]
        return inner.permute(0, 2, 3, 1).float().cpu().numpy()

    @torch.inference_mode()
    def _foreground(self, x: torch.Tensor, maps: torch.Tensor) -> np.ndarray:
        """Batch and token maps of `_maps` -> foreground probability of the cores (N, core, core) float32."""
        assert self.segmentor is not None
        logits = self.segmentor.decode(x, maps[:, -self.architecture.width :])
        downsample = self.input.downsample
        inner = slice(self.halo * downsample, (self.tile - self.halo) * downsample)
        probabilities = torch.sigmoid(upsample(logits, downsample)[:, :, inner, inner]).float().cpu().numpy()
        config = self.segmentor.config
        return TARGETS[config.architecture.target].probability(probabilities.swapaxes(0, 1), config.postprocessing)


def _place(out: np.ndarray, parts: np.ndarray, corners: list[tuple[int, int]]) -> None:
    """Write each part (side, side, ...) into `out` at its corner, cropped at the end of `out`."""
    for (y, x), part in zip(corners, parts, strict=True):
        into = out[y : y + part.shape[0], x : x + part.shape[1]]
        into[...] = part[: into.shape[0], : into.shape[1]]

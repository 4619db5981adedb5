"""Dense features of one image of any size: tiles with halo on a fixed grid, at the patch's stride or half of it."""

from collections.abc import Callable

import numpy as np
import torch

from shared.models.encoder import Encoder
from shared.normalise import match_channels
from shared.tiling import cut_tile, tile_batches


class DenseExtractor:
    """Runs an encoder over tiles. Memory: one batch of tiles, and the tokens of one image."""

    def __init__(self, encoder: Encoder, *, tile: int, halo: int, batch_size: int, layers: int, device: str) -> None:
        """tile: px on a side, halo included; halo: px thrown away at each side; layers: last blocks that are joined."""
        self.encoder, self.config = encoder.eval().to(device), encoder.config
        self.tile, self.halo, self.batch_size, self.layers, self.device = tile, halo, batch_size, layers, device
        self.correct: Callable[[np.ndarray], np.ndarray] | None = None
        """Applied to the tokens of tile cores (N, side, side, channels) float32; see `context.py`."""

    @property
    def channels(self) -> int:
        """Features of a token."""
        return self.layers * self.config.width

    def geometry(self, size: tuple[int, int], shifts: int) -> tuple[tuple[int, int], int, int]:
        """Token grid, stride and offset (px) for an image of `size` (H, W); every pixel is described by a token.

        With two shifts a token stands for the middle half of its patch, and the first patch begins half a patch
        outside the image.
        """
        patch = self.config.patch
        stride = patch // shifts
        offset = 0 if shifts == 1 else -patch // 4
        rows, columns = (-(-(length - offset) // stride) for length in size)
        return (rows, columns), stride, offset

    def tokens(self, image: np.ndarray, shifts: int) -> np.ndarray:
        """Image (H, W, C) of any dtype -> tokens (grid_h, grid_w, channels) float16, on the grid of `geometry`."""
        (rows, columns), _, _ = self.geometry(image.shape[:2], shifts)
        out = np.empty((rows, columns, self.channels), np.float16)
        first = 0 if shifts == 1 else -self.config.patch // 2
        for sy in range(shifts):
            for sx in range(shifts):
                origin = first + sy * self.config.patch // 2, first + sx * self.config.patch // 2
                self._pass(image, out[sy::shifts, sx::shifts], origin)
        return out

    def _pass(self, image: np.ndarray, out: np.ndarray, origin: tuple[int, int]) -> None:
        """Fill `out` (rows, columns, channels) with the tokens of the patches that begin at `origin` (y, x), px."""
        patch, limits = self.config.patch, self.config.normalisation.limits(image)
        covered = out.shape[0] * patch, out.shape[1] * patch
        for corners in tile_batches(covered, self.tile, self.halo, self.batch_size):
            tiles = [cut_tile(image, y + origin[0], x + origin[1], self.tile, self.halo) for y, x in corners]
            cores = self.cores([self.config.normalisation.apply(item, limits) for item in tiles])
            if self.correct is not None:
                cores = self.correct(cores)
            for (y, x), core in zip(corners, cores, strict=True):
                part = out[y // patch : y // patch + core.shape[0], x // patch : x // patch + core.shape[1]]
                part[...] = core[: part.shape[0], : part.shape[1]]

    @torch.inference_mode()
    def cores(self, tiles: list[np.ndarray]) -> np.ndarray:
        """Normalised tiles (tile, tile, C) each -> tokens of their cores (N, side, side, channels) float32."""
        batch = np.stack([match_channels(item, self.config.channels) for item in tiles]).transpose(0, 3, 1, 2)
        maps = self.encoder.features(torch.from_numpy(np.ascontiguousarray(batch)).to(self.device), self.layers)
        edge = self.halo // self.config.patch
        inner = maps[:, :, edge : maps.shape[2] - edge, edge : maps.shape[3] - edge]
        return inner.permute(0, 2, 3, 1).float().cpu().numpy()

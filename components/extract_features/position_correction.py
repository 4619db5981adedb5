"""Remove from tokens what depends on the tile and not on the patch: position in the tile, and the tile's content.

A transformer's tokens encode their position in the tile and the content of the whole tile. Position alone can explain
most of the variance (RESULTS.md, "Constants"), and background differs from tile to tile, so clusters would follow the
tiles instead of the cells. Both effects are estimated from patches that are seen in two different tiles.
"""

from dataclasses import dataclass

import numpy as np

from components.extract_features.dense_extractor import DenseExtractor
from shared.artifacts.image_set import ImageReader

_PAIRS = 128
"""Pairs of overlapping tiles, at least."""
_MAX_PAIR_IMAGES = 64
"""Images that the pairs are cut from."""


@dataclass(frozen=True)
class PositionCorrection:
    """token -> matrix @ token + bias of its position in the core of the tile."""

    matrix: np.ndarray
    """(channels, channels) float32"""
    bias: np.ndarray
    """(side, side, channels) float32"""

    def __call__(self, cores: np.ndarray) -> np.ndarray:
        """Correct tokens of tile cores (N, side, side, channels) float32."""
        return cores @ self.matrix.T + self.bias


def estimate_correction(extractor: DenseExtractor, reader: ImageReader, keys: list[str]) -> PositionCorrection:
    """Estimate the correction of a model from pairs of overlapping tiles of these images."""
    # rounded down, unlike `keys.evenly_spaced`: another choice of images would change every stored feature
    chosen = [keys[i] for i in np.unique(np.linspace(0, len(keys) - 1, min(len(keys), _MAX_PAIR_IMAGES)).astype(int))]
    rng = np.random.default_rng(0)
    cores, moves = [], []
    for key in chosen:
        image = reader.read(key)
        corners, moved = _pairs(extractor, image.shape[:2], -(-_PAIRS // len(chosen)), rng)
        moves.append(moved)
        limits = extractor.input.normalisation.limits(image)
        for first in range(0, len(corners), extractor.batch_size):
            part = corners[first : first + extractor.batch_size]
            cores.append(extractor.cores([extractor.cut(image, int(y), int(x), limits) for y, x in part]))
    return fit_correction(np.concatenate(cores), np.concatenate(moves))


def _pairs(
    extractor: DenseExtractor, size: tuple[int, int], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of tiles: corners of their cores (2 * count, 2) in px, pairs in turn, and moves (count, 2) in patches.

    A move is by whole patches, and so long that the cores overlap by a quarter at most and have little in common.
    """
    patch = extractor.patch
    side = (extractor.tile - 2 * extractor.halo) // extractor.architecture.patch
    before = -extractor.tile * extractor.input.downsample // 2
    first = np.stack([rng.integers(before, length, count) for length in size], axis=1)
    moves = rng.integers(1 - side, side, (count, 2))
    far = rng.integers(3 * side // 4, side, count) * rng.choice([-1, 1], count)
    moves[np.arange(count), rng.integers(2, size=count)] = far
    return np.stack([first, first + moves * patch], axis=1).reshape(-1, 2), moves


def fit_correction(cores: np.ndarray, moves: np.ndarray) -> PositionCorrection:
    """Fit the linear estimate, of least squared error, of what two views of a patch have in common.

    cores: (2 * P, side, side, channels), pairs in turn; moves: (P, 2) patches from the first to the second of a pair.
    """
    channels, position_mean = cores.shape[-1], cores.mean(axis=0)
    mean = position_mean.mean(axis=(0, 1))
    centred = cores - position_mean
    rows = centred.reshape(-1, channels).astype(np.float64)
    total = rows.T @ rows / len(rows)
    noise = _noise_covariance(centred, moves)
    total += np.eye(channels) * (1e-6 * np.trace(total) / channels + 1e-12)
    lower = np.linalg.cholesky(total)
    inverse = np.linalg.inv(lower)
    share, axes = np.linalg.eigh(inverse @ noise @ inverse.T)  # noise's share of the variance along each axis
    matrix = lower @ (axes * (1 - share.clip(0, 1))) @ axes.T @ inverse
    return PositionCorrection(matrix.astype(np.float32), (mean - position_mean @ matrix.T).astype(np.float32))


def _noise_covariance(centred: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """(channels, channels) float64 covariance of what differs between two views of a patch; arguments as above."""
    channels = centred.shape[-1]
    noise, count = np.zeros((channels, channels)), 0
    for i, (down, right) in enumerate(moves):
        difference = _overlap(centred[2 * i], down, right) - _overlap(centred[2 * i + 1], -down, -right)
        difference = difference.reshape(-1, channels).astype(np.float64)
        noise += difference.T @ difference / 2
        count += len(difference)
    return noise / count


def _overlap(core: np.ndarray, down: int, right: int) -> np.ndarray:
    """The part of a core (side, side, channels) that a core moved by (down, right) patches also covers."""
    rows = slice(down, None) if down >= 0 else slice(None, down)
    columns = slice(right, None) if right >= 0 else slice(None, right)
    return core[rows, columns]

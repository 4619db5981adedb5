"""What features say about the tile rather than about the patch, measured so that it can be taken off.

A transformer's tokens carry along where they lie in the tile, and what else there is in it. In a lightly trained MAE
three quarters of the variance is explained by the place alone, and background differs from tile to tile; clusters
would follow the tiles instead of the cells. Both are seen by looking at the same patches from two tiles.
"""

from dataclasses import dataclass

import numpy as np

from components.extract_features.dense_extractor import DenseExtractor
from shared.artifacts.image_set import ImageReader

PAIRS = 128
MOST_IMAGES = 64


@dataclass(frozen=True)
class Correction:
    """token -> matrix @ token + bias at its place in the tile's core."""

    matrix: np.ndarray
    """(channels, channels) float32"""
    bias: np.ndarray
    """(side, side, channels) float32"""

    def __call__(self, cores: np.ndarray) -> np.ndarray:
        """Tokens of tile cores (N, side, side, channels) float32 -> the same, corrected."""
        return cores @ self.matrix.T + self.bias


def measure(extractor: DenseExtractor, reader: ImageReader, keys: list[str]) -> Correction:
    """Correction for this model on these images, from 128 pairs of overlapping tiles of up to 64 images."""
    # Rounded down, unlike `keys.evenly_spaced`: another choice of images would change every stored feature.
    chosen = [keys[i] for i in np.unique(np.linspace(0, len(keys) - 1, min(len(keys), MOST_IMAGES)).astype(int))]
    rng = np.random.default_rng(0)
    cores, moves = [], []
    for key in chosen:
        image = reader.read(key)
        corners, moved = _pairs(extractor, image.shape[:2], -(-PAIRS // len(chosen)), rng)
        moves.append(moved)
        limits = extractor.input.normalisation.limits(image)
        for first in range(0, len(corners), extractor.batch_size):
            part = corners[first : first + extractor.batch_size]
            cores.append(extractor.cores([extractor.cut(image, int(y), int(x), limits) for y, x in part]))
    return fit_correction(np.concatenate(cores), np.concatenate(moves))


def _pairs(
    extractor: DenseExtractor, size: tuple[int, int], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Corners (2 * count, 2) in px of tile cores, first and second of a pair in turn; their moves (count, 2), patches.

    The second is far away, by whole patches, so that little is common to both: cores overlap by a quarter at most.
    """
    patch = extractor.patch
    side = (extractor.tile - 2 * extractor.halo) // extractor.architecture.patch
    before = -extractor.tile * extractor.input.downsample // 2
    first = np.stack([rng.integers(before, length, count) for length in size], axis=1)
    moves = rng.integers(1 - side, side, (count, 2))
    far = rng.integers(3 * side // 4, side, count) * rng.choice([-1, 1], count)
    moves[np.arange(count), rng.integers(2, size=count)] = far
    return np.stack([first, first + moves * patch], axis=1).reshape(-1, 2), moves


def fit_correction(cores: np.ndarray, moves: np.ndarray) -> Correction:
    """The linear estimate of least squared error of what the views of a patch have in common.

    cores: (2 * P, side, side, channels), pairs in turn; moves: (P, 2) patches from the first to the second of a pair.
    """
    channels, place = cores.shape[-1], cores.mean(axis=0)
    mean = place.mean(axis=(0, 1))
    centred = cores - place
    rows = centred.reshape(-1, channels).astype(np.float64)
    total = rows.T @ rows / len(rows)
    noise, count = np.zeros_like(total), 0
    for i, (down, right) in enumerate(moves):
        difference = _overlap(centred[2 * i], down, right) - _overlap(centred[2 * i + 1], -down, -right)
        difference = difference.reshape(-1, channels).astype(np.float64)
        noise += difference.T @ difference / 2
        count += len(difference)
    total += np.eye(channels) * (1e-6 * np.trace(total) / channels + 1e-12)
    lower = np.linalg.cholesky(total)
    inverse = np.linalg.inv(lower)
    share, axes = np.linalg.eigh(inverse @ (noise / count) @ inverse.T)  # of the variance along each axis
    matrix = lower @ (axes * (1 - share.clip(0, 1))) @ axes.T @ inverse
    return Correction(matrix.astype(np.float32), (mean - place @ matrix.T).astype(np.float32))


def _overlap(core: np.ndarray, down: int, right: int) -> np.ndarray:
    """The part of a core (side, side, channels) that one moved by so many patches sees as well."""
    rows = slice(down, None) if down >= 0 else slice(None, down)
    columns = slice(right, None) if right >= 0 else slice(None, right)
    return core[rows, columns]

"""What features say about the place within a tile rather than about the cells, measured so that it can be taken off.

A transformer's tokens carry their positions along. In a lightly trained MAE three quarters of the variance of its
features are explained by the place in the tile alone, and clusters would follow the tiles instead of the cells.
"""

import numpy as np

from components.extract_features.dense import DenseExtractor
from shared.images import ImageReader
from shared.tiling import cut_tile

WINDOWS = 256
MOST_IMAGES = 64


def position_mean(extractor: DenseExtractor, reader: ImageReader, keys: list[str]) -> np.ndarray:
    """Mean token at each place of a tile's core, less the mean of all: (side, side, channels) float32.

    Over tiles at random places of up to 64 images, so that nothing but the place is common to them.
    """
    chosen = [keys[i] for i in np.unique(np.linspace(0, len(keys) - 1, min(len(keys), MOST_IMAGES)).astype(int))]
    rng = np.random.default_rng(0)
    total, count = np.zeros(1), 0
    for key in chosen:
        image = reader.read(key)
        normalisation = extractor.config.normalisation
        limits = normalisation.limits(image)
        wanted = -(-WINDOWS // len(chosen))
        corners = np.stack([rng.integers(-extractor.tile // 2, length, wanted) for length in image.shape[:2]], axis=1)
        for first in range(0, wanted, extractor.batch_size):
            part = corners[first : first + extractor.batch_size]
            tiles = [cut_tile(image, int(y), int(x), extractor.tile, extractor.halo) for y, x in part]
            cores = extractor.cores([normalisation.apply(tile, limits) for tile in tiles])
            total = total + cores.sum(axis=0, dtype=np.float64)
            count += len(cores)
    mean = total / count
    return (mean - mean.mean(axis=(0, 1))).astype(np.float32)

"""Target: the distance to the border, normalised for each instance, and nothing else.

As DINOCell and SAMCell (VandeLoo et al. 2025, PLOS ONE 20:e0319532) learn it: a regression with the squared error.
Planes: foreground {0, 1}, confidence 0 to 255, distance 0 to 255. Map: the distance, in [0, 1]; 0 is background.
"""

from typing import TYPE_CHECKING

import numpy as np

from shared.artifacts.postprocessing import PostProcessing
from shared.instances.label_image import relabel
from shared.instances.postprocess import Segmentation, find_mask
from shared.instances.seeded_watershed import seeded_watershed
from shared.targets.foreground_distance import cut, encode

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GRID", "cut", "decode", "encode", "foreground", "loss", "probability"]

GRID = {
    "cells_max_threshold": (0.47, 0.4, 0.55, 0.3, 0.65, 0.75),
    "cell_fill_threshold": (0.09, 0.06, 0.13, 0.18, 0.25),
}


def loss(logits: "Tensor", planes: "Tensor", *, drop_fraction: float = 0.0) -> "Tensor":
    """Logits (N, 1, H, W) against planes (N, 3, H, W) of `cut` -> scalar.

    drop_fraction: share of the pixels with confidence, those of the largest loss of the foreground, that are not
    learned.
    """
    from shared.targets.losses import drop_largest_losses, weighted_squared_error

    mask, confidence, distance = planes.unbind(1)
    weight = drop_largest_losses(logits[:, 0], mask, confidence, drop_fraction) if drop_fraction else confidence
    return weighted_squared_error(logits.sigmoid(), distance[:, None], weight)


def probability(maps: np.ndarray, settings: PostProcessing) -> np.ndarray:
    """Maps (1, ...) in [0, 1] -> (...) float32 in [0, 1]: 0.5 where the distance is `cell_fill_threshold`."""
    return np.minimum(maps[0] / np.float32(2 * settings.cell_fill_threshold), np.float32(1))


def foreground(maps: np.ndarray, image: np.ndarray, settings: PostProcessing) -> np.ndarray:
    """Maps (1, H, W) in [0, 1] of an image (H, W, C) -> mask (H, W) uint8 {0, 1}."""
    return find_mask(probability(maps, settings), image, settings)[0]


def decode(maps: np.ndarray, image: np.ndarray, settings: PostProcessing, rows: int | None = None) -> Segmentation:
    """Maps (1, H, W) in [0, 1] of an image (H, W, C) -> mask and instances."""
    mask = find_mask(probability(maps, settings), image, settings, rows)[0]
    labels = seeded_watershed(maps[0], mask, settings.cells_max_threshold)
    return Segmentation(mask, relabel(labels, settings.min_area_px, settings.min_area_share))

"""Resample between the token grid and the pixels of an image."""

import cv2
import numpy as np

from shared.artifacts.feature_set import FeatureEntry

_GUIDE_EPSILON = 0.01
"""Regularisation of the guided filter: variance of the normalised intensity below which the image does not guide."""


def pixels_to_tokens(plane: np.ndarray, entry: FeatureEntry) -> np.ndarray:
    """Average a plane (H, W) float32 over each token's square: (grid_h, grid_w) float32."""
    means = cv2.blur(plane, (entry.stride, entry.stride), borderType=cv2.BORDER_REFLECT_101)
    centre = entry.offset + entry.stride // 2
    rows, columns = (
        np.clip(centre + np.arange(count) * entry.stride, 0, size - 1)
        for count, size in zip(entry.grid, plane.shape, strict=True)
    )
    return means[rows[:, None], columns]


def probability_to_pixels(probability: np.ndarray, entry: FeatureEntry, guide: np.ndarray) -> np.ndarray:
    """Upsample probabilities of tokens (grid_h, grid_w): (H, W) float32 that follows the edges of `guide` (H, W).

    Bilinear between the tokens' centres, then a guided filter (He et al. 2010) as wide as a token.
    """
    upsampled = _resample(probability.astype(np.float32), entry, cv2.INTER_LINEAR)
    return np.clip(cv2.ximgproc.guidedFilter(guide, upsampled, entry.stride, _GUIDE_EPSILON), 0, 1)


def numbers_to_pixels(numbers: np.ndarray, entry: FeatureEntry) -> np.ndarray:
    """Upsample numbers of tokens (grid_h, grid_w) uint8: (H, W) uint8, each pixel that of the nearest token."""
    return _resample(numbers.astype(np.uint8), entry, cv2.INTER_NEAREST)


def _resample(tokens: np.ndarray, entry: FeatureEntry, interpolation: int) -> np.ndarray:
    shift = (0.5 - entry.offset) / entry.stride - 0.5
    matrix = np.array([[1 / entry.stride, 0, shift], [0, 1 / entry.stride, shift]])
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tokens, matrix, (entry.width, entry.height), flags=flags, borderMode=cv2.BORDER_REPLICATE)

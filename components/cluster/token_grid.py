"""Between the grid of tokens and the pixels."""

import cv2
import numpy as np

from shared.artifacts.feature_set import FeatureEntry

GUIDE_EPSILON = 0.01
"""Regularisation of the guided filter: variance of the normalised intensity below which the image is no guide."""


def to_tokens(plane: np.ndarray, entry: FeatureEntry) -> np.ndarray:
    """Mean of a plane (H, W) float32 over each token's square: (grid_h, grid_w) float32."""
    means = cv2.blur(plane, (entry.stride, entry.stride), borderType=cv2.BORDER_REFLECT_101)
    centre = entry.offset + entry.stride // 2
    rows, columns = (
        np.clip(centre + np.arange(count) * entry.stride, 0, size - 1)
        for count, size in zip(entry.grid, plane.shape, strict=True)
    )
    return means[rows[:, None], columns]


def to_pixels(tokens: np.ndarray, entry: FeatureEntry, guide: np.ndarray) -> np.ndarray:
    """Probabilities of tokens (grid_h, grid_w) -> (H, W) float32 that follow the edges of `guide` (H, W) float32.

    Bilinear between the tokens' centres, then a guided filter (He et al. 2010) as wide as a token.
    """
    smooth = _resample(tokens.astype(np.float32), entry, cv2.INTER_LINEAR)
    return np.clip(cv2.ximgproc.guidedFilter(guide, smooth, entry.stride, GUIDE_EPSILON), 0, 1)


def nearest(tokens: np.ndarray, entry: FeatureEntry) -> np.ndarray:
    """Numbers of tokens (grid_h, grid_w) uint8 -> (H, W) uint8, each pixel that of the nearest token."""
    return _resample(tokens.astype(np.uint8), entry, cv2.INTER_NEAREST)


def _resample(tokens: np.ndarray, entry: FeatureEntry, interpolation: int) -> np.ndarray:
    shift = (0.5 - entry.offset) / entry.stride - 0.5
    matrix = np.array([[1 / entry.stride, 0, shift], [0, 1 / entry.stride, shift]])
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tokens, matrix, (entry.width, entry.height), flags=flags, borderMode=cv2.BORDER_REPLICATE)

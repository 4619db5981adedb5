"""Describe tokens by filter responses, which need no training: the baseline of a learned encoder.

The responses' variances differ by orders of magnitude (RESULTS.md, "Constants"), so that one kind would dominate the
distances between tokens. Each response is therefore standardised over the set.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from components.extract_features.dense_extractor import DenseExtractor
from shared.artifacts.image_set import ImageReader
from shared.imaging.normalise import match_channels
from shared.system.progress import track

SCALES = (1.0, 2.0, 4.0, 8.0)
"""Sigmas of the Gaussian windows, in px of the image as the network sees it."""
MIN_STD = 0.01
"""Added to local standard deviations, in normalised intensity: weaker texture does not count."""
KINDS = 4
"""Features of each channel and scale: see `responses`."""
MIN_FEATURE_STD = 1e-6
"""Features of a smaller standard deviation over the set are constant, and become 0."""


@dataclass(frozen=True)
class Standardisation:
    """feature -> (feature - mean) / standard deviation, both over the set."""

    mean: np.ndarray
    """(channels,) float32"""
    scale: np.ndarray
    """(channels,) float32: 1 / standard deviation; 0 for constant features."""

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Standardise (..., channels) float32 to mean 0 and variance 1 over the set."""
        return (tokens - self.mean) * self.scale


class FilterExtractor(DenseExtractor):
    """Gives filter responses instead of the encoder's tokens, on the same grid; the foreground is the segmentor's."""

    standardisation: Standardisation | None = None
    """Applied to every token; see `estimate_standardisation`. None: not applied."""

    @property
    def channels(self) -> int:
        """Features of a token."""
        return len(SCALES) * KINDS * self.input.channels

    def describe(self, image: np.ndarray, shifts: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Like `DenseExtractor.describe`, with standardised filter responses as tokens."""
        probability = super().describe(image, 1)[1] if self.segmentor else None
        tokens = self.mean_responses(image, shifts)
        if self.standardisation is not None:
            tokens = self.standardisation(tokens)
        return tokens.astype(np.float16), probability

    def mean_responses(self, image: np.ndarray, shifts: int) -> np.ndarray:
        """Image (H, W, C) of any dtype -> (grid_h, grid_w, channels) float32.

        The mean of each response over the square that a token covers, not standardised.
        """
        (rows, columns), stride, offset = self.geometry(image.shape[:2], shifts)
        shown = match_channels(self.input.normalisation(image), self.input.channels)
        height, width = image.shape[:2]
        beyond = (-offset, rows * stride + offset - height), (-offset, columns * stride + offset - width)
        planes = responses(np.pad(shown, (*beyond, (0, 0)), "symmetric"), self.input.downsample)
        return planes.reshape(rows, stride, columns, stride, -1).mean(axis=(1, 3))


def estimate_standardisation(
    extractor: FilterExtractor, reader: ImageReader, keys: list[str], shifts: int
) -> Standardisation:
    """Estimate mean and standard deviation of each feature over a set; images count alike, as for k-means.

    Takes one more pass over the images, and keeps two numbers a feature for each image.
    """
    means, variances = [], []
    for key in track(keys, "extract_features: filter statistics", len(keys)):
        tokens = extractor.mean_responses(reader.read(key), shifts).reshape(-1, extractor.channels)
        means.append(tokens.mean(axis=0, dtype=np.float64))
        variances.append(tokens.var(axis=0, dtype=np.float64))
    deviation = np.sqrt(np.mean(variances, axis=0) + np.var(means, axis=0))
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > MIN_FEATURE_STD)
    return Standardisation(np.mean(means, axis=0).astype(np.float32), scale.astype(np.float32))


def responses(image: np.ndarray, downsample: int = 1) -> np.ndarray:
    """Image (H, W, C) float32, normalised -> (H, W, C x scales x KINDS) float32.

    At each scale: mean, logarithm of the standard deviation, gradient magnitude, Laplacian. The last two are normalised
    for scale (Lindeberg 1998, IJCV 30:79). downsample: factor of the scales.
    """
    found = []
    for channel in range(image.shape[2]):
        plane = np.ascontiguousarray(image[..., channel], np.float32)
        for sigma in (downsample * scale for scale in SCALES):
            mean = cv2.GaussianBlur(plane, (0, 0), sigma)
            variance = cv2.GaussianBlur(plane * plane, (0, 0), sigma) - mean * mean
            down, across = (cv2.Sobel(mean, cv2.CV_32F, *order, scale=1 / 8) for order in ((0, 1), (1, 0)))
            found += [
                mean,
                np.log(np.sqrt(np.maximum(variance, 0)) + MIN_STD),
                sigma * np.hypot(down, across),
                sigma * sigma * cv2.Laplacian(mean, cv2.CV_32F),
            ]
    return np.stack(found, axis=-1)

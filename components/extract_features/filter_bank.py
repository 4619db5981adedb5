"""Features that need no training: what a learned encoder has to beat.

Their spreads differ a hundredfold: of the variance of the plain responses 90 to 99 % is the logarithm's, and distances
between tokens would be its alone. So each is standardised over the set before it is handed on.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from components.extract_features.dense_extractor import DenseExtractor
from shared.artifacts.image_set import ImageReader
from shared.imaging.normalise import match_channels
from shared.system.progress import track

SCALES = (1.0, 2.0, 4.0, 8.0)
"""px of the image as the network sees it, of the Gaussian windows."""
FLOOR = 0.01
"""Standard deviation, in normalised intensity, below which texture does not count."""
KINDS = 4
"""Features of each channel and scale: see `responses`."""
STILL = 1e-6
"""A feature whose standard deviation is not above this is the same everywhere, and becomes 0."""


@dataclass(frozen=True)
class Standard:
    """feature -> (feature - mean) / its standard deviation over the set."""

    mean: np.ndarray
    """(channels,) float32"""
    scale: np.ndarray
    """(channels,) float32: 1 / standard deviation, 0 where there is none to speak of."""

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """(..., channels) float32 -> the same, of mean 0 and variance 1 over the set."""
        return (tokens - self.mean) * self.scale


class FilterExtractor(DenseExtractor):
    """Filter responses in the place of the encoder's tokens, on the same grid; the segmentor's foreground as ever."""

    standard: Standard | None = None
    """Applied to every token, where it is known; see `measured`."""

    @property
    def channels(self) -> int:
        """Features of a token."""
        return len(SCALES) * KINDS * self.input.channels

    def describe(self, image: np.ndarray, shifts: int) -> tuple[np.ndarray, np.ndarray | None]:
        """As of `DenseExtractor`, the tokens those of `plain`, standardised."""
        probability = super().describe(image, 1)[1] if self.segmentor else None
        tokens = self.plain(image, shifts)
        return (tokens if self.standard is None else self.standard(tokens)).astype(np.float16), probability

    def plain(self, image: np.ndarray, shifts: int) -> np.ndarray:
        """Image (H, W, C) of any dtype -> (grid_h, grid_w, channels) float32.

        The mean of each response over the square that a token stands for.
        """
        (rows, columns), stride, offset = self.geometry(image.shape[:2], shifts)
        shown = match_channels(self.input.normalisation(image), self.input.channels)
        height, width = image.shape[:2]
        beyond = (-offset, rows * stride + offset - height), (-offset, columns * stride + offset - width)
        planes = responses(np.pad(shown, (*beyond, (0, 0)), "symmetric"), self.input.downsample)
        return planes.reshape(rows, stride, columns, stride, -1).mean(axis=(1, 3))


def measured(extractor: FilterExtractor, reader: ImageReader, keys: list[str], shifts: int) -> Standard:
    """Mean and deviation of each feature over a set, all images alike, as k-means draws its tokens from them.

    By a pass of its own over the images, of which two rows of numbers each are kept.
    """
    means, variances = [], []
    for key in track(keys, "extract_features: spread of the filters", len(keys)):
        tokens = extractor.plain(reader.read(key), shifts).reshape(-1, extractor.channels)
        means.append(tokens.mean(axis=0, dtype=np.float64))
        variances.append(tokens.var(axis=0, dtype=np.float64))
    deviation = np.sqrt(np.mean(variances, axis=0) + np.var(means, axis=0))
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > STILL)
    return Standard(np.mean(means, axis=0).astype(np.float32), scale.astype(np.float32))


def responses(image: np.ndarray, downsample: int = 1) -> np.ndarray:
    """Image (H, W, C) float32, normalised -> (H, W, C x scales x KINDS) float32.

    At each scale: the mean, the logarithm of the standard deviation, the gradient's magnitude, the Laplacian; the last
    two made independent of the scale (Lindeberg 1998, IJCV 30:79). downsample: what the scales are multiplied by.
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
                np.log(np.sqrt(np.maximum(variance, 0)) + FLOOR),
                sigma * np.hypot(down, across),
                sigma * sigma * cv2.Laplacian(mean, cv2.CV_32F),
            ]
    return np.stack(found, axis=-1)

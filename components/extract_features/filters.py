"""Features that need no training: what a learned encoder has to beat."""

import cv2
import numpy as np

from components.extract_features.dense import DenseExtractor
from shared.normalise import match_channels

SCALES = (1.0, 2.0, 4.0, 8.0)
"""px of the image as the network sees it, of the Gaussian windows."""
FLOOR = 0.01
"""Standard deviation, in normalised intensity, below which texture does not count."""
KINDS = 4
"""Features of each channel and scale: see `responses`."""


class FilterExtractor(DenseExtractor):
    """Filter responses in the place of the encoder's tokens, on the same grid; the segmentor's foreground as ever."""

    @property
    def channels(self) -> int:
        """Features of a token."""
        return len(SCALES) * KINDS * self.config.channels

    def describe(self, image: np.ndarray, shifts: int) -> tuple[np.ndarray, np.ndarray | None]:
        """As of `DenseExtractor`: the mean of each response over the square that a token stands for."""
        probability = super().describe(image, 1)[1] if self.segmentor else None
        (rows, columns), stride, offset = self.geometry(image.shape[:2], shifts)
        shown = match_channels(self.config.normalisation(image), self.config.channels)
        height, width = image.shape[:2]
        beyond = (-offset, rows * stride + offset - height), (-offset, columns * stride + offset - width)
        planes = responses(np.pad(shown, (*beyond, (0, 0)), "symmetric"), self.config.shrink)
        tokens = planes.reshape(rows, stride, columns, stride, -1).mean(axis=(1, 3))
        return tokens.astype(np.float16), probability


def responses(image: np.ndarray, shrink: int = 1) -> np.ndarray:
    """Image (H, W, C) float32, normalised -> (H, W, C x scales x KINDS) float32.

    At each scale: the mean, the logarithm of the standard deviation, the gradient's magnitude, the Laplacian; the last
    two made independent of the scale (Lindeberg 1998, IJCV 30:79). shrink: what the scales are multiplied by.
    """
    found = []
    for channel in range(image.shape[2]):
        plane = np.ascontiguousarray(image[..., channel], np.float32)
        for sigma in (shrink * scale for scale in SCALES):
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

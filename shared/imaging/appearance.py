"""Describe the overall appearance of an image by percentiles of its intensities."""

import numpy as np

from shared.imaging.normalise import Normalisation, match_channels

_PERCENTILES = (10, 25, 50, 75, 90)
_STEP = 4
"""px between the sampled pixels, along both axes."""


def appearance(image: np.ndarray, limits: list[tuple[float, float]], normalisation: Normalisation) -> np.ndarray:
    """Image (H, W, C) -> (15,) float32: five intensity percentiles of each of three channels, normalised."""
    sampled = match_channels(normalisation.apply(image[::_STEP, ::_STEP], limits), 3)
    return np.percentile(sampled.reshape(-1, 3), _PERCENTILES, axis=0).astype(np.float32).ravel()

"""Describe how an image looks as a whole, by percentiles of its intensities."""

import numpy as np

from shared.imaging.normalise import Normalisation, match_channels

PERCENTILES = (10, 25, 50, 75, 90)
EVERY = 4
"""px; one pixel in so many, along both axes, is looked at."""


def appearance(image: np.ndarray, limits: list[tuple[float, float]], normalisation: Normalisation) -> np.ndarray:
    """How an image (H, W, C) looks as a whole: (15,) float32, percentiles of three channels, each normalised."""
    some = match_channels(normalisation.apply(image[::EVERY, ::EVERY], limits), 3)
    return np.percentile(some.reshape(-1, 3), PERCENTILES, axis=0).astype(np.float32).ravel()

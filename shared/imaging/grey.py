"""Reduce an image to one grey plane: a channel, the mean of the channels, or the amount of stain."""

import numpy as np

from shared.imaging.normalise import Normalisation

NORMALISATION = Normalisation()
MEAN, STAIN = -1, -2
"""Instead of a channel's number: the mean of all channels; how much light the stains take."""
LEAST_LIGHT = 0.02
"""Share of the light that is taken to come through at least: a darker pixel's optical density would be noise."""


def grey(image: np.ndarray, channel: int = MEAN) -> np.ndarray:
    """(H, W, C) of any dtype -> (H, W) float32, near [0, 1]: the mean of the normalised channels, or one of them.

    channel: from 0, or MEAN, or STAIN. An image that has not so many channels gives its mean.
    """
    if channel == STAIN and image.shape[2] >= 3:
        return stain(image)
    if 0 <= channel < image.shape[2]:
        return NORMALISATION(image[..., channel : channel + 1])[..., 0]
    return NORMALISATION(image).mean(axis=2)


def is_stained(image: np.ndarray) -> bool:
    """Whether light comes through an image (H, W, C), in three channels at least: a bright background, dark objects."""
    return image.shape[2] >= 3 and float(np.median(grey(image[::4, ::4]))) > 0.5


def stain(image: np.ndarray) -> np.ndarray:
    """How much of any stain there is: optical density of (H, W, >= 3) along its main axis, (H, W) float32 near [0, 1].

    The main axis is the first of the two that span the plane of the stains in Macenko et al. 2009 (ISBI, p. 1107).
    """
    density = -np.log(np.clip(NORMALISATION(image[..., :3]), LEAST_LIGHT, 1))
    step = max(1, int((density.size / 3 / 40_000) ** 0.5))
    axis = np.linalg.eigh(np.cov(density[::step, ::step].reshape(-1, 3).T))[1][:, -1]
    plane = density @ (axis * np.sign(axis.sum())).astype(np.float32)
    return NORMALISATION(plane[..., None])[..., 0]

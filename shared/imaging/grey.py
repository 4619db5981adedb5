"""Reduce an image to one grey plane: a channel, the mean of the channels, or the amount of stain."""

import math
from typing import Literal

import numpy as np

from shared.imaging.normalise import Normalisation

NORMALISATION = Normalisation()
"""Normalisation of every grey plane."""
UNCLIPPED = Normalisation(clip=(-math.inf, math.inf))
"""The same without limits: a rare foreground may lie far outside the percentiles."""
GreyChannel = int | Literal["mean", "stain"]
"""Source of a grey plane: a channel's number from 0, the mean of all channels, or the optical density of the stains."""
_MIN_TRANSMITTANCE = 0.02
"""Smallest share of transmitted light: below it the optical density is mostly noise."""


def grey(image: np.ndarray, channel: GreyChannel = "mean", normalisation: Normalisation = NORMALISATION) -> np.ndarray:
    """Image (H, W, C) of any dtype -> plane (H, W) float32, about [0, 1].

    normalisation: of a channel, and of the mean; the stain has its own. An image without the given channel, or with
    fewer than three channels for "stain", gives the mean of its channels.
    """
    if channel == "stain" and image.shape[2] >= 3:
        return stain(image)
    if isinstance(channel, int) and channel < image.shape[2]:
        return normalisation(image[..., channel : channel + 1])[..., 0]
    return normalisation(image).mean(axis=2)


def is_stained(image: np.ndarray) -> bool:
    """Tell whether an image (H, W, C) shows stained cells in transmitted light: 3 or more channels, mostly bright."""
    return image.shape[2] >= 3 and float(np.median(grey(image[::4, ::4]))) > 0.5


def stain(image: np.ndarray) -> np.ndarray:
    """Compute the amount of stain: the optical density of an image (H, W, >= 3) along its main axis, (H, W) float32.

    The main axis is the first of the two that span the plane of the stains in Macenko et al. 2009 (ISBI, p. 1107).
    The values are normalised to about [0, 1].
    """
    density = -np.log(np.clip(NORMALISATION(image[..., :3]), _MIN_TRANSMITTANCE, 1))
    step = max(1, int((density.size / 3 / 40_000) ** 0.5))
    axis = np.linalg.eigh(np.cov(density[::step, ::step].reshape(-1, 3).T))[1][:, -1]
    plane = density @ (axis * np.sign(axis.sum())).astype(np.float32)
    return NORMALISATION(plane[..., None])[..., 0]

"""Measure on one image what a proposal is selected by, over the images of a set that look alike."""

from dataclasses import dataclass

import numpy as np

from shared.assessment.estimated_dice import estimate_dice
from shared.imaging.appearance import appearance
from shared.imaging.filters import BALANCE_BRIGHT, BALANCE_DARK, smooth
from shared.imaging.grey import NORMALISATION, GreyChannel, grey, is_stained
from shared.instances.distance import typical_diameter
from shared.instances.watershed import split_touching
from shared.proposals.background import subtract_background
from shared.proposals.deviation import deviation_threshold, most_deviating_part, plausibility
from shared.proposals.local_threshold import local_probability
from shared.proposals.nested_threshold import nested_threshold
from shared.proposals.otsu import otsu, square_root
from shared.proposals.proposal import deviating_plane, texture_contrast
from shared.proposals.texture import TextureSample

_PLAIN_SPREADS = 3.0
"""Spreads of the background within which a pixel belongs to it."""
_PART_SIDE = 400
"""px; of larger images the part that deviates most from the background is assessed."""
Part = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class ImageStatistics:
    """What an image (H, W, C) shows of its foreground, without labels."""

    appearance: np.ndarray
    """(15,) float32, `shared.imaging.appearance`."""
    separability: dict[GreyChannel, float]
    """Otsu's, on every channel that the image can be thresholded on."""
    texture_contrast: dict[GreyChannel, float]
    """`shared.proposals.proposal.texture_contrast`, on the same channels."""
    estimated_dice: dict[GreyChannel, float]
    """Of the threshold of a channel, where there are several; without their mean. Empty where not measured."""
    plausibility: list[float]
    """Four: of dark and bright cells by their deviation from the background, and of dark and bright cells by the
    intensity. Stained cells are dark."""
    diameters: list[float]
    """Typical diameter of the objects that the plausibility is of, px; 0 where there are none."""
    nested: tuple[bool, bool]
    """Whether a dark and a bright foreground hold objects of one more level (`shared.proposals.nested_threshold`)."""
    texture: TextureSample

    @classmethod
    def of(cls, image: np.ndarray, *, with_estimates: bool = True) -> "ImageStatistics":
        """Measure an image (H, W, C). with_estimates: whether to estimate the Dice of each channel's threshold."""
        channels = intensity_channels(image)
        separability = {channel: _separability(image, channel) for channel in channels}
        contrast = {channel: texture_contrast(grey(image, channel)) for channel in channels}
        best = max(separability, key=separability.__getitem__)
        difference, spread = subtract_background(deviating_plane(image))
        part = most_deviating_part(difference, spread, _PART_SIDE)
        looks = [*_of_deviation(difference, spread, part), *_of_intensity(image, best, difference, spread, part)]
        estimates: dict[GreyChannel, float] = {
            channel: _estimated_dice(image, channel, contrast[channel] >= 0, part)
            for channel in channels
            if channel != "mean" and with_estimates
        }
        return cls(
            describe(image),
            separability,
            contrast,
            estimates,
            [plausible for plausible, _ in looks],
            [diameter for _, diameter in looks],
            _nested(image, best),
            TextureSample(grey(image)),
        )


def intensity_channels(image: np.ndarray) -> list[GreyChannel]:
    """Return the channels on which an image (H, W, C) can be thresholded."""
    channels = image.shape[2]
    stained: list[GreyChannel] = ["stain"] if is_stained(image) else []
    return [*stained, "mean", *(range(channels) if channels > 1 else [])]


def describe(image: np.ndarray) -> np.ndarray:
    """Describe how an image (H, W, C) looks: (15,) float32."""
    return appearance(image, NORMALISATION.limits(image), NORMALISATION)


def _separability(image: np.ndarray, channel: GreyChannel) -> float:
    values = smooth(grey(image, channel))
    return max(otsu(values).separability, otsu(square_root(values)).separability)


def _estimated_dice(image: np.ndarray, channel: GreyChannel, bright: bool, part: Part) -> float:
    """Estimated Dice of a channel's threshold, in a part of the image; bright: the side of the foreground."""
    values = smooth(grey(image, channel))
    sign = 1 if bright else -1
    level = otsu(square_root(values)).threshold ** 2 if bright else otsu(values).threshold
    mask = local_probability(sign * values[part], sign * level, BALANCE_BRIGHT if bright else BALANCE_DARK) >= 0.5
    return estimate_dice(image[part], split_touching(mask.astype(np.uint8))) or 0.0


def _nested(image: np.ndarray, channel: GreyChannel) -> tuple[bool, bool]:
    """Whether the dark and the bright side of a channel hold a nested level."""
    values = smooth(grey(image, channel))
    level = otsu(values).threshold
    return nested_threshold(values, level) != level, nested_threshold(-values, -level) != -level


def _of_deviation(difference: np.ndarray, spread: float, part: Part) -> list[tuple[float, float]]:
    """Plausibility and diameter of what is darker and of what is brighter than the background."""
    found = []
    for values in (-difference[part], difference[part]):
        threshold = deviation_threshold(values, spread)
        found.append((0.0, 0.0) if threshold is None else _plausible(values, threshold, difference[part], spread))
    return found


def _of_intensity(
    image: np.ndarray, channel: GreyChannel, difference: np.ndarray, spread: float, part: Part
) -> list[tuple[float, float]]:
    """Plausibility and diameter of dark and of bright cells by a channel.

    A side counts as much less plausible where it takes in background elsewhere, as a threshold does if the background
    is uneven.
    difference, spread: of the mean of the channels from its background.
    """
    values = smooth(grey(image, channel))
    dark, bright = otsu(values).threshold, otsu(square_root(values)).threshold ** 2
    of_channel, spread = (difference, spread) if channel == "mean" else subtract_background(values)
    sides = ((-values[part], -dark), (values[part], bright))
    found = []
    for (in_part, threshold), side in zip(sides, (values < dark, values > bright), strict=True):
        plausible, diameter = _plausible(in_part, threshold, of_channel[part], spread)
        not_plain = float((np.abs(of_channel[side]) > _PLAIN_SPREADS * spread).mean()) if side.any() else 0.0
        found.append((plausible * not_plain, diameter))
    return found[::-1] if channel == "stain" else found


def _plausible(values: np.ndarray, threshold: float, difference: np.ndarray, spread: float) -> tuple[float, float]:
    """Plausibility and diameter of the mask that grows from a threshold; values (H, W) are high in the foreground."""
    mask = (local_probability(values, threshold, BALANCE_DARK) >= 0.5).astype(np.uint8)
    return plausibility(mask, difference, spread), typical_diameter(mask) or 0.0

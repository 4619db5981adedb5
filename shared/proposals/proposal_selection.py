"""Select, without labels, the classical proposal that suits each image of a set.

The candidates are the intensity of every channel and of their mean, that of the stain in stained images, and texture
(`shared.proposals.proposal`). The criterion is Otsu's separability of the intensities, on the channel where it is
highest: above that of a normal distribution, which has no classes, the channel is thresholded; below it, the texture
is. The separability is averaged over images that look alike, which decides more reliably than a single image. These
images also decide together which side of the threshold is the foreground, by the texture of both sides.

Figures: RESULTS.md, "Constants".
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from shared.imaging.appearance import appearance
from shared.imaging.filters import log_local_std, smooth
from shared.imaging.grey import NORMALISATION, GreyChannel, grey, is_stained
from shared.proposals.otsu import NORMAL_SEPARABILITY, OtsuThreshold, otsu, square_root
from shared.proposals.proposal import Proposal, texture_contrast

_KIND_BANDWIDTH, _CHANNEL_BANDWIDTH = 0.05, 0.2
"""Root mean square difference of appearance within which images share the decision between intensity and texture; and
the choice of channel and foreground side, which depends on the kind of stains, not on their amount."""
_MIN_WEIGHT = 0.1
"""Total weight of the images that look alike, below which a channel counts as missing in them."""
_TEXTURE_SAMPLE_PX = 40_000
"""Pixels of each image that the texture threshold is fitted to, about."""


@dataclass
class ProposalSelection:
    """Statistics of some images of a set, by which a proposal is selected for any image of the set."""

    appearances: np.ndarray
    """(n, 15) float32, `shared.imaging.appearance` of each image."""
    channels: tuple[GreyChannel, ...]
    """Channels that any of the images can be thresholded on."""
    separability: np.ndarray
    """(n, channels) float64, Otsu's; nan where the image lacks the channel."""
    texture_contrast: np.ndarray
    """(n, channels) float64, `shared.proposals.proposal.texture_contrast`; nan where the image lacks the channel."""
    texture: OtsuThreshold
    """Threshold of the texture over the images that it serves; over all images where it serves none."""

    @classmethod
    def fit(cls, images: Iterable[np.ndarray]) -> "ProposalSelection":
        """Collect the statistics of images of a set, each (H, W, C)."""
        appearances, separabilities, contrasts, textures = [], [], [], []
        for image in images:
            channels = intensity_channels(image)
            appearances.append(_appearance(image))
            separabilities.append({channel: _separability(image, channel) for channel in channels})
            contrasts.append({channel: texture_contrast(grey(image, channel)) for channel in channels})
            textures.append(_sampled_texture(image))
        every = tuple(sorted(set().union(*separabilities), key=_rank))
        selection = cls(
            np.array(appearances, np.float32),
            every,
            _table(separabilities, every),
            _table(contrasts, every),
            otsu(np.concatenate(textures) if textures else np.empty(0)),
        )
        served = [values for values, one in zip(textures, selection.fitted(), strict=True) if one.kind == "texture"]
        if served:
            selection.texture = otsu(np.concatenate(served))
        return selection

    def select(self, image: np.ndarray) -> Proposal:
        """Select the proposal for an image (H, W, C) by the fitted images that look like it."""
        return self._select(_appearance(image), intensity_channels(image))

    def probability(self, image: np.ndarray) -> np.ndarray:
        """Foreground probability of an image (H, W, C) by its proposal: (H, W) float32 in (0, 1)."""
        return self.select(image).probability(image)

    def candidates(self) -> list[Proposal]:
        """Return every proposal that can be selected: one for each channel, and texture."""
        medians = [float(np.median(column[~np.isnan(column)])) for column in self.separability.T]
        intensities = [_by_intensity(channel, value) for channel, value in zip(self.channels, medians, strict=True)]
        return [*intensities, self._by_texture()]

    def fitted(self) -> list[Proposal]:
        """Return the proposal of each fitted image, in their order."""
        there = ~np.isnan(self.separability)
        return [
            self._select(descriptor, [channel for channel, found in zip(self.channels, row, strict=True) if found])
            for descriptor, row in zip(self.appearances, there, strict=True)
        ]

    def _select(self, descriptor: np.ndarray, channels: list[GreyChannel]) -> Proposal:
        """Select by an image's appearance (15,) and the channels it has."""
        channel, separability = self._best_channel(descriptor, channels)
        if separability <= NORMAL_SEPARABILITY:
            return self._by_texture()
        contrast = self._mean(self.texture_contrast, descriptor, _CHANNEL_BANDWIDTH).get(channel)
        return _by_intensity(channel, separability, None if contrast is None else contrast >= 0)

    def _by_texture(self) -> Proposal:
        return Proposal(kind="texture", **self.texture.model_dump())

    def _best_channel(self, descriptor: np.ndarray, channels: list[GreyChannel]) -> tuple[GreyChannel, float]:
        """Channel to threshold and its separability, by the fitted images of similar appearance (15,)."""
        if not len(self.appearances):
            return "mean", 1.0
        near, wide = (
            self._mean(self.separability, descriptor, width) for width in (_KIND_BANDWIDTH, _CHANNEL_BANDWIDTH)
        )
        best = max(channels, key=lambda channel: (channel != "mean", wide.get(channel, 0.0)))
        return best, max(near.get(best, 0.0), near.get("mean", 0.0))

    def _mean(self, table: np.ndarray, descriptor: np.ndarray, bandwidth: float) -> dict[GreyChannel, float]:
        """Mean of each column of `table` (n, channels) over images of similar appearance (15,); without missing ones.

        Weights are a Gaussian of the difference of appearance, 1 for the nearest image.
        """
        if not len(self.appearances):
            return {}
        distance = ((self.appearances - descriptor) ** 2).mean(axis=1)
        weight = np.exp((distance.min() - distance) / (2 * bandwidth**2))[:, None] * ~np.isnan(table)
        total = weight.sum(axis=0)
        mean = (weight * np.nan_to_num(table)).sum(axis=0) / np.maximum(total, _MIN_WEIGHT)
        return {channel: float(mean[i]) for i, channel in enumerate(self.channels) if total[i] > _MIN_WEIGHT}


def intensity_channels(image: np.ndarray) -> list[GreyChannel]:
    """Return the channels on which an image (H, W, C) can be thresholded."""
    channels = image.shape[2]
    stained: list[GreyChannel] = ["stain"] if is_stained(image) else []
    return [*stained, "mean", *(range(channels) if channels > 1 else [])]


def _rank(channel: GreyChannel) -> int:
    """Order of channels: stain, mean, 0, 1, ..."""
    return channel if isinstance(channel, int) else {"stain": -2, "mean": -1}[channel]


def _table(rows: list[dict[GreyChannel, float]], channels: tuple[GreyChannel, ...]) -> np.ndarray:
    """Values of images by channel -> (n, channels) float64, nan where an image lacks the channel."""
    values = [[row.get(channel, np.nan) for channel in channels] for row in rows]
    return np.array(values).reshape(len(rows), len(channels))


def _appearance(image: np.ndarray) -> np.ndarray:
    return appearance(image, NORMALISATION.limits(image), NORMALISATION)


def _sampled_texture(image: np.ndarray) -> np.ndarray:
    """Texture of evenly spread pixels of an image (H, W, C): (n,) float32."""
    values = log_local_std(grey(image))
    step = max(1, int((values.size / _TEXTURE_SAMPLE_PX) ** 0.5))
    return values[::step, ::step].ravel()


def _separability(image: np.ndarray, channel: GreyChannel) -> float:
    values = smooth(grey(image, channel))
    return max(otsu(values).separability, otsu(square_root(values)).separability)


def _by_intensity(channel: GreyChannel, separability: float, foreground_is_bright: bool | None = None) -> Proposal:
    return Proposal(
        kind="intensity", separability=separability, channel=channel, foreground_is_bright=foreground_is_bright
    )

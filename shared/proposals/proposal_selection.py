"""Select, without labels, the classical proposal that suits each image of a set.

The candidates are the intensity of every channel and of their mean, that of the stain in stained images, what deviates
from the background to either side, and texture (`shared.proposals.proposal`). Of several channels the one is best whose
classes are well apart and whose mask looks like cells (`shared.assessment.estimated_dice`). The criterion is Otsu's
separability of that channel: above that of a normal distribution, which has no classes, the channel is thresholded.
Below it, a deviation is taken if it looks like cells
(`shared.proposals.deviation.plausibility`), else the texture is thresholded. A deviation also replaces an intensity
that looks much less like cells, on the same side if that intensity looks like cells at all. All criteria are averaged
over images that look alike, which decides more reliably than a single image. These images also decide together which
side of the threshold is the foreground: the one with more texture, unless the other one looks much more like cells.

The typical diameter of the objects is measured on the way, for images whose own are far larger
(`shared.proposals.outsized`). Scale bars and text do not count (`shared.imaging.graphics`).

Figures: RESULTS.md, "Constants".
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from shared.imaging.graphics import without_graphics
from shared.imaging.grey import GreyChannel
from shared.proposals.image_statistics import ImageStatistics, describe, intensity_channels
from shared.proposals.otsu import NORMAL_SEPARABILITY
from shared.proposals.proposal import Foreground, Proposal
from shared.proposals.texture import TextureThreshold, fit_texture

_KIND_BANDWIDTH, _CHANNEL_BANDWIDTH = 0.05, 0.2
"""Root mean square difference of appearance within which images share the decision between intensity and texture; and
the choice of channel and foreground side, which depends on the kind of stains, not on their amount."""
_MIN_WEIGHT = 0.1
"""Total weight of the images that look alike, below which a channel counts as missing in them."""
MIN_PLAUSIBILITY = 0.14
"""Plausibility, weighted by its share of both sides' (`one_sided`), from which on a deviation is taken."""
_MIN_PLAUSIBILITY_RATIO = 1.5
"""Ratio of plausibilities from which on a deviation replaces an intensity, and one side of an intensity the other."""
_MIN_MEASURED = 3.0
"""Total weight of the images that look alike, from which on their objects' size, and an inner level, are known."""
_SEPARABILITY_EXPONENT = 3
"""Weight of a channel's separability against the estimated Dice of its threshold."""
_ESTIMATED_EVERY = 4
"""Of so many images one is measured for the estimated Dice of its channels, which takes two fifths of its time."""
_NESTED_SHARE = 0.5
"""Share of the images that look alike above which their foregrounds are taken to be nested."""


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
    estimated_dice: np.ndarray
    """(n, channels) float64, of the channel's threshold; nan where the image lacks the channel or has but one, where it
    was not measured, and for the mean of the channels."""
    plausibility: np.ndarray
    """(n, 4) float64, of dark and bright cells by their deviation from the background, and of dark and bright cells by
    the intensity. Stained cells are dark."""
    diameters: np.ndarray
    """(n, 4) float64, px; typical diameter of the objects that the plausibility is of; 0 where there are none."""
    nested: np.ndarray
    """(n, 2) float64 {0, 1}, whether a dark and a bright foreground hold an inner level."""
    texture: TextureThreshold
    """Window and threshold of the texture over the images that it serves; over all images where it serves none."""
    foreground: Foreground = "auto"
    """How cells differ from the background, where that is known."""

    @classmethod
    def fit(cls, images: Iterable[np.ndarray], foreground: Foreground = "auto") -> "ProposalSelection":
        """Collect the statistics of images of a set, each (H, W, C)."""
        measured = [
            ImageStatistics.of(without_graphics(image), with_estimates=number % _ESTIMATED_EVERY == 0)
            for number, image in enumerate(images)
        ]
        channels = tuple(sorted({channel for one in measured for channel in one.separability}, key=_rank))
        textures = [one.texture for one in measured]
        selection = cls(
            np.array([one.appearance for one in measured], np.float32),
            channels,
            _table([one.separability for one in measured], channels),
            _table([one.texture_contrast for one in measured], channels),
            _table([one.estimated_dice for one in measured], channels),
            np.array([one.plausibility for one in measured]).reshape(-1, 4),
            np.array([one.diameters for one in measured]).reshape(-1, 4),
            np.array([one.nested for one in measured], np.float64).reshape(-1, 2),
            fit_texture(textures),
            foreground,
        )
        served = [sample for sample, one in zip(textures, selection.fitted(), strict=True) if one.kind == "texture"]
        if served:
            selection.texture = fit_texture(served)
        return selection

    def select(self, image: np.ndarray) -> Proposal:
        """Select the proposal for an image (H, W, C) by the fitted images that look like it."""
        image = without_graphics(image)
        return self._select(describe(image), intensity_channels(image))

    def probability(self, image: np.ndarray) -> np.ndarray:
        """Foreground probability of an image (H, W, C) by its proposal: (H, W) float32 in (0, 1)."""
        return self.select(image).probability(image)

    def candidates(self) -> list[Proposal]:
        """Return every proposal that can be selected: one for each channel, both deviations, and texture."""
        medians = [float(np.median(column[~np.isnan(column)])) for column in self.separability.T]
        nested = bool(len(self.nested) and (self.nested.mean(axis=0) > _NESTED_SHARE).any())
        intensities = [
            _by_intensity(channel, value, nested=nested) for channel, value in zip(self.channels, medians, strict=True)
        ]
        dark, bright = np.median(self.plausibility[:, :2], axis=0).tolist() if len(self.plausibility) else (0.0, 0.0)
        deviations = [_by_deviation(False, dark), _by_deviation(True, bright)]
        return [*intensities, *deviations, self._by_texture()]

    def fitted(self) -> list[Proposal]:
        """Return the proposal of each fitted image, in their order."""
        there = ~np.isnan(self.separability)
        return [
            self._select(descriptor, [channel for channel, found in zip(self.channels, row, strict=True) if found])
            for descriptor, row in zip(self.appearances, there, strict=True)
        ]

    def _select(self, descriptor: np.ndarray, channels: list[GreyChannel]) -> Proposal:
        """Select by an image's appearance (15,) and the channels it has; add the size of the objects."""
        found = self._select_kind(descriptor, channels)
        if found.kind == "texture" or found.foreground_is_bright is None:
            return found
        column = found.foreground_is_bright != (found.channel == "stain")
        diameter = self._typical_diameter(descriptor, column + 2 * (found.kind == "intensity"))
        return found.model_copy(update={"object_diameter": diameter})

    def _typical_diameter(self, descriptor: np.ndarray, column: int) -> float | None:
        """Weighted median of a column of `diameters` over images of similar appearance; None of too few images."""
        values = self.diameters[:, column]
        weight = _weights(self.appearances, descriptor, _CHANNEL_BANDWIDTH) * (values > 0)
        if weight.sum() < _MIN_MEASURED:
            return None
        order = np.argsort(values)
        reached = np.cumsum(weight[order])
        return float(values[order[np.searchsorted(reached, reached[-1] / 2)]])

    def _select_kind(self, descriptor: np.ndarray, channels: list[GreyChannel]) -> Proposal:
        if self.foreground == "textured":
            return self._by_texture()
        channel, separability = self._best_channel(descriptor, channels)
        plausible = self._column_means(self.plausibility, descriptor, _KIND_BANDWIDTH)
        if separability <= NORMAL_SEPARABILITY:
            needed = MIN_PLAUSIBILITY if self.foreground == "auto" else 0.0
            return self._deviation(plausible, needed) or self._by_texture()
        contrast = self._mean(self.texture_contrast, descriptor, _CHANNEL_BANDWIDTH).get(channel)
        if contrast is None:
            return _by_intensity(channel, separability)
        is_stain = channel == "stain"
        bright = self._cells_are_bright((contrast >= 0) != is_stain, plausible)
        needed = max(MIN_PLAUSIBILITY, _MIN_PLAUSIBILITY_RATIO * plausible[2 + bright])
        deviation = self._deviation(plausible, needed)
        if deviation and plausible[2 + bright] >= MIN_PLAUSIBILITY and deviation.foreground_is_bright != bright:
            deviation = None  # a scale bar or a text deviates more than cells do
        if deviation:
            return deviation
        return _by_intensity(channel, separability, bright != is_stain, self._is_nested(descriptor, bright != is_stain))

    def _is_nested(self, descriptor: np.ndarray, bright: bool) -> bool:
        """Whether foregrounds on this side have an inner level in most images that look alike; one alone is too few."""
        weight = _weights(self.appearances, descriptor, _KIND_BANDWIDTH)
        needed = max(float(weight.sum()), min(_MIN_MEASURED, float(len(weight))))
        return float(weight @ self.nested[:, int(bright)]) > _NESTED_SHARE * needed

    def _cells_are_bright(self, more_textured: bool, plausible: dict[int, float]) -> bool:
        """Which side of an intensity the cells are on; more_textured: whether the bright side has more texture."""
        if self.foreground != "auto":
            return self.foreground == "bright"
        one, other = plausible[2 + more_textured], plausible[3 - more_textured]
        return more_textured != (one_sided(other, one) >= max(MIN_PLAUSIBILITY, _MIN_PLAUSIBILITY_RATIO * one))

    def _deviation(self, plausible: dict[int, float], needed: float) -> Proposal | None:
        """The deviation to the side of the cells, else the more plausible one; None where it has less than is needed.

        plausible: means of the columns of `plausibility`.
        """
        if not plausible:
            return None
        bright = plausible[1] > plausible[0] if self.foreground == "auto" else self.foreground == "bright"
        found = one_sided(plausible[bright], plausible[not bright])
        return _by_deviation(bright, found) if found >= needed else None

    def _by_texture(self) -> Proposal:
        return Proposal(kind="texture", **self.texture.model_dump())

    def _best_channel(self, descriptor: np.ndarray, channels: list[GreyChannel]) -> tuple[GreyChannel, float]:
        """Channel to threshold and its separability, by the fitted images of similar appearance (15,)."""
        if not len(self.appearances):
            return "mean", 1.0
        near, wide = (
            self._mean(self.separability, descriptor, width) for width in (_KIND_BANDWIDTH, _CHANNEL_BANDWIDTH)
        )
        looks = self._mean(self.estimated_dice, descriptor, _CHANNEL_BANDWIDTH)

        def rank(channel: GreyChannel) -> tuple[bool, float, float]:
            separability = wide.get(channel, 0.0)
            return channel != "mean", separability**_SEPARABILITY_EXPONENT * looks.get(channel, 0.0), separability

        best = max(channels, key=rank)
        return best, max(near.get(best, 0.0), near.get("mean", 0.0))

    def _mean(self, table: np.ndarray, descriptor: np.ndarray, bandwidth: float) -> dict[GreyChannel, float]:
        """Mean of each channel's column of `table` (n, channels), see `_column_means`."""
        means = self._column_means(table, descriptor, bandwidth)
        return {self.channels[column]: mean for column, mean in means.items()}

    def _column_means(self, table: np.ndarray, descriptor: np.ndarray, bandwidth: float) -> dict[int, float]:
        """Mean of each column of `table` (n, columns) over images of similar appearance (15,); without missing ones.

        Weights are a Gaussian of the difference of appearance, 1 for the nearest image.
        """
        if not len(self.appearances):
            return {}
        weight = _weights(self.appearances, descriptor, bandwidth)[:, None] * ~np.isnan(table)
        total = weight.sum(axis=0)
        mean = (weight * np.nan_to_num(table)).sum(axis=0) / np.maximum(total, _MIN_WEIGHT)
        return {column: float(mean[column]) for column in range(table.shape[1]) if total[column] > _MIN_WEIGHT}


def _weights(appearances: np.ndarray, descriptor: np.ndarray, bandwidth: float) -> np.ndarray:
    """Gaussian of the difference of appearances (n, 15) from one (15,): (n,), 1 for the nearest."""
    distance = ((appearances - descriptor) ** 2).mean(axis=1)
    return np.exp((distance.min() - distance) / (2 * bandwidth**2))


def _rank(channel: GreyChannel) -> int:
    """Order of channels: stain, mean, 0, 1, ..."""
    return channel if isinstance(channel, int) else {"stain": -2, "mean": -1}[channel]


def _table(rows: list[dict[GreyChannel, float]], channels: tuple[GreyChannel, ...]) -> np.ndarray:
    """Values of images by channel -> (n, channels) float64, nan where an image lacks the channel."""
    values = [[row.get(channel, np.nan) for channel in channels] for row in rows]
    return np.array(values).reshape(len(rows), len(channels))


def one_sided(plausible: float, other: float) -> float:
    """Plausibility of one side, times its share of the sum of both.

    Cells that differ by their intensity do so to one side. Fragments of flat cells in phase contrast are as plausible
    to either side.
    """
    return plausible * plausible / (plausible + other) if plausible > 0 else 0.0


def _by_deviation(foreground_is_bright: bool, plausible: float) -> Proposal:
    return Proposal(kind="deviation", separability=plausible, foreground_is_bright=foreground_is_bright)


def _by_intensity(
    channel: GreyChannel, separability: float, bright: bool | None = None, nested: bool = False
) -> Proposal:
    return Proposal(
        kind="intensity", separability=separability, channel=channel, foreground_is_bright=bright, is_nested=nested
    )

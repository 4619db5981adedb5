"""Which classical proposal serves which image of a set, without labels.

Side by side stand the intensity of every channel and of their mean, that of the stain in light images of three
channels, and texture (`shared.proposals.proposal`). What decides is how far intensities fall into two classes: Otsu's
separability, of the plane where it is highest. Above that of a normal distribution, which has no classes, the plane is
thresholded; below it, texture is. Measured on single images it is 0.66 to 0.93 on fluorescence and tissue, 0.44 to 0.68
on phase contrast; averaged over images that look alike no image of five kinds falls on the wrong side, in a set of all
of them neither.

Which side of the threshold is the foreground, too, images that look alike tell together, by the texture of both sides.

Of an image's planes, separability ranks how good a threshold is as labels do (Dice on purple and on light tissue):
green .82 (.84, .88), red .80 (.83, .82), stain .79 (.84, .86), mean .79 (.77, .84), blue .69 (.44, .61).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from shared.imaging.appearance import appearance
from shared.imaging.filters import intensity, texture
from shared.imaging.grey import MEAN, NORMALISATION, STAIN, grey, is_stained
from shared.proposals.otsu import UNIMODAL, Split, otsu, rooted
from shared.proposals.proposal import Proposal, brightness

ALIKE, AKIN = 0.05, 0.2
"""Root mean square difference of the looks of images that are thresholded or not for the same reason; of those that are
thresholded on the same plane, which is a matter of the stains, not of how much of them there is."""
LEAST_WEIGHT = 0.1
"""Of all images that look like one: below it a plane is taken as missing in that one."""
LOOKED_AT = 40_000
"""px of each image whose texture the threshold is fitted to, about."""


@dataclass
class ProposalSelection:
    """What was seen of some images of a set, and by it the proposal for any of its images."""

    looks: np.ndarray
    """(n, 15) float32, `shared.imaging.appearance.look` of each image seen."""
    planes: tuple[int, ...]
    """Channels, MEAN or STAIN."""
    separability: np.ndarray
    """(n, planes) float64, Otsu's; nan where the image has no such plane."""
    brightness: np.ndarray
    """(n, planes) float64, `shared.proposals.proposal.brightness`; nan where the image has no such plane."""
    textured: Split
    """Of the texture of the images that it serves; of all where it serves none."""

    @classmethod
    def among(cls, images: Iterable[np.ndarray]) -> "ProposalSelection":
        """See some images of a set, each (H, W, C)."""
        looks, found, sides, textures = [], [], [], []
        for image in images:
            looks.append(appearance(image, NORMALISATION.limits(image), NORMALISATION))
            found.append({plane: _separability(image, plane) for plane in planes_of(image)})
            sides.append({plane: brightness(grey(image, plane)) for plane in found[-1]})
            values = texture(grey(image))
            step = max(1, int((values.size / LOOKED_AT) ** 0.5))
            textures.append(values[::step, ::step].ravel())
        planes = tuple(sorted(set().union(*found)))
        table, bright = (
            np.array([one.get(plane, np.nan) for one in each for plane in planes]).reshape(len(each), len(planes))
            for each in (found, sides)
        )
        everything = otsu(np.concatenate(textures) if textures else np.empty(0))
        choice = cls(np.array(looks, np.float32), planes, table, bright, everything)
        served = [values for values, one in zip(textures, choice.taken(), strict=True) if one.kind == "texture"]
        if served:
            choice.textured = otsu(np.concatenate(served))
        return choice

    def proposal(self, image: np.ndarray) -> Proposal:
        """The one for an image (H, W, C), by those seen that look like it."""
        return self._by(appearance(image, NORMALISATION.limits(image), NORMALISATION), planes_of(image))

    def probability(self, image: np.ndarray) -> np.ndarray:
        """Foreground probability of an image (H, W, C): (H, W) float32 in (0, 1)."""
        return self.proposal(image).probability(image)

    def each(self) -> list[Proposal]:
        """Every kind of proposal by itself."""
        medians = [float(np.median(column[~np.isnan(column)])) for column in self.separability.T]
        of_planes = [_thresholded(plane, value) for plane, value in zip(self.planes, medians, strict=True)]
        return [*of_planes, self._texture()]

    def taken(self) -> list[Proposal]:
        """What each of the images seen gets, in their order."""
        return [
            self._by(one, [plane for plane, value in zip(self.planes, found, strict=True) if not np.isnan(value)])
            for one, found in zip(self.looks, self.separability, strict=True)
        ]

    def _by(self, looks_like: np.ndarray, planes: list[int]) -> Proposal:
        plane, separability = self._best(looks_like, planes)
        if separability <= UNIMODAL:
            return self._texture()
        side = self._mean(self.brightness, looks_like, AKIN).get(plane)
        return _thresholded(plane, separability, None if side is None else side >= 0)

    def _texture(self) -> Proposal:
        split = self.textured
        return Proposal(kind="texture", separability=split.separability, threshold=split.threshold, spread=split.spread)

    def _best(self, looks_like: np.ndarray, planes: list[int]) -> tuple[int, float]:
        """Of these planes the one to threshold, and its separability, of images that look like this (15,)."""
        if not len(self.looks):
            return MEAN, 1.0
        alike, akin = (self._mean(self.separability, looks_like, width) for width in (ALIKE, AKIN))
        best = max(planes, key=lambda plane: (plane != MEAN, akin.get(plane, 0.0)))
        return best, max(alike.get(best, 0.0), alike.get(MEAN, 0.0))

    def _mean(self, table: np.ndarray, looks_like: np.ndarray, width: float) -> dict[int, float]:
        """Of each plane, the mean of `table` (n, planes) over images that look like this (15,); none that none has.

        Weights are a Gaussian of the difference of looks, and 1 for the nearest image.
        """
        if not len(self.looks):
            return {}
        distance = ((self.looks - looks_like) ** 2).mean(axis=1)
        weight = np.exp((distance.min() - distance) / (2 * width**2))[:, None] * ~np.isnan(table)
        total = weight.sum(axis=0)
        mean = (weight * np.nan_to_num(table)).sum(axis=0) / np.maximum(total, LEAST_WEIGHT)
        return {plane: float(mean[i]) for i, plane in enumerate(self.planes) if total[i] > LEAST_WEIGHT}


def planes_of(image: np.ndarray) -> list[int]:
    """What an image (H, W, C) can be thresholded on."""
    channels = image.shape[2]
    return [*([STAIN] if is_stained(image) else []), MEAN, *(range(channels) if channels > 1 else [])]


def _separability(image: np.ndarray, plane: int) -> float:
    values = intensity(grey(image, plane))
    return max(otsu(values).separability, otsu(rooted(values)).separability)


def _thresholded(plane: int, separability: float, bright: bool | None = None) -> Proposal:
    return Proposal(kind="intensity", separability=separability, channel=plane, bright=bright)

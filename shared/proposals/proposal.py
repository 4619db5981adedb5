"""Propose the foreground of an image by a classical threshold, before anything is learned.

A proposal thresholds one of two maps by Otsu's method (Otsu 1979, IEEE Trans. SMC 9(1)): an intensity, lightly
smoothed, or the texture, which is the logarithm of the local standard deviation. Texture serves phase contrast better.
A third takes what deviates from the background to one side (`shared.proposals.deviation`), for few objects on a plain
background. `shared.proposals.proposal_selection` selects one of them for each image.

- The side of an intensity threshold with more texture is the foreground: bright nuclei, or dark ones in tissue. Images
  that look alike decide it together: of 43 purple tissue sections, two are mostly smooth red muscle, darker than
  anything else, and each alone would take everything but muscle and nuclei for cells.
- A dark foreground may contain darker objects, such as nuclei in stained cytoplasm, and a bright one brighter objects:
  `nested_threshold`. Images that look alike decide it together: in a single image a steeper contour may only mean that
  some nuclei differ more than others. Otherwise Otsu's method works on the square root of the intensity of bright
  objects, which compresses outliers.
- In an image with few cells on an uneven background, the threshold may divide the background. What deviates from it is
  taken there instead.
- One level for a whole image joins close nuclei through the haze between them and loses dim ones beside bright ones. So
  the level is only the start of `local_probability`.

Figures: RESULTS.md, "Constants".
"""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from shared.imaging.filters import BALANCE_BRIGHT, BALANCE_DARK, WINDOW, log_local_std, smooth
from shared.imaging.graphics import without_graphics
from shared.imaging.grey import UNCLIPPED, GreyChannel, grey
from shared.instances.borders.pale_centres import pale_centres
from shared.proposals.deviation import deviation_probability, is_mostly_background
from shared.proposals.local_threshold import (
    UNDECIDED_PROBABILITY,
    local_probability,
    sigmoid,
)
from shared.proposals.nested_threshold import nested_threshold
from shared.proposals.otsu import NORMAL_SEPARABILITY, otsu, square_root
from shared.proposals.outsized import is_outsized, probability_within_windows

Foreground = Literal["auto", "dark", "bright", "textured"]
"""How cells differ from the background: darker, brighter, or by their texture; auto: as the images tell."""
_CENTRE_PROBABILITY = 0.65
"""Probability of the pale centre of an object."""
_BIMODAL_SHARE = 0.9
"""Share of a normal distribution's separability below which an image shows no two classes of intensity."""


class Proposal(BaseModel):
    """How to propose the foreground of an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["intensity", "texture", "deviation"]
    separability: float
    """Otsu's: of the intensity in images that look alike, or of the texture of all images that it serves. Of a
    deviation: its plausibility in images that look alike."""
    threshold: float = 0.0
    """Texture threshold of the whole set; intensity is thresholded image by image."""
    mean_difference: float = 1.0
    """Difference of the two classes' mean texture."""
    window: float = WINDOW
    """px; window of the texture."""
    channel: GreyChannel = "mean"
    """Source of the intensity."""
    object_diameter: float | None = None
    """Typical diameter of the objects in images that look alike, px: an image whose own objects are far larger is
    thresholded anew, see `shared.proposals.outsized`. None: no image is."""
    foreground_is_bright: bool | None = None
    """Whether the foreground is above the intensity threshold; None: the side with more texture in each image. A
    deviation has one side."""

    is_nested: bool = False
    """Whether the foreground of an intensity holds objects of one more level, which are looked for."""

    @property
    def name(self) -> str:
        """Name on pages; channels count from 1."""
        if self.kind == "deviation":
            return "brighter than the background" if self.foreground_is_bright else "darker than the background"
        if self.kind == "texture" or self.channel == "mean":
            return self.kind
        return "stain" if self.channel == "stain" else f"{self.kind} of channel {self.channel + 1}"

    def probability(self, image: np.ndarray) -> np.ndarray:
        """Foreground probability of an image (H, W, C): (H, W) float32 in (0, 1). Drawn scale bars are background."""
        image = without_graphics(image)
        if self.kind != "texture":
            found = self._with_centres(image, self._by_level(image))
            anew = self._within_windows(image, (found >= 0.5).astype(np.uint8))
            return found if anew is None else anew
        plane = grey(image)
        if self.separability == 0:  # all images are constant
            return np.full(plane.shape, UNDECIDED_PROBABILITY, np.float32)
        return sigmoid((log_local_std(plane, self.window) - self.threshold) / self.mean_difference)

    def _by_level(self, image: np.ndarray) -> np.ndarray:
        if self.kind == "deviation":
            return deviation_probability(deviating_plane(image), bool(self.foreground_is_bright))
        plane, bright = grey(image, self.channel), self.foreground_is_bright
        found = _intensity_probability(plane, bright, inverted=image.shape[2] == 1, nested=self.is_nested)
        if bright is None or not is_mostly_background(smooth(plane), found >= 0.5):
            return found
        deviating = deviation_probability(smooth(grey(image, self.channel, UNCLIPPED)), bright)
        return deviating if (deviating >= 0.5).any() else found

    def _with_centres(self, image: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Raise the probability (H, W) of the pale centres of objects, such as red blood cells."""
        plane = grey(image, self.channel, UNCLIPPED)
        centres = pale_centres((probability >= 0.5).astype(np.uint8), plane)
        return np.where(centres, np.maximum(probability, _CENTRE_PROBABILITY), probability).astype(np.float32)

    def _within_windows(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        """Probability of an image (H, W, C) whose mask (H, W) has outsized objects; None where it has not."""
        bright, diameter = self.foreground_is_bright, self.object_diameter
        if diameter is None or bright is None or not is_outsized(mask, diameter):
            return None
        values = smooth(grey(image, self.channel, UNCLIPPED))
        balance = BALANCE_BRIGHT if bright else BALANCE_DARK
        return probability_within_windows(values if bright else -values, mask, diameter, balance)


def deviating_plane(image: np.ndarray) -> np.ndarray:
    """Plane (H, W) float32 of an image (H, W, C) that deviations are found on: smoothed, not clipped."""
    return smooth(grey(image, "mean", UNCLIPPED))


def texture_contrast(plane: np.ndarray) -> float:
    """Mean texture of a grey plane (H, W) above Otsu's threshold, minus that below; 0 where one side is empty."""
    values = smooth(plane)
    above, texture = values > otsu(values).threshold, log_local_std(plane)
    if above.all() or not above.any():
        return 0.0
    return float(texture[above].mean() - texture[~above].mean())


def _intensity_probability(
    plane: np.ndarray, foreground_is_bright: bool | None, *, inverted: bool = False, nested: bool = False
) -> np.ndarray:
    """Foreground probability by the intensity of a plane (H, W); undecided where it shows no two classes.

    foreground_is_bright: whether the foreground is above the threshold; None: the side with more texture. inverted:
    whether dark objects that are not nested are thresholded as bright ones of the inverted plane. nested: whether the
    foreground holds objects of one more level.
    """
    values = smooth(plane)
    plain, of_root = otsu(values), otsu(square_root(values))
    if max(plain.separability, of_root.separability) < _BIMODAL_SHARE * NORMAL_SEPARABILITY:
        return np.full(values.shape, UNDECIDED_PROBABILITY, np.float32)
    bright = texture_contrast(plane) >= 0 if foreground_is_bright is None else foreground_is_bright
    sign = -1 if bright else 1
    if nested and (found := _inner_probability(sign * values, sign * plain.threshold)) is not None:
        return found
    if bright:
        return local_probability(values, of_root.threshold**2, BALANCE_BRIGHT)
    if inverted:
        mirrored = 1 - values
        return local_probability(mirrored, otsu(square_root(mirrored)).threshold ** 2, BALANCE_BRIGHT)
    return local_probability(-values, -plain.threshold, BALANCE_DARK)


def _inner_probability(values: np.ndarray, threshold: float) -> np.ndarray | None:
    """Probability of objects within a foreground, values (H, W) low in both; None where there are none.

    Three classes: local means of two would not separate nuclei from the cytoplasm around them.
    """
    inner = nested_threshold(values, threshold)
    if inner == threshold:
        return None
    difference = float(values[values >= inner].mean() - values[values < inner].mean())
    return sigmoid((inner - values) / max(difference, 1e-6))

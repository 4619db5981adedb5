"""Classical foreground proposals: what an image says about its cells before anything is learned.

Two kinds of maps of an image are thresholded by Otsu's method (Otsu 1979, IEEE Trans. SMC 9(1)): an intensity, lightly
smoothed, and the logarithm of the local standard deviation ("texture"), which serves phase contrast better (Dice 0.66
against 0.25). Which of them an image gets, and of which channel, is `shared.proposals.proposal_selection`.

The side of an intensity threshold that has more texture is the foreground: bright nuclei, or dark ones in tissue. Which
side that is images that look alike tell together (`shared.proposals.proposal_selection`): of 43 purple tissue sections two are mostly smooth
red muscle, darker than anything, and each by itself would have all but the muscle and the nuclei taken for cells.

Where the foreground is dark, it may hold darker things: nuclei in stained cytoplasm. Then the border of Otsu's
foreground is far less steep than another level's contour, and that level is taken: Dice .52 instead of .14 on the
cytology of DSB 2018. Bright foregrounds are left alone, since a steeper contour there only means that some nuclei are
brighter than others; there Otsu looks at the root of the intensity, which draws in bright outliers.

One level for a whole image joins close nuclei in the haze between them and loses the dim ones beside the bright. So the
level is only what `local_probability` starts from: F1 .87 instead of .82 on fluorescence, .65 instead of .59 and .79
instead of .74 on the two kinds of tissue.
"""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from shared.imaging.filters import intensity, texture
from shared.imaging.grey import MEAN, STAIN, grey
from shared.proposals.local_threshold import BALANCE_BRIGHT, BALANCE_DARK, UNDECIDED, local_probability, sigmoid
from shared.proposals.nested_threshold import nested_threshold
from shared.proposals.otsu import UNIMODAL, otsu, rooted

Kind = Literal["intensity", "texture"]


class Proposal(BaseModel):
    """How to propose foreground in the images of one set."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Kind
    separability: float
    """Otsu's: of intensity over images that look alike, of texture over all it is for."""
    threshold: float = 0.0
    """Of texture, over the whole set; intensity is thresholded image by image."""
    spread: float = 1.0
    """Distance of the two classes' means, of texture."""
    channel: int = MEAN
    """Whose intensity is thresholded, from 0; -1: the mean of the channels, -2: the stain."""
    bright: bool | None = None
    """Whether the foreground is what is above the threshold; None: the side that has more texture in an image."""

    @property
    def name(self) -> str:
        """In words, channels counted from 1."""
        if self.kind == "texture" or self.channel == MEAN:
            return self.kind
        return "stain" if self.channel == STAIN else f"{self.kind} of channel {self.channel + 1}"

    def probability(self, image: np.ndarray) -> np.ndarray:
        """Foreground probability of an image (H, W, C): (H, W) float32 in (0, 1)."""
        if self.kind == "texture":
            plane = grey(image)
            if self.separability == 0:  # all images constant
                return np.full(plane.shape, UNDECIDED, np.float32)
            return sigmoid((texture(plane) - self.threshold) / self.spread)
        return _by_intensity(grey(image, self.channel), self.bright)


def brightness(plane: np.ndarray) -> float:
    """How much more texture a grey plane (H, W) has above Otsu's threshold than below; negative where less."""
    values = intensity(plane)
    above, textured = values > otsu(values).threshold, texture(plane)
    if above.all() or not above.any():
        return 0.0
    return float(textured[above].mean() - textured[~above].mean())


def _by_intensity(plane: np.ndarray, bright: bool | None = None) -> np.ndarray:
    """Probability from a grey plane (H, W); an image without two classes stays undecided.

    bright: whether the foreground is what is above the threshold; None: the side that has more texture.
    """
    values = intensity(plane)
    split, split_of_root = otsu(values), otsu(rooted(values))
    if max(split.separability, split_of_root.separability) < 0.9 * UNIMODAL:
        return np.full(values.shape, UNDECIDED, np.float32)
    if brightness(plane) >= 0 if bright is None else bright:
        return local_probability(values, split_of_root.threshold**2, BALANCE_BRIGHT)
    threshold = nested_threshold(values, split.threshold)
    if threshold == split.threshold:
        return local_probability(-values, -threshold, BALANCE_DARK)
    # three classes: the means of two would not tell nuclei from what holds them
    spread = float(values[values >= threshold].mean() - values[values < threshold].mean())
    return sigmoid((threshold - values) / max(spread, 1e-6))

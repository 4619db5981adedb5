"""Classical foreground proposals: what an image says about its cells before anything is learned.

Two kinds of maps of an image are thresholded by Otsu's method (Otsu 1979, IEEE Trans. SMC 9(1)): an intensity, lightly
smoothed, and the logarithm of the local standard deviation ("texture"), which serves phase contrast better (Dice 0.66
against 0.25). Which of them an image gets, and of which channel, is `shared.choice`.

The side of an intensity threshold that has more texture is the foreground: bright nuclei, or dark ones in tissue. Which
side that is images that look alike tell together (`shared.choice`): of 43 purple tissue sections two are mostly smooth
red muscle, darker than anything, and each by itself would have all but the muscle and the nuclei taken for cells.

Where the foreground is dark, it may hold darker things: nuclei in stained cytoplasm. Then the border of Otsu's
foreground is far less steep than another level's contour, and that level is taken: Dice .52 instead of .14 on the
cytology of DSB 2018. Bright foregrounds are left alone, since a steeper contour there only means that some nuclei are
brighter than others; there Otsu looks at the root of the intensity, which draws in bright outliers.

One level for a whole image joins close nuclei in the haze between them and loses the dim ones beside the bright. So the
level is only what `local_probability` starts from: F1 .87 instead of .82 on fluorescence, .65 instead of .59 and .79
instead of .74 on the two kinds of tissue.
"""

import math
from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict

from shared.normalise import Normalisation

NORMALISATION = Normalisation()
UNIMODAL = 2 / math.pi
"""Otsu's separability of a normal distribution."""
TEXTURE_SIGMA = 3.0
"""px, of the window of the local standard deviation."""
TEXTURE_FLOOR = 0.01
"""Standard deviation, in normalised intensity, below which texture does not count."""
STEEPNESS = 6.0
"""Logit between the two class means of a proposal: they get probabilities near 0.05 and 0.95."""
LOCAL_WINDOW, LEAST_SIGMA, MOST_SIGMA = 0.7, 2.0, 24.0
"""Sigma of the windows of `local_means`, in radii of the objects; and its limits, in px."""
LOCAL_PRIOR, LOCAL_STEPS = 0.01, 6
"""Of `local_probability`: weight of the whole image's means beside a full window's; iterations."""
LEAST_CONTRAST = 0.25
"""Share of the image's contrast between the classes, below which a local one counts as this much."""
BALANCE_BRIGHT, BALANCE_DARK = 0.4, 0.5
"""Where the border lies between the means of background (0) and foreground (1)."""
BINS = 256
UNDECIDED = 0.4
"""Probability where an image shows no two classes: background, but not surely."""
NESTED, INNER = 1.2, 0.4
"""How many times as steep another level's contour must be for the foreground to be taken as holding darker objects, and
which share of its area they may have. DSB's cytology: 1.27 to 3.1, 0.02 to 0.33. Its tissue: medians of 1.04 to 1.06,
and where it is above 1.2, 0.45 to 0.55; but for one image (1.45, 0.35) which is the better for it, too."""
HOLDING = 0.5
"""Share of the dark foreground's area that must be of pieces which hold a darker object."""
LEVELS = 64
"""Levels whose contours are compared."""
LENGTH_WEIGHT = 0.25
"""Power of a contour's length beside its mean slope: a speck's contour may be the steepest by chance."""
MEAN, STAIN = -1, -2
"""Instead of a channel's number: the mean of all channels; how much light the stains take."""
LEAST_LIGHT = 0.02
"""Share of the light that is taken to come through at least: a darker pixel's optical density would be noise."""

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
            return _sigmoid((texture(plane) - self.threshold) / self.spread)
        return _by_intensity(grey(image, self.channel), self.bright)


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


def intensity(plane: np.ndarray) -> np.ndarray:
    """Grey plane (H, W), smoothed with sigma 1 px."""
    return cv2.GaussianBlur(plane, (0, 0), 1.0)


def texture(plane: np.ndarray) -> np.ndarray:
    """Logarithm of the local standard deviation of a grey plane (H, W)."""
    mean = cv2.GaussianBlur(plane, (0, 0), TEXTURE_SIGMA)
    variance = cv2.GaussianBlur(plane * plane, (0, 0), TEXTURE_SIGMA) - mean * mean
    return np.log(np.sqrt(np.maximum(variance, 0)) + TEXTURE_FLOOR)


class Split(BaseModel):
    """Two classes of numbers."""

    threshold: float
    separability: float
    """Share of the variance between the classes, 0 to 1; 0 where all numbers are equal."""
    spread: float
    """Distance of the class means."""


def otsu(values: np.ndarray) -> Split:
    """Otsu's threshold over numbers of any shape, with 256 bins between their 0.1 and 99.9 percentiles."""
    low, high = np.percentile(values, [0.1, 99.9]) if values.size else (0.0, 0.0)
    if not high > low:
        return Split(threshold=float(low), separability=0.0, spread=1.0)
    counts, edges = np.histogram(np.clip(values, low, high), BINS, (float(low), float(high)))
    centres = (edges[1:] + edges[:-1]) / 2
    weight = np.cumsum(counts) / counts.sum()
    first = np.cumsum(counts * centres) / counts.sum()
    inner = slice(0, BINS - 1)  # a threshold at the upper end would leave a class empty
    w, m = weight[inner], first[inner]
    between = np.divide((first[-1] * w - m) ** 2, w * (1 - w), out=np.zeros_like(w), where=(w > 0) & (w < 1))
    best = int(between.argmax())
    variance = float((counts * (centres - first[-1]) ** 2).sum() / counts.sum())
    spread = (first[-1] - m[best]) / (1 - w[best]) - m[best] / w[best]
    return Split(
        threshold=float(edges[best + 1]), separability=float(between[best] / variance), spread=float(max(spread, 1e-6))
    )


def rooted(values: np.ndarray) -> np.ndarray:
    """Square root, 0 below 0."""
    return np.sqrt(np.maximum(values, 0))


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
    return _sigmoid((threshold - values) / max(spread, 1e-6))


def local_probability(values: np.ndarray, threshold: float, balance: float) -> np.ndarray:
    """Foreground probability (H, W) float32 by how near a value is to the means of either class around it.

    The piecewise smooth model of Chan & Vese (2001, IEEE TIP 10:266) with means in Gaussian windows (Lankton &
    Tannenbaum 2008, IEEE TIP 17:2029), without its term for the length of the border. Dim objects beside bright ones
    are found, and the haze between close ones is not taken for them. values: (H, W) float32, of the foreground higher;
    threshold: what to start from; balance: where between background and foreground the border lies, 0 to 1.
    """
    mask = values > threshold
    if mask.all() or not mask.any():
        return np.full(values.shape, UNDECIDED, np.float32)
    low, high = float(values[~mask].mean()), float(values[mask].mean())
    for _ in range(LOCAL_STEPS):
        outside, inside = local_means(values, mask, low, high, window(int(mask.sum()), changes(mask)))
        border = outside + balance * (inside - outside)
        mask = values > border
    return _sigmoid((values - border) / np.maximum(inside - outside, LEAST_CONTRAST * (high - low)))


def local_means(
    values: np.ndarray, mask: np.ndarray, low: float, high: float, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a plane (H, W) float32 outside a mask and inside, each (H, W), in Gaussian windows of `sigma` px.

    Where a window holds little of a class, its mean tends to that of the whole image, `low` or `high`.
    """
    weight, total = _window(mask.astype(np.float32), sigma), _window(values * mask, sigma)
    inside = (total + LOCAL_PRIOR * high) / (weight + LOCAL_PRIOR)
    outside = (_window(values, sigma) - total + LOCAL_PRIOR * low) / (1 - weight + LOCAL_PRIOR)
    return outside, inside


def changes(mask: np.ndarray) -> int:
    """How often a mask (H, W) changes along its rows and columns."""
    return int(np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1]))


def window(area: int, changes: int) -> float:
    """Sigma in px of the windows that suit a mask of so many px² with so many changes: a share of its objects' radius.

    That is taken as twice the area over the perimeter (Crofton's, from the changes), which needs no parting of objects
    that touch.
    """
    return min(max(LOCAL_WINDOW * 2 * area / max(changes * math.pi / 4, 1), LEAST_SIGMA), MOST_SIGMA)


def _window(plane: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def nested_threshold(values: np.ndarray, threshold: float) -> float:
    """Threshold (in units of `values`) for dark objects within a dark foreground; `threshold` itself where none show.

    values: (H, W) float32, smooth; threshold: Otsu's. The contours of 64 levels are compared by their mean slope, times
    a power of their length; what lies on the border of Otsu's foreground must be `NESTED` times less steep, and what is
    darker still no more than the share `INNER` of it.
    """
    slope = np.hypot(cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1))
    low, high = (float(value) for value in np.percentile(values, [0.1, 99.9]))
    if not high > low:
        return threshold
    level = ((values - low) / (high - low) * LEVELS).clip(0, LEVELS - 1).astype(np.int64)
    length, steepness = np.zeros(LEVELS + 1), np.zeros(LEVELS + 1)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        below, above = np.minimum(level[here], level[there]).ravel(), np.maximum(level[here], level[there]).ravel()
        steep = (slope[here] + slope[there]).ravel() / 2
        for weight, total in ((None, length), (steep, steepness)):  # a pair lies on the contours between its levels
            total += np.bincount(below + 1, weight, LEVELS + 1) - np.bincount(above + 1, weight, LEVELS + 1)
    length, steepness = (_smooth(np.cumsum(total)) for total in (length, steepness))
    mean = steepness / np.maximum(length, 1)
    score = np.where(length >= LEVELS, mean * length**LENGTH_WEIGHT, 0)[1:LEVELS]
    best = int(score.argmax()) + 1
    found = low + best / LEVELS * (high - low)
    at_otsu = mean[int(np.clip(round((threshold - low) / (high - low) * LEVELS), 0, LEVELS))]
    inner = (values < found).sum() / max(1, (values < threshold).sum())
    if found >= threshold or mean[best] < NESTED * at_otsu or inner > INNER:
        return threshold
    # in cytoplasm there is a nucleus; that a few of many nuclei are darker than the rest is no nesting
    count, pieces = cv2.connectedComponents((values < threshold).astype(np.uint8), connectivity=4)
    area = np.bincount(pieces.ravel(), minlength=count)
    holds = np.bincount(pieces.ravel(), (values < found).ravel(), minlength=count) > 0
    return found if area[1:][holds[1:]].sum() >= HOLDING * area[1:].sum() else threshold


def _smooth(profile: np.ndarray) -> np.ndarray:
    """Gaussian of two levels over a profile (n,)."""
    return cv2.GaussianBlur(np.ascontiguousarray(profile[None], np.float64), (0, 0), 2.0)[0]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function of `STEEPNESS` times x, float32."""
    return (1 / (1 + np.exp(-STEEPNESS * x.astype(np.float32)))).astype(np.float32)

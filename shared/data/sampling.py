"""Which images to learn from, and how often: rare kinds of images more often than their share of the set.

In a set of mixed kinds, most crops would be of the most common kind, long after that is learned. An image is drawn in
proportion to (its area / density)^0.75, where the density is the area of the set's images that look like it. In a set
of one kind the density is the same everywhere, and only the area counts. How many kinds a set holds, looked at less
closely, says how much there is to learn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.artifacts.keys import evenly_spaced

POWER = 0.75
"""Between 0, every image alike, and 1, every look alike. Measured on fluorescence, tissue and cytology mixed, one round
(held-out F1): 0.5 .864 .656 .424; 0.75 .861 .652 .504; 1 .854 .689 .296; without, area alone, .853 .544 .467."""
ALIKE = 0.1
"""Images alike: root mean square difference of their looks, of normalised intensities."""
KIND = 0.25
"""The same, of images of one kind where kinds are counted. DSB 2018's fluorescence holds 1.2 kinds by it, its tissue
1.3, both with its cytology 2.2; Usiigaci 1.0. By ALIKE tissue alone would hold 3.0."""
MOST = 512
"""Images that are looked at, evenly spread; of a larger set the others count as the median of these."""


@dataclass(frozen=True)
class Mixture:
    """What a set of images is made of."""

    shares: np.ndarray
    """How likely each image is to be drawn: (n,) float64, sum 1."""
    kinds: float
    """Effective number of kinds, at least 1: the diversity of order 0 of areas where alike images count as the less
    the more alike they are (Leinster & Cobbold 2012, Ecology 93:477)."""


def mixture(keys: list[str], areas: np.ndarray, appearance_of: Callable[[str], np.ndarray]) -> Mixture:
    """Of images with these keys and areas (n,) px; appearance_of: key -> `look` of that image."""
    chosen = {key: appearance_of(key) for key in evenly_spaced(keys, MOST)}
    known = np.array([key in chosen for key in keys])
    looks = np.stack(list(chosen.values()))
    near, wide = (_density(looks, areas[known], within) for within in (ALIKE, KIND))
    weight = areas.astype(np.float64)
    weight[known] /= near
    weight[~known] /= np.median(near)
    weight **= POWER
    return Mixture(weight / weight.sum(), kinds=float((areas[known] / wide).sum()))


def sample_keys(
    keys: list[str], areas: np.ndarray, budget: float, appearance_of: Callable[[str], np.ndarray]
) -> list[str]:
    """Keys of about `budget` px in all, in order: all where they are no more, else rare kinds rather than others.

    How likely an image is goes by `mixture`, over the root of its area: half way between how often one of its pixels
    is to be in a crop, and how often any of them. Images alike are taken evenly spread (systematic sampling, Madow
    1949). areas: (n,) px.
    """
    if areas.sum() <= budget:
        return keys
    rate = mixture(keys, areas, appearance_of).shares / np.sqrt(areas)
    low, high = 0.0, float(1 / rate.min())
    for _ in range(60):
        factor = (low + high) / 2
        low, high = (factor, high) if (np.minimum(1, factor * rate) * areas).sum() < budget else (low, factor)
    reached = np.cumsum(np.minimum(1, low * rate)) + 0.5
    return [key for key, now, before in zip(keys, reached, [0.5, *reached[:-1]], strict=True) if int(now) > int(before)]


def _density(looks: np.ndarray, areas: np.ndarray, within: float) -> np.ndarray:
    """Area of the images like each, (n,): each counts by a Gaussian of how its look (15,) differs."""
    return np.array([areas @ np.exp(-((looks - one) ** 2).mean(axis=1) / (2 * within**2)) for one in looks])

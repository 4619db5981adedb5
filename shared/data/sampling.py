"""Choose how often each image is sampled: rare kinds of images more often than their share of the set.

In a set of mixed kinds, most crops would show the most common kind, long after the network has learned it. The
probability of an image is therefore proportional to (area / density)^0.75, where the density is the total area of the
images of similar appearance. In a set of one kind the density is the same everywhere, and only the area counts. The
effective number of kinds, counted with a wider tolerance, measures how much there is to learn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.artifacts.keys import evenly_spaced

BALANCE_POWER = 0.75
"""Between 0, all images alike, and 1, all appearances alike (RESULTS.md, "Constants")."""
SIMILAR_WITHIN = 0.1
"""Root mean square difference of appearances, of normalised intensities, within which images are similar."""
SAME_KIND_WITHIN = 0.25
"""The same for images of one kind, where kinds are counted (RESULTS.md, "Constants")."""
MAX_COMPARED = 512
"""Images that are compared, evenly spaced; the others of a larger set get the median density of these."""


@dataclass(frozen=True)
class Mixture:
    """The composition of a set of images."""

    probabilities: np.ndarray
    """Probability that an image is drawn: (n,) float64, sum 1."""
    kinds: float
    """Effective number of kinds, at least 1: the diversity of order 0 of areas, weighted by similarity (Leinster &
    Cobbold 2012, Ecology 93:477)."""


def mixture(keys: list[str], areas: np.ndarray, appearance_of: Callable[[str], np.ndarray]) -> Mixture:
    """Mixture of the images with these keys and areas (n,) px; appearance_of: key -> `appearance` of that image."""
    compared = {key: appearance_of(key) for key in evenly_spaced(keys, MAX_COMPARED)}
    known = np.array([key in compared for key in keys])
    appearances = np.stack(list(compared.values()))
    similar, same_kind = (_density(appearances, areas[known], within) for within in (SIMILAR_WITHIN, SAME_KIND_WITHIN))
    weight = areas.astype(np.float64)
    weight[known] /= similar
    weight[~known] /= np.median(similar)
    weight **= BALANCE_POWER
    return Mixture(weight / weight.sum(), kinds=float((areas[known] / same_kind).sum()))


def sample_keys(
    keys: list[str], areas: np.ndarray, budget: float, appearance_of: Callable[[str], np.ndarray]
) -> list[str]:
    """Choose keys of about `budget` px in total, in order; all of them where they are no more than that.

    The probability of an image is that of `mixture` over the root of its area, halfway between the probability that one
    of its pixels is in a crop and that any of them is. Similar images are chosen evenly spaced (systematic sampling,
    Madow 1949). areas: (n,) px.
    """
    if areas.sum() <= budget:
        return keys
    rate = mixture(keys, areas, appearance_of).probabilities / np.sqrt(areas)
    low, high = 0.0, float(1 / rate.min())
    for _ in range(60):
        factor = (low + high) / 2
        low, high = (factor, high) if (np.minimum(1, factor * rate) * areas).sum() < budget else (low, factor)
    reached = np.cumsum(np.minimum(1, low * rate)) + 0.5
    return [key for key, now, before in zip(keys, reached, [0.5, *reached[:-1]], strict=True) if int(now) > int(before)]


def _density(appearances: np.ndarray, areas: np.ndarray, within: float) -> np.ndarray:
    """Area of the images similar to each, (n,): each counts by a Gaussian of its distance in appearance (15,)."""
    return np.array([areas @ np.exp(-((appearances - one) ** 2).mean(axis=1) / (2 * within**2)) for one in appearances])

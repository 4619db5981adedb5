"""Propose what deviates from the background to one side, and tell whether that looks like cells.

A threshold between two classes needs two of them: where cells cover one percent of an image, there is only one. What
deviates from the background by many times its spread is foreground then, however little of it there is.
"""

import numpy as np

from shared.assessment.mask_statistics import separability, solidity, surroundings
from shared.instances.distance import typical_diameter
from shared.instances.watershed import split_touching
from shared.proposals.background import subtract_background
from shared.proposals.local_threshold import (
    UNDECIDED_PROBABILITY,
    local_probability,
)

_MIN_SPREADS = 6.0
"""Spreads of the background from which on a pixel deviates."""
_START_SHARE, _START_PERCENTILE = 0.5, 90.0
"""Where `local_probability` starts: a share of this percentile of the deviating pixels."""
_BALANCE = 0.5
"""Position of the border between the means of background (0) and foreground (1): gaps between close cells stay open."""
_MIN_DEVIATING_PX = 20
"""Number of deviating pixels below which an image counts as empty."""
_PLAIN_SPREADS, _PLAIN_CONTRAST = 3.0, 0.25
"""Spreads, and share of the contrast between mask and surroundings, within which a pixel looks like background."""
_SOLIDITY_EXPONENT = 4
"""Weight of the shape against the other two factors (RESULTS.md, "Constants")."""
_MIN_AREA_SHARE = 0.05
"""Smallest object whose shape counts, in squares of that diameter."""


def deviation_probability(plane: np.ndarray, bright: bool) -> np.ndarray:
    """Foreground probability of what is brighter, or darker, than the background: (H, W) float32 in (0, 1).

    plane: (H, W) float32, smoothed, not clipped. Undecided everywhere where nothing deviates.
    """
    difference, spread = subtract_background(plane)
    values = difference if bright else -difference
    threshold = deviation_threshold(values, spread)
    if threshold is None:
        return np.full(plane.shape, UNDECIDED_PROBABILITY, np.float32)
    return local_probability(values, threshold, _BALANCE)


def deviation_threshold(values: np.ndarray, spread: float) -> float | None:
    """Value from which on a pixel deviates; None where too few do.

    values: differences from a background of this spread, positive to the side of the foreground.
    """
    deviating = values[values > _MIN_SPREADS * spread]
    if len(deviating) < _MIN_DEVIATING_PX:
        return None
    return max(_MIN_SPREADS * spread, _START_SHARE * float(np.percentile(deviating, _START_PERCENTILE)))


def is_mostly_background(plane: np.ndarray, mask: np.ndarray) -> bool:
    """Whether more than half of a mask (H, W) bool looks like the background of a plane (H, W) float32, smoothed."""
    if not mask.any():
        return False
    difference, spread = subtract_background(plane)
    return float((np.abs(difference[mask]) < _PLAIN_SPREADS * spread).mean()) > 0.5


def most_deviating_part(difference: np.ndarray, spread: float, side: int) -> tuple[slice, slice]:
    """The part of `side` px that has most deviating pixels: slices of rows and columns.

    difference, spread: of `shared.proposals.background.subtract_background`.
    """
    deviating = (np.abs(difference) > _MIN_SPREADS * spread).astype(np.int64)  # float32 counts to 2**24 only
    height, width = (min(side, length) for length in difference.shape)
    sums = np.pad(deviating, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    counts = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(counts.argmax()), counts.shape)
    return np.s_[int(top) : int(top) + height, int(left) : int(left) + width]


def plausibility(mask: np.ndarray, difference: np.ndarray, spread: float) -> float:
    """How much a mask (H, W) uint8 {0, 1} looks like cells on a background, 0 to 1; the scale does not matter.

    The product of three factors: the solidity of the objects (area over that of the convex hull, weighted by area) to
    the fourth power, after touching ones are split; the share of the variance that is between mask and surroundings;
    and the share of the mask that does not look like background. Fragments of cells fail the first, texture the second,
    the background itself the third.
    difference, spread: of `shared.proposals.background.subtract_background`.
    """
    diameter = typical_diameter(mask)
    if diameter is None:
        return 0.0
    difference = np.ascontiguousarray(difference)
    inside = difference[mask > 0]
    outside = difference[surroundings(mask, diameter)]
    if not len(outside):
        return 0.0
    contrast = abs(float(np.median(inside)) - float(np.median(outside)))
    plain = float((np.abs(inside) < max(_PLAIN_SPREADS * spread, _PLAIN_CONTRAST * contrast)).mean())
    solid = solidity(split_touching(mask, min_area=4), _MIN_AREA_SHARE * diameter**2)
    return solid**_SOLIDITY_EXPONENT * separability(inside, outside) * (1 - plain)

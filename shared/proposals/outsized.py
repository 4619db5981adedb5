"""Threshold an image anew where its objects are far larger than those of the set.

In an embryo or a spheroid that glows as a whole, one level for the image gives one object, however clearly the nuclei
within it can be told apart. Against the mean of a window of the size of the set's objects they stand out.
"""

import cv2
import numpy as np

from shared.assessment.mask_statistics import separability
from shared.instances.distance import typical_diameter
from shared.proposals.local_threshold import local_probability
from shared.proposals.otsu import otsu

_MIN_RATIO = 3.5
"""Ratio of the typical diameter to that of the set, from which on objects are outsized (RESULTS.md, "Constants")."""
_MIN_SEPARABILITY = 0.2
"""Share of the variance within the outsized objects, from which on smaller ones stand out (RESULTS.md, "Constants")."""
_MAX_RATIO_AFTER = 2.5
"""Ratio, or its inverse, up to which the objects that are found instead are of the set's size."""


def is_outsized(mask: np.ndarray, diameter: float) -> bool:
    """Whether the objects of a mask (H, W) uint8 {0, 1} are far larger than the set's; diameter: theirs, px."""
    own = typical_diameter(mask)
    return bool(mask.any()) and (own is None or own > _MIN_RATIO * diameter)


def is_of_size(mask: np.ndarray, diameter: float) -> bool:
    """Whether the objects of a mask (H, W) uint8 {0, 1} are about as large as the set's; diameter: theirs, px."""
    own = typical_diameter(mask)
    return own is not None and 1 / _MAX_RATIO_AFTER < own / diameter < _MAX_RATIO_AFTER


def flatten(plane: np.ndarray, diameter: float) -> np.ndarray:
    """Subtract the mean in Gaussian windows whose sigma is a diameter in px: (H, W) or (H, W, C) -> float32."""
    values = plane.astype(np.float32)
    mean = cv2.GaussianBlur(values, (0, 0), diameter, borderType=cv2.BORDER_REFLECT)
    return values - mean.reshape(values.shape)


def probability_within_windows(
    values: np.ndarray, mask: np.ndarray, diameter: float, balance: float
) -> np.ndarray | None:
    """Foreground probability (H, W) float32 by what stands out from the mean around it.

    values: (H, W) float32, higher in the foreground; mask: (H, W) uint8 {0, 1}, the outsized objects; balance: of
    `local_probability`. None where the objects that are found are not of the set's size either, or do not stand out
    within the mask: a large nucleus has a texture, but it is one.
    """
    flat = flatten(values, diameter)
    probability = local_probability(flat, otsu(flat).threshold, balance)
    found = probability >= 0.5
    if not is_of_size(found.astype(np.uint8), diameter):
        return None
    return probability if stands_out(values, mask, found) else None


def stands_out(values: np.ndarray, mask: np.ndarray, found: np.ndarray) -> bool:
    """Whether the values (H, W) tell what is found (H, W) within a mask (H, W) from the rest of the mask."""
    inside, rest = (mask > 0) & (found > 0), (mask > 0) & (found == 0)
    return separability(values[inside], values[rest]) >= _MIN_SEPARABILITY

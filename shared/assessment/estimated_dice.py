"""Estimate the Dice of an image's instances without labels, by what they look like on the image.

A linear model of three statistics, fitted to masks of many kinds of cells, right and wrong ones, on images with labels
(RESULTS.md, "Estimated Dice", with each kind left out of the fit once). It is a warning, not a measurement: masks of
something else that has clear borders and a round shape look as good as masks of cells.
"""

import numpy as np

from shared.assessment.mask_statistics import solidity
from shared.assessment.noise import is_noise
from shared.imaging.gradients import edge_score, gradient
from shared.imaging.grey import grey
from shared.instances.distance import typical_diameter
from shared.instances.label_image import typical_area

MIN_TRUSTED = 0.45
"""Estimated Dice below which masks should not be trusted (RESULTS.md, "Estimated Dice")."""
REMEDY = (
    "Look at the overlays. If they are wrong: draw the cells of one image and let the loop use them (use_labels=1), or "
    "say how cells differ from the background (foreground=dark, bright or textured)."
)
"""What to do about masks that are not trusted."""
OFFSET, OF_SHAPE, OF_EDGES, OF_SIZE = -0.04, 0.77, 0.27, -2.94
"""Weights of the statistics, see `statistics`."""
_MAX_EDGES, _MAX_SIZE = 1.0, 0.15
"""Where edges and size make no further difference."""
_MIN_AREA_SHARE = 0.05
"""Smallest object whose shape counts, in squares of the typical diameter."""
_MAX_SIDE = 1024
"""px; of larger images the part with most foreground is assessed."""


def estimate_dice(image: np.ndarray, labels: np.ndarray) -> float | None:
    """Estimate the Dice of a label image (H, W) of an image (H, W, C): 0 to 1; None where there is no object.

    0 where the image holds only noise.
    """
    part = _part_with_most_foreground(labels)
    plane = grey(image)[part]
    found = statistics(plane, labels[part])
    if found is None or is_noise(plane):
        return None if found is None else 0.0
    shape, edges, size = found
    return float(np.clip(OFFSET + OF_SHAPE * shape + OF_EDGES * edges + OF_SIZE * size, 0, 1))


def statistics(plane: np.ndarray, labels: np.ndarray) -> tuple[float, float, float] | None:
    """Three statistics of a label image (H, W) on a grey plane (H, W): of shape, edges and size; None without objects.

    The solidity of the objects, squared; its fourth power times what the edge score of their borders has above 1, up to
    1; and the typical object's share of the image, up to 0.15.
    """
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas > 0]
    if not len(areas):
        return None
    mask = (labels > 0).astype(np.uint8)
    diameter = typical_diameter(mask) or float(min(labels.shape))
    solid = solidity(labels.astype(np.int32), _MIN_AREA_SHARE * diameter**2)
    score = edge_score(mask, gradient(plane)) or 0.0
    size = min(typical_area(areas) / labels.size, _MAX_SIZE)
    return solid**2, solid**4 * float(np.clip(score - 1, 0, _MAX_EDGES)), size


def _part_with_most_foreground(labels: np.ndarray) -> tuple[slice, slice]:
    """The part of `_MAX_SIDE` px, on a grid of half its side, with most foreground."""
    height, width = labels.shape
    best, found = (slice(0, _MAX_SIDE), slice(0, _MAX_SIDE)), -1
    for top in range(0, max(1, height - _MAX_SIDE // 2), _MAX_SIDE // 2):
        for left in range(0, max(1, width - _MAX_SIDE // 2), _MAX_SIDE // 2):
            y, x = max(0, min(top, height - _MAX_SIDE)), max(0, min(left, width - _MAX_SIDE))
            part = slice(y, y + _MAX_SIDE), slice(x, x + _MAX_SIDE)
            if (count := int(np.count_nonzero(labels[part]))) > found:
                best, found = part, count
    return best

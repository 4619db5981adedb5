"""Where within a mask the image looks as on the mask's border: what parts cells that touch.

What lies between two cells looks as what lies around them: lighter than the nuclei of a tissue section, darker than
fluorescent ones, a bright halo in phase contrast. The intensities deep in a mask say what is usual there, those on its
border to which side the unusual ones mean a border.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from shared.proposals import NORMALISATION

SIGMA = 1.5
"""px, of the smoothing. F1 of a segmentor's masks without border depth, and with it at 1.5 and 2.5: phase contrast
.425, .543, .546, tissue .575, .593, .587; first proposals on fluorescence .808, .799, .795."""
FALL = 0.25
"""Logarithm by which the depth falls for each standard deviation of excess. F1 at 0, 0.125, 0.25 and 0.5 and the same
saddle of 0.85: phase contrast .359, .422, .494, .446; tissue .692, .689, .688, .677; fluorescence .853, .855, .855,
.854."""
MOST = 3.0
"""Standard deviations; what is more unusual counts as this."""
ROWS, MARGIN = 512, 16
"""Rows that are looked at a time, and those beside them that bear on them."""
SAMPLED = 2**20
"""Pixels of an image that are looked at for what is usual, at most; evenly spread."""

Strip = tuple[slice, slice, np.ndarray, np.ndarray]
"""Rows of the image; where they are in what follows; grey plane smoothed, and mask, both with rows beside them."""


@dataclass(frozen=True)
class Look:
    """What is usual within the mask of an image."""

    usual: float
    """Median intensity."""
    spread: float
    """Its standard deviation; above 0."""
    side: float
    """1 where the mask's border is brighter than that, -1 where it is darker."""

    def depth(self, smooth: np.ndarray) -> np.ndarray:
        """Smoothed grey plane (h, w) -> (h, w) float32 in (0, 1], 1 where it does not look as on a border."""
        excess = self.side * (smooth - self.usual) / self.spread
        return np.exp(-FALL * excess.clip(0, MOST), dtype=np.float32)


def border_depth(plane: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Grey plane (H, W) float32 and mask (H, W) uint8 {0, 1} -> (H, W) float32 in (0, 1].

    1 where the image looks as it does deep in the mask, down to exp(-0.75) where it looks as on the mask's border.
    """
    smooth = _smoothed(plane)
    everything = slice(None)
    look = _look([(everything, everything, smooth, mask)], mask.size)
    return np.ones(mask.shape, np.float32) if look is None else look.depth(smooth)


def deepen_borders(depth: np.ndarray, image: np.ndarray, mask: np.ndarray) -> None:
    """Multiply `depth` (H, W) float32 by the border depth of an image (H, W, C) of any dtype, in place.

    Both may be memory maps: a few hundred rows are held in memory at a time, and the result does not depend on whether
    they are.
    """
    look = _look(_strips(image, mask), mask.size)
    if look is not None:
        for rows, inner, smooth, _ in _strips(image, mask):
            depth[rows] *= look.depth(smooth[inner])


def _strips(image: np.ndarray, mask: np.ndarray) -> Iterator[Strip]:
    limits = NORMALISATION.limits(image)
    for top in range(0, len(mask), ROWS):
        first, last = max(0, top - MARGIN), min(len(mask), top + ROWS + MARGIN)
        plane = NORMALISATION.apply(image[first:last], limits).mean(axis=2)
        rows = slice(top, min(top + ROWS, len(mask)))
        yield rows, slice(rows.start - first, rows.stop - first), _smoothed(plane), mask[first:last]


def _smoothed(plane: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(plane, (0, 0), SIGMA)


def _look(strips: Iterable[Strip], pixels: int) -> Look | None:
    """None where the mask is nowhere deep, or has no border."""
    step = max(1, round((pixels / SAMPLED) ** 0.5))
    deep_values, border_values = [], []
    for rows, inner, smooth, mask in strips:
        deep = cv2.erode(mask, np.ones((7, 7), np.uint8))
        border = cv2.dilate(mask, np.ones((5, 5), np.uint8)) > deep
        first = (inner.start or 0) + -(rows.start or 0) % step
        sampled = np.s_[first : inner.stop : step, ::step]
        deep_values.append(smooth[sampled][deep[sampled] > 0])
        border_values.append(smooth[sampled][border[sampled]])
    inside, outside = np.concatenate(deep_values), np.concatenate(border_values)
    if not len(inside) or not len(outside):
        return None
    side = np.sign(outside.mean(dtype=np.float64) - inside.mean(dtype=np.float64))
    spread = max(float(inside.std(dtype=np.float64)), 1e-6)
    return Look(usual=float(np.median(inside)), spread=spread, side=float(side))

"""Where within a mask the image looks as on the mask's border: what parts cells that touch.

What lies between two cells looks as what lies around them: lighter than the nuclei of a tissue section, darker than
fluorescent ones, a bright halo in phase contrast. The intensities deep in a mask say what is usual there, those on its
border to which side the unusual ones mean a border.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from shared.imaging.row_strips import Strip, strips

SIGMA = 1.5
"""px, of the smoothing. F1 of a segmentor's masks without border depth, and with it at 1.5 and 2.5: phase contrast
.425, .543, .546, tissue .575, .593, .587; first proposals on fluorescence .808, .799, .795."""
FALL = 0.25
"""Logarithm by which the depth falls for each standard deviation of excess. F1 at 0, 0.125, 0.25 and 0.5 and the same
saddle of 0.85: phase contrast .359, .422, .494, .446; tissue .692, .689, .688, .677; fluorescence .853, .855, .855,
.854."""
MOST = 3.0
"""Standard deviations; what is more unusual counts as this."""
MARGIN = 16
"""px that bear on a pixel, at most."""
SAMPLED = 2**20
"""Pixels of an image that are looked at for what is usual, at most; evenly spread."""


@dataclass(frozen=True)
class Look:
    """What is usual within the mask of an image."""

    usual: float
    """Median intensity."""
    spread: float
    """Its standard deviation; above 0."""
    side: float
    """1 where the mask's border is brighter than that, -1 where it is darker."""

    def depth(self, plane: np.ndarray) -> np.ndarray:
        """Grey plane (h, w) -> (h, w) float32 in (0, 1], 1 where it does not look as on a border."""
        excess = self.side * (_smoothed(plane) - self.usual) / self.spread
        return np.exp(-FALL * excess.clip(0, MOST), dtype=np.float32)


def border_weight(plane: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Grey plane (H, W) float32 and mask (H, W) uint8 {0, 1} -> (H, W) float32 in (0, 1].

    1 where the image looks as it does deep in the mask, down to exp(-0.75) where it looks as on the mask's border.
    """
    everything = slice(0, len(mask))
    look = _look([Strip(everything, everything, plane, mask)], mask.size)
    return np.ones(mask.shape, np.float32) if look is None else look.depth(plane)


def weight_by_border_contrast(depth: np.ndarray, image: np.ndarray, mask: np.ndarray) -> None:
    """Multiply `depth` (H, W) float32 by the border depth of an image (H, W, C) of any dtype, in place.

    Both may be memory maps: a few hundred rows are held in memory at a time, and the result does not depend on whether
    they are.
    """
    look = _look(strips(image, mask, MARGIN), mask.size)
    if look is not None:
        for strip in strips(image, mask, MARGIN):
            depth[strip.rows] *= look.depth(strip.plane)[strip.inner]


def _smoothed(plane: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(plane, (0, 0), SIGMA)


def _look(parts: Iterable[Strip], pixels: int) -> Look | None:
    """None where the mask is nowhere deep, or has no border."""
    step = max(1, round((pixels / SAMPLED) ** 0.5))
    deep_values, border_values = [], []
    for strip in parts:
        deep = cv2.erode(strip.mask, np.ones((7, 7), np.uint8))
        border = cv2.dilate(strip.mask, np.ones((5, 5), np.uint8)) > deep
        sampled = np.s_[strip.inner.start + -strip.rows.start % step : strip.inner.stop : step, ::step]
        smooth = _smoothed(strip.plane)[sampled]
        deep_values.append(smooth[deep[sampled] > 0])
        border_values.append(smooth[border[sampled]])
    inside, outside = np.concatenate(deep_values), np.concatenate(border_values)
    if not len(inside) or not len(outside):
        return None
    side = np.sign(outside.mean(dtype=np.float64) - inside.mean(dtype=np.float64))
    spread = max(float(inside.std(dtype=np.float64)), 1e-6)
    return Look(usual=float(np.median(inside)), spread=spread, side=float(side))

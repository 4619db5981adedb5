"""Lower a distance map where the image looks as it does on the mask's border, which separates touching cells.

What lies between two cells looks like what lies around them: lighter than the nuclei of a tissue section, darker than
fluorescent nuclei, a bright halo in phase contrast. The intensities well inside the mask tell what is normal for the
cells; the intensities on its border tell on which side of it a deviation means a border. The intensities are not
clipped: rare cells may lie far outside the percentiles that an image is normalised by.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from shared.imaging.grey import UNCLIPPED
from shared.imaging.row_strips import RowStrip, row_strips

SMOOTHING_SIGMA = 1.5
"""px (RESULTS.md, "Constants")."""
DECAY = 0.25
"""Logarithm by which the weight falls for each standard deviation of excess (RESULTS.md, "Constants")."""
MAX_EXCESS = 3.0
"""Standard deviations; a larger excess counts as this."""
_MARGIN = 16
"""px; upper bound of the distance over which a pixel affects another."""
_MAX_SAMPLED_PX = 2**20
"""Pixels of an image that the intensities are estimated from, at most; evenly spread."""


@dataclass(frozen=True)
class BorderContrast:
    """Intensities within an image's mask, and on which side of them its border is."""

    median: float
    """Median intensity well inside the mask."""
    standard_deviation: float
    """Above 0."""
    sign: float
    """1 where the mask's border is brighter than its inside, -1 where it is darker."""

    def weight(self, plane: np.ndarray) -> np.ndarray:
        """Grey plane (h, w) -> (h, w) float32 in (0, 1]; 1 where a pixel does not look as on the border."""
        excess = self.sign * (_smooth(plane) - self.median) / self.standard_deviation
        return np.exp(-DECAY * excess.clip(0, MAX_EXCESS), dtype=np.float32)


def border_weight(plane: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Weigh each pixel by how little it looks as on the mask's border: (H, W) float32 in (0, 1].

    plane: (H, W) float32, grey, not clipped; mask: (H, W) uint8 {0, 1}. The weight is 1 where the image looks as well
    inside the mask, and falls to exp(-0.75) where it looks as on the mask's border.
    """
    everything = slice(0, len(mask))
    contrast = _measure([RowStrip(everything, everything, plane, mask)], mask.size)
    return np.ones(mask.shape, np.float32) if contrast is None else contrast.weight(plane)


def weight_by_border_contrast(distance: np.ndarray, image: np.ndarray, mask: np.ndarray) -> None:
    """Multiply `distance` (H, W) float32 by the border weight of an image (H, W, C) of any dtype, in place.

    `distance` may be a memory map. The result does not depend on the strips of rows that the image is processed in.
    """
    contrast = _measure(row_strips(image, mask, _MARGIN, UNCLIPPED), mask.size)
    if contrast is not None:
        for strip in row_strips(image, mask, _MARGIN, UNCLIPPED):
            distance[strip.rows] *= contrast.weight(strip.plane)[strip.inner]


def _smooth(plane: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(plane, (0, 0), SMOOTHING_SIGMA)


def _measure(strips: Iterable[RowStrip], pixels: int) -> BorderContrast | None:
    """Compare a mask's inside with its border; None where the mask has no inside or no border."""
    step = max(1, round((pixels / _MAX_SAMPLED_PX) ** 0.5))
    inside_values, border_values = [], []
    for strip in strips:
        inside = cv2.erode(strip.mask, np.ones((7, 7), np.uint8))
        border = cv2.dilate(strip.mask, np.ones((5, 5), np.uint8)) > inside
        sampled = np.s_[strip.inner.start + -strip.rows.start % step : strip.inner.stop : step, ::step]
        values = _smooth(strip.plane)[sampled]
        inside_values.append(values[inside[sampled] > 0])
        border_values.append(values[border[sampled]])
    within, on_border = np.concatenate(inside_values), np.concatenate(border_values)
    if not len(within) or not len(on_border):
        return None
    sign = np.sign(on_border.mean(dtype=np.float64) - within.mean(dtype=np.float64))
    deviation = max(float(within.std(dtype=np.float64)), 1e-6)
    return BorderContrast(median=float(np.median(within)), standard_deviation=deviation, sign=float(sign))

"""Find what an object encloses and a threshold missed, such as the pale centre of a red blood cell.

A gap between cells is enclosed as well, but it looks like the background around them, or lies beyond it where cells
have a halo; and cells bulge into it. A pale centre is round, and its intensity lies between those of cells and
background. Left open, it makes the distance watershed cut the ring around it into pieces.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from shared.assessment.object_size import typical_diameter

_MIN_AREA = 64
"""px²; smaller holes are filled anyway (`shared.instances.watershed`)."""
_MAX_DIAMETERS = 1.0
"""Diameter of the hole, in typical diameters of the objects, up to which it is filled (RESULTS.md, "Constants")."""
_MAX_RING_SHARE, _MIN_RING_SOLIDITY = 0.5, 0.9
"""A larger hole is filled if it has at most this share of an object that is convex with it: a ring by itself."""
_MIN_SOLIDITY = 0.85
"""Area of the hole over that of its convex hull, from which on it is filled (RESULTS.md, "Constants")."""
_MAX_CONTRAST = 1.0
"""Where the hole's mean lies between that of the objects (0) and the background (1), up to which it is filled
(RESULTS.md, "Constants")."""


@dataclass(frozen=True)
class _Hole:
    """Background that a mask encloses."""

    part: tuple[slice, slice]
    """Its bounding box."""
    shape: np.ndarray
    """(h, w) bool, within the bounding box."""
    contrast: float
    """Where its mean intensity lies between that of the objects, 0, and of the background around them, 1."""

    @property
    def area(self) -> int:
        """px²"""
        return int(self.shape.sum())


def pale_centres(mask: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Find the pale centres of the objects of a mask (H, W) uint8 {0, 1} on a grey plane (H, W): (H, W) bool."""
    found = np.zeros(mask.shape, bool)
    diameter = typical_diameter(mask)
    if diameter is None:
        return found
    _, components = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    for hole in _holes(mask, plane):
        is_small = hole.area <= np.pi / 4 * (_MAX_DIAMETERS * diameter) ** 2
        is_centre = hole.contrast <= _MAX_CONTRAST and _solidity(hole.shape) >= _MIN_SOLIDITY
        if is_centre and (is_small or _is_ring(components, hole.part, hole.area)):
            found[hole.part] |= hole.shape
    return found


def gaps(mask: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Find the holes of a mask (H, W) uint8 {0, 1} that look like the background, or lie beyond it: (H, W) bool."""
    found = np.zeros(mask.shape, bool)
    for hole in _holes(mask, plane):
        if hole.contrast > _MAX_CONTRAST:
            found[hole.part] |= hole.shape
    return found


def _holes(mask: np.ndarray, plane: np.ndarray) -> Iterator[_Hole]:
    """Yield the holes of a mask, but for small ones; none where no background touches the image's border."""
    _, holes, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=8, ltype=cv2.CV_32S)
    outside = np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))
    is_hole = stats[:, cv2.CC_STAT_AREA] > _MIN_AREA
    is_hole[outside] = is_hole[0] = False
    around = np.isin(holes, outside[outside > 0])
    if not is_hole.any() or not around.any():
        return
    background, objects = float(np.median(plane[around])), float(plane[mask > 0].mean())
    difference = background - objects
    for number in np.flatnonzero(is_hole).tolist():
        x, y, width, height = stats[number, :4].tolist()
        part = np.s_[y : y + height, x : x + width]
        shape = holes[part] == number
        own = float(plane[part][shape].mean()) - objects
        yield _Hole(part, shape, own / difference if difference else np.inf)


def _is_ring(components: np.ndarray, hole: tuple[slice, slice], area: int) -> bool:
    """Whether a hole, by its bounding box and area, lies in a single convex object; components: (H, W)."""
    row = (hole[0].start + hole[0].stop) // 2
    number = components[row, max(0, hole[1].start - 1)]
    if number == 0:
        return False
    ring = components == number
    points = np.flatnonzero(ring.any(axis=0)), np.flatnonzero(ring.any(axis=1))
    whole = ring[points[1][0] : points[1][-1] + 1, points[0][0] : points[0][-1] + 1]
    own = int(whole.sum()) + area
    return area <= _MAX_RING_SHARE * own and own >= _MIN_RING_SOLIDITY * _hull_area(whole)


def _solidity(region: np.ndarray) -> float:
    """Area of a region (h, w) bool over that of its convex hull."""
    return float(region.sum() / _hull_area(region))


def _hull_area(region: np.ndarray) -> int:
    """Area of the convex hull of a region (h, w) bool, px²."""
    contours, _ = cv2.findContours(region.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    canvas = np.zeros(region.shape, np.uint8)
    cv2.fillConvexPoly(canvas, cv2.convexHull(np.vstack(contours)), 1)
    return int(canvas.sum())

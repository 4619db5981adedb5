"""Find what an object encloses and a threshold missed, such as the pale centre of a red blood cell.

A gap between cells is enclosed as well, but it looks like the background around them, or lies beyond it where cells
have a halo; and cells bulge into it. A pale centre is round, and its intensity lies between those of cells and
background; or its cell lies alone, a convex ring. Left open, it makes the distance watershed cut the ring into pieces.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from shared.imaging.row_strips import RowStrip, row_strips
from shared.instances.distance import typical_diameter

_MIN_AREA = 64
"""px²; smaller holes are filled anyway (`shared.instances.watershed`)."""
_MAX_DIAMETERS = 1.0
"""Diameter of the hole, in typical diameters of the objects, up to which it is filled (RESULTS.md, "Constants")."""
_MAX_RING_SHARE, _MIN_RING_SOLIDITY = 0.5, 0.9
"""A ring by itself: an object that is convex with its hole, of which the hole has at most this share."""
_MAX_RING_CONTRAST = 1.5
"""As `_MAX_CONTRAST`, for the hole of a ring by itself, of any shape (RESULTS.md, "Constants")."""
_MIN_SOLIDITY = 0.85
"""Area of the hole over that of its convex hull, from which on it is filled (RESULTS.md, "Constants")."""
_MAX_CONTRAST = 1.0
"""Where the hole's mean lies between that of the objects (0) and the background (1), up to which it is filled
(RESULTS.md, "Constants")."""

_MAX_SAMPLED_PX = 2**22
"""Pixels that the background's intensity is estimated from, at most; evenly spread."""


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
    return _pale_centres(mask, _whole(mask, plane))


def pale_centres_of_image(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Find the pale centres of a model's mask (H, W) uint8 {0, 1} of an image (H, W, C) of any dtype: (H, W) bool.

    Like `pale_centres`, without a grey plane of the whole image; and in a ring by itself, a hole of any shape that is
    little brighter or darker than the background. In a first proposal such a ring may be a halo.
    """
    return _pale_centres(mask, row_strips(image, mask, 0), _MAX_RING_CONTRAST)


def opened(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Holes (H, W) bool of a mask that were foreground before its border was refined; both (H, W) uint8 {0, 1}."""
    count, holes = cv2.connectedComponents(1 - after, connectivity=8, ltype=cv2.CV_32S)
    known = np.bincount(holes.ravel(), before.ravel() == 0, count) > 0
    known[0] = True
    return ~known[holes]


def _whole(mask: np.ndarray, plane: np.ndarray) -> list[RowStrip]:
    everything = slice(0, len(mask))
    return [RowStrip(everything, everything, plane, mask)]


def _pale_centres(mask: np.ndarray, strips: Iterable[RowStrip], max_ring_contrast: float = -np.inf) -> np.ndarray:
    """max_ring_contrast: up to which a ring's hole of any shape is filled."""
    found = np.zeros(mask.shape, bool)
    diameter = typical_diameter(mask)
    if diameter is None:
        return found
    _, components = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    for hole in _holes(mask, strips):
        is_small = hole.area <= np.pi / 4 * (_MAX_DIAMETERS * diameter) ** 2
        is_centre = hole.contrast <= _MAX_CONTRAST and _solidity(hole.shape) >= _MIN_SOLIDITY
        may_be_ring = is_centre or hole.contrast <= max_ring_contrast
        if (is_centre and is_small) or (may_be_ring and _is_ring(components, hole.part, hole.area)):
            found[hole.part] |= hole.shape
    return found


def gaps(mask: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Find the holes of a mask (H, W) uint8 {0, 1} that look like the background, or lie beyond it: (H, W) bool."""
    found = np.zeros(mask.shape, bool)
    for hole in _holes(mask, _whole(mask, plane)):
        if hole.contrast > _MAX_CONTRAST:
            found[hole.part] |= hole.shape
    return found


def _holes(mask: np.ndarray, strips: Iterable[RowStrip]) -> Iterator[_Hole]:
    """Yield the holes of a mask, but for small ones; none where no background touches the image's border."""
    count, holes, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=8, ltype=cv2.CV_32S)
    is_outside = np.zeros(count, bool)
    is_outside[np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])] = True
    is_hole = (stats[:, cv2.CC_STAT_AREA] > _MIN_AREA) & ~is_outside
    is_outside[0] = is_hole[0] = False
    if not is_hole.any() or not is_outside.any():
        return
    means, background = _intensities(holes, is_outside, strips)
    difference = background - means[0]
    for number in np.flatnonzero(is_hole).tolist():
        x, y, width, height = stats[number, :4].tolist()
        part = np.s_[y : y + height, x : x + width]
        contrast = (means[number] - means[0]) / difference if difference else np.inf
        yield _Hole(part, holes[part] == number, float(contrast))


def _intensities(regions: np.ndarray, is_outside: np.ndarray, strips: Iterable[RowStrip]) -> tuple[np.ndarray, float]:
    """Mean intensity of each region (n,) of (H, W) int32 from 0 to n - 1, and the median of the outside ones."""
    step = max(1, round((regions.size / _MAX_SAMPLED_PX) ** 0.5))
    sums, areas, outside = np.zeros(len(is_outside)), np.zeros(len(is_outside)), []
    for strip in strips:
        own, values = regions[strip.rows], strip.plane[strip.inner]
        sums += np.bincount(own.ravel(), values.ravel(), len(sums))
        areas += np.bincount(own.ravel(), minlength=len(sums))
        sampled = np.s_[-strip.rows.start % step :: step, ::step]
        outside.append(values[sampled][is_outside[own[sampled]]])
    found = np.concatenate(outside)
    return sums / np.maximum(areas, 1), float(np.median(found)) if len(found) else 0.0


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

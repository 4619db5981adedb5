"""Boxes of objects in an image or a crop, as arrays that move with the pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

MIN_VISIBLE = 0.35
"""Share of a box's area that must remain after a cut; boxes with less are dropped."""
MIN_SIDE_PX = 2.0
"""px of network input; narrower boxes are dropped, whole or cut."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of n objects."""

    corners: np.ndarray
    """(n, 4) float32: x0, y0, x1, y1 in px; x1 and y1 are exclusive."""
    classes: np.ndarray
    """(n,) int64: index of the class."""
    ignored: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """(m, 4) float32: corners of regions whose objects are not told apart. Nothing is learned there."""

    @classmethod
    def none(cls) -> "Boxes":
        """Return no boxes."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.classes)

    def scale(self, y: float, x: float) -> "Boxes":
        """Return the boxes of the image resized by these factors."""
        return self._replace((self.corners * np.array([x, y, x, y])).astype(np.float32))

    def shift(self, y: float, x: float) -> "Boxes":
        """Return the boxes moved down by `y` and right by `x` px."""
        return self._replace((self.corners + np.array([x, y, x, y])).astype(np.float32))

    def orient(self, quarter_turns: int, flip: bool, size: tuple[int, int]) -> "Boxes":
        """Return the boxes of an image of `size` (H, W) rotated counter-clockwise by 90 degrees, then mirrored."""
        x0, y0, x1, y1 = self.corners.T
        height, width = size
        for _ in range(quarter_turns % 4):
            x0, y0, x1, y1 = y0, width - x1, y1, width - x0
            height, width = width, height
        if flip:
            x0, x1 = width - x1, width - x0
        return self._replace(np.stack([x0, y0, x1, y1], axis=1).astype(np.float32))

    def clip(self, size: tuple[int, int], min_visible: float = MIN_VISIBLE) -> "Boxes":
        """Clip to an image of `size` (H, W); drop boxes of which less than `min_visible` remains, and very narrow ones.

        A box as large as most of the image is never dropped for what lies outside.
        """
        clipped = self.corners.clip(0, np.array([size[1], size[0]] * 2, np.float32))
        remains = _areas(clipped) >= min_visible * np.minimum(_areas(self.corners), size[0] * size[1])
        sides = np.minimum(*(clipped[:, 2:] - clipped[:, :2]).T) if len(clipped) else np.zeros(0)
        keep = remains & (sides >= MIN_SIDE_PX)
        return Boxes(clipped[keep].astype(np.float32), self.classes[keep])

    def shares(self, size: tuple[int, int]) -> np.ndarray:
        """Return centre x, centre y, width, height (n, 4) float32 as shares of an image of `size` (H, W)."""
        x0, y0, x1, y1 = (self.corners / np.array([size[1], size[0]] * 2)).T
        return np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=1).astype(np.float32)

    def _replace(self, corners: np.ndarray) -> "Boxes":
        return Boxes(corners, self.classes)


def join(parts: Sequence[Boxes]) -> Boxes:
    """Return the boxes of all parts, in one image."""
    if not parts:
        return Boxes.none()
    return Boxes(np.concatenate([part.corners for part in parts]), np.concatenate([part.classes for part in parts]))


def _areas(corners: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n,) px²."""
    x0, y0, x1, y1 = corners.T
    areas: np.ndarray = (x1 - x0).clip(0) * (y1 - y0).clip(0)
    return areas


def densest(boxes: Sequence[Boxes], side: float) -> int:
    """Return the largest number of centres of boxes within any square of `side` px.

    Squares begin at multiples of a quarter of the side, so that the number is a lower bound close to the true one.
    """
    most = 0
    for one in boxes:
        if len(one):
            centres = (one.corners[:, :2] + one.corners[:, 2:]) / 2
            cells = (centres // (side / 4)).astype(int)
            grid = np.zeros(cells.max(axis=0) + 5, int)
            np.add.at(grid, tuple(cells.T), 1)
            sums = np.pad(grid, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
            most = max(most, int((sums[4:, 4:] - sums[:-4, 4:] - sums[4:, :-4] + sums[:-4, :-4]).max()))
    return most

"""Find the background of a label image where it is not, or not alone, the value 0."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from shared.system.errors import ImageError

_MIN_BORDER_SHARE = 0.5
"""Share of the image's border that a value must hold to be the background."""
_MIN_BORDER_SHARE_OF_TWO = 0.75
"""The same where there are only two values, of which either may be the foreground."""
_MIN_BORDER_SHARE_OF_INDEX = 0.9
"""The same for an index of a palette that also has the index 0."""
_MAX_OBJECT_SHARE = 0.5
"""Share of the image that an object must stay below where no pixel is background."""
_MIN_ENCLOSED_SHARE = 0.5
"""Share of the other values' pixels that a background besides 0 encloses."""
_MIN_RECTANGLE_SHARE = 0.75
"""Share of the image that the rectangle around all other values than 0 has where 0 is a margin."""
_LINE_PX = 5
"""Lines nowhere fill a square of this side, px."""


@dataclass(frozen=True)
class Background:
    """Values whose background is 0, and which value it was."""

    values: np.ndarray
    """(H, W)"""
    name: int = 0


def find_background(
    values: np.ndarray, describe: Callable[[int], str], remarks: list[str], numbered_at_will: bool
) -> Background:
    """Set the background of values (H, W) to 0. Raises ImageError where it cannot be told.

    numbered_at_will: whether 0 may be an object like any other value.
    """
    if not (values == 0).any():
        return _without_zero(values, describe, remarks)
    if numbered_at_will and (name := _border_value(values, _MIN_BORDER_SHARE_OF_INDEX)):
        remarks.append(
            f"{describe(name)} of the palette holds the image's border and is taken for the background, 0 for an object"
        )
        moved = values.astype(np.uint16 if values.dtype == np.uint8 else np.int64)
        moved[values == 0] = int(values.max()) + 1
        moved[values == name] = 0
        return Background(moved, name)
    if name := _enclosing_value(values):
        covered = 100 * float((values == name).mean())
        remarks.append(f"{describe(name)}, {covered:.0f} % of the image, encloses the others; it is background, like 0")
        return Background(np.where(values == name, 0, values).astype(values.dtype))
    return Background(values)


def border_share(mask: np.ndarray) -> float:
    """Share of the pixels on the border of (H, W) that are not 0."""
    return float(np.mean(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]) > 0))


def _without_zero(values: np.ndarray, describe: Callable[[int], str], remarks: list[str]) -> Background:
    names, counts = np.unique(values, return_counts=True)
    if len(names) == 1:
        raise ImageError(f"every pixel is {describe(names[0])}; background must be 0")
    found = _border_value(values, _MIN_BORDER_SHARE if len(names) > 2 else _MIN_BORDER_SHARE_OF_TWO)
    if found is not None:
        covered = 100 * float((values == found).mean())
        remarks.append(f"no pixel is 0; {describe(found)}, {covered:.0f} % of the image, is taken for the background")
        return Background(np.where(values == found, 0, values).astype(values.dtype), int(found))
    if counts.max() >= _MAX_OBJECT_SHARE * values.size:
        listed = ", ".join(describe(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        raise ImageError(f"no pixel is 0 (background), and which of {listed} it is cannot be told; set it to 0")
    remarks.append(f"no pixel is 0 (background): all belong to one of {len(names)} objects")
    return Background(values, int(np.median(np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]]))))


def _border_value(values: np.ndarray, min_share: float) -> int | None:
    """The value of at least this share of the image's border, if it lies on all four sides."""
    sides = (values[0], values[-1], values[:, 0], values[:, -1])
    names, counts = np.unique(np.concatenate(sides), return_counts=True)
    best = names[counts.argmax()]
    is_background = counts.max() >= min_share * counts.sum() and all((side == best).any() for side in sides)
    return int(best) if is_background else None


def _enclosing_value(values: np.ndarray) -> int | None:
    """The value that encloses most of the others, where 0 is only thin lines or a margin; None where none does."""
    others = values > 0
    if not others.any() or not _is_lines_and_margin(~others):
        return None
    names, counts = np.unique(values[others], return_counts=True)
    name = names[counts.argmax()]
    rest = others & (values != name)
    if not rest.any():
        return None
    return int(name) if filled(values == name)[rest].mean() >= _MIN_ENCLOSED_SHARE else None


def _is_lines_and_margin(zeros: np.ndarray) -> bool:
    """Whether 0, (H, W) bool, is nothing but thin lines within the rectangle around the rest, which fills the image."""
    rows, columns = np.flatnonzero(~zeros.all(axis=1)), np.flatnonzero(~zeros.all(axis=0))
    if (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0]) < _MIN_RECTANGLE_SHARE * zeros.size:
        return False
    within = zeros[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    outside = cv2.erode(within, np.ones((_LINE_PX, _LINE_PX), np.uint8), borderValue=0)
    return not outside.any()


def filled(mask: np.ndarray) -> np.ndarray:
    """Fill all holes of a mask (H, W) bool."""
    count, pieces = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    is_open = np.zeros(count, bool)
    for side in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        is_open[side] = True
    is_open[0] = False
    return ~is_open[pieces]

"""Boxes and outlines from Pascal VOC xml and COCO json, as annotations of one form."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.system.errors import ImageError


@dataclass
class Annotation:
    """One object of an image."""

    category: str
    bbox: tuple[float, float, float, float]
    """x, y of the upper left corner, width, height; px."""
    area: float
    rle: dict[str, Any] | None = None
    """COCO's compressed run lengths, `counts` as text; None for a box alone."""
    iscrowd: int = 0


def clipped(corners: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Corners (x0, y0, x1, y1) -> (x, y, width, height) within the image. Raises ImageError for a box without area."""
    if not all(np.isfinite(corners)):
        raise ImageError("its box has no four numbers")
    x0, x1 = (min(max(x, 0.0), float(size[1])) for x in corners[::2])
    y0, y1 = (min(max(y, 0.0), float(size[0])) for y in corners[1::2])
    if x1 <= x0 or y1 <= y0:
        raise ImageError(f"degenerate box, x {corners[0]:g} to {corners[2]:g}, y {corners[1]:g} to {corners[3]:g}")
    return x0, y0, x1 - x0, y1 - y0

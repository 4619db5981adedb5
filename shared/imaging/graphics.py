"""Find scale bars and text that a program drew into an image.

They have one value, the highest or the lowest of the image, far from all other values, and sharp edges. Saturated cells
have one value as well, but the values around them reach up to it.
"""

import cv2
import numpy as np

_MIN_PX = 20
"""Pixels of that value, at least."""
_MAX_SHARE = 0.05
"""Share of the image that drawings cover, at most."""
_SAMPLE_PX, _MIN_VALUES = 100_000, 16
"""Pixels of the rest that are looked at, about, and number of different values among them: fewer are no micrograph."""
_MIN_GAP = 0.1
"""Distance to the other values, as a share of their range."""
_MIN_DROP = 0.6
"""Share of the difference to the image's median that is reached next to a drawing."""
_AROUND_PX = 5
"""Width of the surroundings whose median takes the place of a drawing, px."""
_MAX_BETWEEN = 0.5
"""Pixels with values in between, which smooth the edges of letters, as a share of the drawn ones."""


def drawn_pixels(plane: np.ndarray) -> np.ndarray | None:
    """Find the pixels of scale bars and text in a plane (H, W) of any dtype: (H, W) bool; None where there are none."""
    found = None
    for value, sign in ((plane.max(), 1), (plane.min(), -1)) if plane.size else ():
        drawn = plane == value
        count = int(np.count_nonzero(drawn))
        if not _MIN_PX <= count <= _MAX_SHARE * plane.size:
            continue
        others = plane[~drawn]
        sampled = others[:: max(1, others.size // _SAMPLE_PX)]
        if len(np.unique(sampled)) < _MIN_VALUES:
            continue
        low, high = (float(limit) for limit in np.percentile(sampled, [0.1, 99.9]))
        nearest = float(value) - sign * _MIN_GAP * max(high - low, 1e-9)
        between = int(np.count_nonzero(others > nearest if sign > 0 else others < nearest))
        is_far = high < nearest if sign > 0 else low > nearest
        if is_far and between <= _MAX_BETWEEN * count and _is_sharp(plane, drawn):
            found = drawn if found is None else found | drawn
    return found


def _is_sharp(plane: np.ndarray, drawn: np.ndarray) -> bool:
    """Whether the pixels next to what is drawn (H, W) bool are nearly as far from it as the others."""
    ring = (cv2.dilate(drawn.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~drawn
    if not ring.any():
        return False
    value = float(plane[drawn][0])
    return abs(value - float(np.median(plane[ring]))) >= _MIN_DROP * abs(value - float(np.median(plane[~drawn])))


def without_graphics(image: np.ndarray) -> np.ndarray:
    """Replace scale bars and text by the median of what is around them: an image (H, W, C) of the same dtype.

    Returns the image itself where there are none.
    """
    found = [drawn_pixels(image[..., channel]) for channel in range(image.shape[2])]
    known = [mask for mask in found if mask is not None]
    if not known or len(known) < image.shape[2]:
        return image
    drawn = np.logical_and.reduce(known).astype(np.uint8)
    if not drawn.any():
        return image
    kernel = np.ones((3, 3), np.uint8)
    covered = cv2.dilate(drawn, kernel) > 0
    around = (cv2.dilate(drawn, kernel, iterations=_AROUND_PX) > 0) & ~covered
    cleaned = image.copy()
    cleaned[covered] = np.median(image[around if around.any() else ~covered], axis=0).astype(image.dtype)
    return cleaned

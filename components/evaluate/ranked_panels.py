"""Draw the images of the lowest and of the highest scores."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from shared.imaging.overlays import PREDICTION_COLOUR, TRUTH_COLOUR, outline, side_by_side, to_rgb8

_KEPT = 3
"""Images kept at either end."""
_SIDE = 640
"""px; larger images are scaled down to it."""


class RankedPanel(NamedTuple):
    """A scored image, drawn."""

    score: float
    source: str
    picture: np.ndarray
    """(h, w, 3) uint8."""


class RankedPanels:
    """Keeps the _KEPT lowest and highest scores; memory does not grow with the number of images."""

    def __init__(self) -> None:
        self._kept: list[RankedPanel] = []

    def add(self, score: float, source: str, draw: Callable[[], np.ndarray]) -> None:
        """Offer an image. `draw` is called only if the image is among either end so far; of equals the first stays."""
        scores = [kept.score for kept in self._kept]
        if len(scores) >= 2 * _KEPT and scores[_KEPT - 1] <= score <= scores[_KEPT]:
            return
        self._kept.append(RankedPanel(score, source, draw()))
        self._kept.sort(key=lambda kept: kept.score)
        if len(self._kept) > 2 * _KEPT:
            del self._kept[_KEPT]

    def worst(self) -> list[RankedPanel]:
        """Lowest scores, ascending."""
        return self._kept[: (len(self._kept) + 1) // 2]

    def best(self) -> list[RankedPanel]:
        """Highest scores, descending, without those of `worst`."""
        return self._kept[(len(self._kept) + 1) // 2 :][::-1]


def draw_panel(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Draw input, truth and prediction side by side: (h, w, 3) uint8. image: (H, W, C), label images: (H, W)."""
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    rgb = cv2.resize(to_rgb8(image), size, interpolation=cv2.INTER_AREA)
    small = [
        cv2.resize(labels.astype(np.float64), size, interpolation=cv2.INTER_NEAREST).astype(np.int64)
        for labels in (truth, predicted)
    ]
    return side_by_side([rgb, outline(rgb, small[0], TRUTH_COLOUR), outline(rgb, small[1], PREDICTION_COLOUR)])

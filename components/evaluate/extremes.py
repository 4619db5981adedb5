"""The best and worst images, drawn."""

from collections.abc import Callable

import cv2
import numpy as np

from shared.imaging.overlays import PREDICTION, TRUTH, outline, side_by_side, to_rgb8

EACH = 3
"""Images kept at either end."""
SIDE = 640
"""px; larger images are shown scaled down to it."""

Scored = tuple[float, str, np.ndarray]
"""Score, source, picture."""


class Extremes:
    """Keeps the pictures of the EACH lowest and highest scores seen; memory does not grow with the images."""

    def __init__(self) -> None:
        self._kept: list[Scored] = []

    def add(self, score: float, source: str, draw: Callable[[], np.ndarray]) -> None:
        """Offer one image; `draw` is called where it belongs to either end so far. The first of equals stays."""
        ranked = [kept[0] for kept in self._kept]
        if len(ranked) >= 2 * EACH and ranked[EACH - 1] <= score <= ranked[EACH]:
            return
        self._kept.append((score, source, draw()))
        self._kept.sort(key=lambda kept: kept[0])
        if len(self._kept) > 2 * EACH:
            del self._kept[EACH]

    def worst(self) -> list[Scored]:
        """Lowest scores, ascending."""
        return self._kept[: (len(self._kept) + 1) // 2]

    def best(self) -> list[Scored]:
        """Highest scores, descending; none that is among the worst already."""
        return self._kept[(len(self._kept) + 1) // 2 :][::-1]


def panel(image: np.ndarray, true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Input, truth and prediction side by side: (h, w, 3) uint8. image: (H, W, C), labels: (H, W)."""
    scale = min(1.0, SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    rgb = cv2.resize(to_rgb8(image), size, interpolation=cv2.INTER_AREA)
    small = [
        cv2.resize(labels.astype(np.float64), size, interpolation=cv2.INTER_NEAREST).astype(np.int64)
        for labels in (true, found)
    ]
    return side_by_side([rgb, outline(rgb, small[0], TRUTH), outline(rgb, small[1], PREDICTION)])

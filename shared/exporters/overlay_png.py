"""Write `overlays/KEY.png`: the outlines of all instances, and the boxes, on the image."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from shared.artifacts.annotation import Annotation
from shared.exporters.base_classes import FilesPerImage, write_png
from shared.exporters.exporter import Content, PredictedImage
from shared.imaging.overlays import outline, outline_classes, thumbnail, to_rgb8

MAX_OVERLAY_SIDE = 4096
"""px; larger overlays are scaled down, because browsers do not show them."""


class OverlayPng(FilesPerImage):
    """PNG (h, w, 3) uint8."""

    needs: ClassVar[frozenset[Content]] = frozenset(["boxes", "instances"])
    subfolder, extension = "overlays", "png"

    def prepare(self, item: PredictedImage) -> None:
        """Write the overlay of an image that was searched for objects."""
        if item.instances is not None or item.boxes is not None:
            labels = None if item.instances is None else item.instances.labels
            write_png(self.path(item), overlay(item.image, labels, item.boxes or ()))


def overlay(
    image: np.ndarray,
    labels: np.ndarray | None = None,
    boxes: Sequence[Annotation] = (),
    max_side: int = MAX_OVERLAY_SIDE,
) -> np.ndarray:
    """Draw the outlines of a label image (H, W) and boxes on image (H, W, C): RGB uint8, up to `max_side` px a side."""
    small = thumbnail(image, max_side)
    small = small if small.ndim == 3 else small[..., None]
    drawn = to_rgb8(small)
    if labels is not None:
        drawn = outline(drawn, _resized_labels(labels, small.shape[:2]))
    return outline_classes(drawn, [(box.category, box.bbox) for box in boxes], small.shape[1] / image.shape[1])


def _resized_labels(labels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Label image (H, W) -> `size`, by the nearest pixel."""
    if labels.shape == size:
        return labels
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.int64)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]

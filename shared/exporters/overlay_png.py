"""Write `overlays/KEY.png`: the outlines of all instances on the image."""

import numpy as np

from shared.exporters.exporter import PredictedImage
from shared.exporters.files_per_image import FilesPerImage, write_png
from shared.imaging.overlays import outline, thumbnail, to_rgb8

MAX_OVERLAY_SIDE = 4096
"""px; larger overlays are scaled down, because browsers do not show them."""


class OverlayPng(FilesPerImage):
    """PNG (h, w, 3) uint8."""

    subfolder, extension = "overlays", "png"

    def prepare(self, item: PredictedImage) -> None:
        """Write the overlay."""
        write_png(self.path(item), overlay(item.image, item.labels))


def overlay(image: np.ndarray, labels: np.ndarray, max_side: int = MAX_OVERLAY_SIDE) -> np.ndarray:
    """Draw the outlines of label image (H, W) on image (H, W, C): RGB uint8, `max_side` px on a side at most."""
    small = thumbnail(image, max_side)
    small = small if small.ndim == 3 else small[..., None]
    if small.shape[:2] != labels.shape:
        rows, columns = (
            np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.int64)
            for new, old in zip(small.shape[:2], labels.shape, strict=True)
        )
        labels = labels[rows[:, None], columns]
    return outline(to_rgb8(small), labels)
